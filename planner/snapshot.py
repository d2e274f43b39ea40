"""What the planner knows at the end of a tick, swapped by reference.

Readers (REST, the command line) take the snapshot they are given and never
lock the loop. Columns stay arrays: a row becomes an object only when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from forecasting.contest import Change
from forecasting.coverage import Coverage
from forecasting.population import ArchetypeView
from planner.alarm_views import AlarmOperations
from planner.events.views import EventOperations
from planner.issued import IssuedHistory
from planner.plan import Plan
from planner.remediation.views import RemediationOperations, WebhookOperations

if TYPE_CHECKING:
    from planner.dry_run import Rehearsal
    from planner.group_desk import GroupDesk
    from planner.network_desk import NetworkDesk
    from planner.policy_desk import PolicyDesk
    from planner.rates import RateHistory
    from planner.shape_desk import ShapeDesk

F64 = npt.NDArray[np.float64]


class Level(IntEnum):
    """Depth of a pool in the tree."""

    GLOBAL = 0
    REGION = 1
    GROUP = 2
    USER = 3
    #: An application class of a user, where the user's block names some.
    APPLICATION = 4


@dataclass(frozen=True)
class Pools:
    """Every pool of the tree. Columns of rates have shape (2, n_pools): upload, download.

    Rates are bit/s of frames. NaN means that nothing is known, never zero.
    """

    path: tuple[str, ...] = ()
    level: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    #: Index of the parent; -1 for the root.
    parent: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    guarantee_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    #: Infinite where the pool has none of its own.
    ceiling_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    weight: F64 = field(default_factory=lambda: np.empty(0))
    offered_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    #: What passed the pool's meters.
    delivered_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    p50_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    p90_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    grant_bps: F64 = field(default_factory=lambda: np.empty((2, 0)))
    #: Which rung of the forecast ladder served the pool: ``forecasting.forecast.Rung``.
    rung: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((2, 0), np.uint8))
    #: What bound the grant: ``allocation.allocate.Bound``.
    bound: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((2, 0), np.uint8))

    def index(self, path: str) -> int:
        """Row of the pool with this path. Raises KeyError."""
        try:
            return self.path.index(path)
        except ValueError:
            raise KeyError(path) from None


@dataclass(frozen=True)
class GroupView:
    """A resource group as operators see it."""

    id: str
    #: ``configured`` (file), ``operator`` (REST) or ``discovered``.
    source: str
    #: ``forming``, ``active`` or ``dissolving``.
    state: str
    #: User ids.
    members: tuple[str, ...]
    since: float
    reason: str
    #: The operator's own values, bit/s up and down; None where defaults hold.
    guarantee_bps: tuple[int, int] | None
    ceiling_bps: tuple[int, int] | None
    weight: float
    #: Rows of ``Pools``: one part for each region.
    pools: tuple[int, ...]
    #: ``application`` (a community), ``role``, ``operator`` (file or REST), or ``rest``: all that are in none.
    kind: str = "application"


@dataclass(frozen=True)
class SwitchView:
    """One switch as last reported."""

    dpid: int
    connected: bool
    region: str | None
    last_seen: float
    #: Version of the plan that the switch was last brought to.
    plan_version: int
    #: Whether the meters read back last equal that plan's. None: never read.
    in_step: bool | None
    n_meters: int
    lost_polls: int
    #: Meters and entries that are not as that plan wants them, and since when; None: they are.
    meters_differ: int = 0
    entries_differ: int = 0
    differs_since: float | None = None
    #: Meters that the switch rounds within the tolerance.
    meters_rounded: int = 0
    #: Meters and entries that others changed, since the switch was first seen. Only rises.
    repairs: int = 0


@dataclass(frozen=True)
class Health:
    """Whether the loop is alive and what is wrong with it, if anything."""

    #: ``starting``, ``ok`` or ``degraded``.
    status: str = "starting"
    last_tick: float = 0.0
    tick_ms: float = float("nan")
    ticks: int = 0
    steps_ms: dict[str, float] = field(default_factory=dict)
    #: One line a problem: what failed, since when, what stands instead.
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class PoolForecast:
    """One pool's forecast in force, and what was issued before beside what came. Pairs are upload, download."""

    path: str
    #: Epoch seconds: what the forecast knew ended here.
    end_time: float
    #: shape (H,), after ``end_time``.
    horizon_s: F64
    #: shape (K,)
    quantile: F64
    #: shape (2, H, K), bit/s.
    demand_bps: npt.NDArray[np.float32]
    #: ``forecasting.forecast.Rung`` of each direction.
    rung: tuple[int, int]
    issued: tuple[IssuedHistory, IssuedHistory]
    #: Share of the last day's samples of the pool's level that lay below each quantile, shape (2, H, K);
    #: None: not known.
    coverage: F64 | None = None
    #: shape (2, H), bit/s: medians reconciled, so that pools add up to the one above; None: not known.
    point_bps: F64 | None = None
    #: shape (2, H): calibrated probability that demand stays within a fifth of the median; NaN below
    #: the archetypes' rung.
    confidence: F64 | None = None
    #: What this is the forecast of: one application class of the pool's demand, or all of it.
    application: str | None = None
    #: Of a user: its application classes that are forecast on their own.
    applications: tuple[PoolForecast, ...] = ()


@dataclass(frozen=True)
class ForecastQuality:
    """How good forecasts have been, by level (2 x level + direction) and by ``forecasting.segments``."""

    #: Epoch seconds of the forecast in force; NaN before the first.
    end_time: float
    #: shape (H,)
    horizon_s: F64
    #: shape (K,)
    quantile: F64
    coverage: tuple[Coverage, ...]
    #: shape (G, H), a ``forecasting.contest.Contestant`` each.
    champion: npt.NDArray[np.uint8]
    #: shape (G, H, C): mean pinball loss of each contestant over the series' level; NaN without evidence.
    loss: F64
    #: Oldest first.
    changes: tuple[Change, ...]
    #: Mean pinball loss of the model and of persistence; None without enough evidence.
    live_score: tuple[float, float] | None


@dataclass(frozen=True)
class Snapshot:
    """Everything readers may want, as of one tick."""

    time: float = 0.0
    health: Health = Health()
    pools: Pools = field(default_factory=Pools)
    groups: tuple[GroupView, ...] = ()
    #: Endpoints that talk to nearly everyone: reported, and no glue between groups.
    shared_services: tuple[str, ...] = ()
    switches: tuple[SwitchView, ...] = ()
    plan: Plan = field(default_factory=Plan)


class UnknownGroup(KeyError):
    """No group has this id."""


class NotThere(LookupError):
    """Nothing has this name or number; the text names path, rule and value."""


class Refused(ValueError):
    """The write breaks a rule; the text names path, rule and value."""


@dataclass(frozen=True)
class ArchetypeMember:
    """A pool in one direction that belongs to an archetype."""

    pool: str
    #: 0 upload, 1 download.
    direction: int
    probability: float


class ArchetypeOperations(Protocol):
    """What northbound may ask of the archetypes."""

    def views(self) -> tuple[ArchetypeView, ...]:
        """All archetypes; none before they were first learnt."""

    def members(self, archetype_id: int) -> tuple[ArchetypeMember, ...]:
        """Who belongs to one, the surest first. Raises NotThere."""

    def rename(self, archetype_id: int, name: str | None) -> ArchetypeView:
        """Call one so; None or nothing: as the rule says. Raises NotThere, Refused."""


class Operations(Protocol):
    """What northbound may ask of the planner. Writes return when they are stored."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""

    @property
    def events(self) -> EventOperations:
        """What is announced, and who may announce."""

    @property
    def policy(self) -> PolicyDesk:
        """Boosts, modes, freeze and revert, and why a pool has what it has."""

    @property
    def grouping(self) -> GroupDesk:
        """Operators' groups, pins and forbidden pairs, and what happened to any group."""

    @property
    def network(self) -> NetworkDesk:
        """Switches, links and hosts, what changed, and what tells a user."""

    @property
    def shaping(self) -> ShapeDesk:
        """What the users of ranges of addresses may have."""

    @property
    def alarms(self) -> AlarmOperations:
        """What the forecast did not foresee."""

    @property
    def archetypes(self) -> ArchetypeOperations:
        """The kinds of users that were found, and what they are called."""

    @property
    def remediation(self) -> RemediationOperations:
        """What is done about congestion and anomalies."""

    @property
    def webhooks(self) -> WebhookOperations:
        """Servers that are told of what happens."""

    def create_group(self, group_id: str, members: tuple[str, ...], policy: dict[str, Any]) -> None:
        """Pin an operator's group above discovered ones.

        ``policy`` may hold ``guarantee_bps`` and ``ceiling_bps`` (pairs up, down)
        and ``weight``. Raises Refused (the id exists, a member is unknown, the
        tree would be oversubscribed).
        """

    def set_group_bandwidth(self, group_id: str, policy: dict[str, Any]) -> None:
        """Override a group's guarantee, ceiling or weight, discovered groups included.

        The override outlives re-clustering and restart. Raises UnknownGroup, Refused.
        """

    def rate_history(
        self, level: Level, name: str, start: float, end: float, resolution_s: float | None = None
    ) -> RateHistory:
        """What a pool, or the parts of a group together, offered and was granted from ``start`` to ``end``.

        ``name`` is a region's, a group's or a user's; empty for the root. Without ``resolution_s`` the finest that
        is at hand. Raises UnknownGroup, NotThere.
        """

    def summary(self) -> dict[str, Any]:
        """What was offered, granted and measured so far, and what simpler schemes would have given.

        ``window`` holds ``since``, ``until`` and ``what``; ``pools`` one entry a
        pool and direction with ``path``, ``level``, ``direction`` and the rates
        ``offered_bps``, ``p50_bps``, ``p90_bps``, ``grant_bps``, ``measured_bps``,
        ``static_equal_bps`` and ``auto_bandwidth_bps``; ``totals`` a mapping;
        ``meters_equal_plan`` whether read-back meters equal the plan, None: not known.
        """

    def rehearse(self) -> Rehearsal:
        """What writes can be made to as if it were the planner, to see what they would change. Raises Refused."""

    def models(self) -> dict[str, Any]:
        """The forecasting models on record; see ``planner.model_versions.ModelVersions.report``."""

    def roll_back_model(self, version: int) -> dict[str, Any]:
        """Put an earlier model to use and hold it; gives ``models``. Raises NotThere, Refused."""

    def release_model(self) -> dict[str, Any]:
        """Let newer models be promoted again; gives ``models``."""

    def forecast_quality(self) -> ForecastQuality:
        """How good forecasts have been."""

    def pool_forecast(self, pool: str, since: float, application: str | None = None) -> PoolForecast:
        """What is forecast of one pool, and what was since then; of one application class, if given.

        ``pool`` is a path, or its last part where only one path ends with it. Raises NotThere.
        """
