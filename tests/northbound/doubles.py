"""A planner that plans nothing but keeps what it is told, over real snapshots."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from allocation.allocate import Bound
from forecasting import contest
from forecasting.anomaly import Anomaly, Change, Evidence, Kind
from forecasting.contest import Contestant
from forecasting.coverage import Coverage
from forecasting.event import Event
from forecasting.features import FeatureSpec
from forecasting.forecast import Rung
from forecasting.population import ArchetypeView
from forecasting.segments import N_CLASSES
from forecasting.training import TrainedModel, Verdict
from planner.alarms import AlarmStream, Sighting
from planner.config_alarms import Alarms
from planner.config_events import Announcement
from planner.dry_run import Rehearsal
from planner.events.imports import CalendarImport, Imports, read_import
from planner.events.views import EventsView, EventView, FeedView, ImportReport, KindView, UpliftView
from planner.group_desk import GroupDesk
from planner.issued import IssuedHistory
from planner.model_versions import ModelVersions, Outcome
from planner.network_desk import NetworkDesk
from planner.plan import MeterOwner, MeterTable, Plan, SwitchLayout
from planner.policy_desk import PolicyDesk
from planner.rates import RateHistory
from planner.remediation.desk import RemediationDesk
from planner.remediation.views import DeadLetter, WebhookView
from planner.shape_desk import ShapeDesk
from planner.shaping import AddressRange, TrafficShape
from planner.snapshot import (
    ArchetypeMember,
    ForecastQuality,
    GroupView,
    Health,
    Level,
    NotThere,
    PoolForecast,
    Pools,
    Refused,
    Snapshot,
    SwitchView,
    UnknownGroup,
)
from tests.planner.networks import PLACES, Running, small

NOW = 1_000_000.0
TOKEN = "a-token-of-more-than-32-characters"
EDGE = 0x11
NAN = float("nan")


def both(*up: float) -> np.ndarray:
    """A column of rates whose download is twice its upload: swapped directions show."""
    return np.array([up, [2 * rate for rate in up]])


def make_pools() -> Pools:
    """A tree of one region, one group and two users; nothing was measured of the second."""
    n = 5
    return Pools(
        path=("global", "global/west", "global/west/g1", "global/west/g1/anna", "global/west/g1/ben"),
        level=np.array([Level.GLOBAL, Level.REGION, Level.GROUP, Level.USER, Level.USER], np.uint8),
        parent=np.array([-1, 0, 1, 2, 2], np.int32),
        guarantee_bps=both(0, 10e6, 2e6, 1e6, 1e6),
        ceiling_bps=both(60e6, 36e6, np.inf, 20e6, 20e6),
        weight=np.ones(n),
        offered_bps=both(5e6, 5e6, 5e6, 0, NAN),
        delivered_bps=both(4e6, 4e6, 4e6, 0, NAN),
        p50_bps=both(6e6, 6e6, 6e6, 3e6, NAN),
        p90_bps=both(8e6, 8e6, 8e6, 5e6, NAN),
        grant_bps=both(9e6, 9e6, 9e6, 4.4e6, 4.6e6),
        rung=np.full((2, n), Rung.AUTO_BANDWIDTH, np.uint8),
        bound=np.full((2, n), Bound.CEILING, np.uint8),
    )


def make_plan() -> Plan:
    """Two meters on one switch."""
    return Plan(
        version=7,
        time=NOW,
        layout_version=3,
        layouts={
            EDGE: SwitchLayout(
                owners=(MeterOwner(1, "global/west/g1/anna", 0), MeterOwner(2, "global/west/g1/anna", 1))
            )
        },
        meters={
            EDGE: MeterTable(np.array([1, 2], "u4"), np.array([4400, 8800], "u4"), np.array([440, 880], "u4"))
        },
    )


def make_snapshot() -> Snapshot:
    """What a healthy planner shows."""
    group = GroupView(
        id="g1",
        source="discovered",
        state="active",
        members=("anna", "ben"),
        since=NOW - 60,
        reason="they talk to one another",
        guarantee_bps=None,
        ceiling_bps=None,
        weight=1.0,
        pools=(2,),
    )
    return Snapshot(
        time=NOW,
        health=Health(status="ok", last_tick=NOW, tick_ms=12.5, ticks=9, steps_ms={"forecast": 4.0}),
        pools=make_pools(),
        groups=(group,),
        shared_services=("names",),
        switches=(
            SwitchView(EDGE, True, "west", NOW, 7, True, 2, 0),
            SwitchView(0xC0, True, None, 0.0, 0, None, 0, 1),
        ),
        plan=make_plan(),
    )


class FakeEvents:
    """One event of everybody, one of nobody, a dead feed; and what is announced."""

    def __init__(self) -> None:
        self.imports = Imports()
        learnt = (UpliftView(1.5, 2.0, 2.7, 3.0), UpliftView(2.0, 4.0, 8.0, 3.0))
        on = Event("stadium/final@1", "match", NOW - 60, NOW + 60, (), None, "stadium", "Final")
        ahead = Event("exam", "exam", NOW + 60, NOW + 90, ("nowhere",), 0.5, "file")
        feed = FeedView(
            "stadium", "https://a.example/...", True, NOW - 9, "must answer 200, got 503", 1, 1, ("x",)
        )
        self.shown = EventsView(
            (EventView(on, 0, learnt), EventView(ahead, None, ())), (KindView("match", 1, learnt),), (feed,)
        )

    def view(self, now: float) -> EventsView:
        return self.shown

    def announce(self, announcement: Announcement) -> Event:
        try:
            event = announcement.event(ZoneInfo("UTC"), "rest")
        except (ValueError, OverflowError) as error:
            raise Refused(f"events.{announcement.id}.{error}") from None
        if any(event.id == one.event.id for one in self.shown.events):
            raise Refused(f"events.{event.id} must be a new id, got one that exists")
        self.shown = replace(self.shown, events=(*self.shown.events, EventView(event, None, ())))
        return event

    def import_calendar(self, asked: CalendarImport, *, dry_run: bool = False) -> ImportReport:
        # On the day of the examples in docs/rest.md.
        calendar = read_import(asked, ZoneInfo("UTC"), 1767225600.0)
        report = self.imports.compared(asked.name, calendar)
        if not dry_run:
            self.imports.put(asked.name, calendar.events)
        return report

    def withdraw(self, event_id: str) -> None:
        if self.imports.remove(event_id):
            return
        kept = tuple(one for one in self.shown.events if one.event.id != event_id)
        if len(kept) == len(self.shown.events):
            raise NotThere(f"eventID must be the id of an event, got {event_id!r}")
        self.shown = replace(self.shown, events=kept)


def make_versions() -> ModelVersions:
    """Three models: the second is in use and on trial, the third lost; the first model was dropped."""
    versions = ModelVersions(5)
    trained = TrainedModel("catboost", b"", FeatureSpec(60.0, 64), (0.1, 0.5, 0.9), NOW - 900, 1234)
    for outcome, body in (
        (Outcome.PROMOTED, b"one"),
        (Outcome.PROMOTED, b"two"),
        (Outcome.REJECTED, b"three"),
    ):
        verdict = Verdict(outcome is Outcome.PROMOTED, 0.11, NAN, 0.13, 99, "no champion")
        versions.add(NOW - 60, trained, verdict, outcome, "no champion", body)
    versions.keep_body(1, b"")
    return versions


def make_forecast(since: float = 0.0) -> PoolForecast:
    """Anna's: two horizons, three quantiles; a gap in upload, two steps still to come."""
    time = NOW + 60 * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    demand = np.array([1e6, NAN, 3e6, NAN, NAN], np.float32)
    fan = np.full((5, 2, 3), NAN, np.float32)
    fan[1:4, 0] = fan[2:, 1] = np.array([1e6, 2e6, 4e6])
    kept = time >= since
    horizon_s, quantile = np.array([60.0, 120.0]), np.array([0.1, 0.5, 0.9])
    up, down = (
        IssuedHistory(time[kept], scale * demand[kept], horizon_s, quantile, scale * fan[kept])
        for scale in (np.float32(1), np.float32(2))
    )
    ahead = np.array([[1e6, 2e6, 4e6], [1e6, 3e6, 5e6]], np.float32)
    return PoolForecast(
        "global/west/g1/anna", NOW, horizon_s, quantile, np.stack([ahead, 2 * ahead]),
        (Rung.MODEL, Rung.ARCHETYPE), (up, down), None, np.array([[2e6, 3e6], [4e6, 6e6]]),
        np.array([[0.5, 0.25], [0.75, NAN]]),
    )  # fmt: skip


def with_web(whole: PoolForecast) -> PoolForecast:
    """A user's forecast with that of one class, half of it all."""
    assert whole.point_bps is not None
    half = (whole.demand_bps / 2).astype(np.float32)
    web = replace(whole, demand_bps=half, point_bps=whole.point_bps / 2, application="web")
    return replace(whole, applications=(web,))


class FakeArchetypes:
    """One archetype of uploads, one of downloads."""

    def __init__(self) -> None:
        centre = {"relative_rate": 4.0, "idle_share": 0.0, "night": NAN}
        rule = "heavy streamer"
        self.shown = tuple(ArchetypeView(one, 6 + one, rule, rule, 1.0, 2, centre) for one in (0, 1))

    def views(self) -> tuple[ArchetypeView, ...]:
        return self.shown

    def members(self, archetype_id: int) -> tuple[ArchetypeMember, ...]:
        self._view(archetype_id)
        paths = ("global/west/g1/anna", "global/west/g1/ben")
        return tuple(
            ArchetypeMember(path, archetype_id, share) for path, share in zip(paths, (0.9, 0.6), strict=True)
        )

    def rename(self, archetype_id: int, name: str | None) -> ArchetypeView:
        view = self._view(archetype_id)
        if name and not name.isprintable():
            raise Refused(f"name must be printable, got {name!r}")
        named = replace(view, name=name or view.rule_name)
        self.shown = tuple(named if one.id == archetype_id else one for one in self.shown)
        return named

    def _view(self, archetype_id: int) -> ArchetypeView:
        for view in self.shown:
            if view.id == archetype_id:
                return view
        raise NotThere(f"archetypeID must be the id of an archetype, got {archetype_id}")


def make_quality() -> ForecastQuality:
    """Users are forecast by the model and drift at one horizon; regions' bursts by persistence since a minute."""
    burst = 2 * Level.REGION * N_CLASSES + 1
    loss = np.full((7 * N_CLASSES, 2, 3), NAN)
    loss[6 * N_CLASSES, 0] = (0.1, 0.2, 0.3)
    loss[burst, 1] = (0.5, 0.4, 0.45)
    champion = np.zeros(loss.shape[:2], np.uint8)
    champion[burst, 1] = Contestant.PERSISTENCE
    unknown = np.full(3, NAN)
    return ForecastQuality(
        NOW, np.array([60.0, 120.0]), np.array([0.1, 0.5, 0.9]),
        (
            Coverage(6, 60.0, np.array([0.1, 0.5, 0.9]), np.array([0.12, 0.5, 0.88]), 5000, False),
            Coverage(7, 120.0, np.array([0.3, 0.5, 0.8]), unknown, 40, True),
        ),
        champion, loss,
        (contest.Change(NOW - 60, burst, 1, Contestant.MODEL, Contestant.PERSISTENCE, 0.5, 0.4),),
        (0.3, 0.4),
    )  # fmt: skip


def make_alarms() -> AlarmStream:
    """Two alarms: anna's spike is open, the region's silence is over."""

    def seen(pool: str, level: str, number: int, kind: Kind, change: Change, reason: str = "") -> Sighting:
        below = kind is Kind.SILENCE
        evidence = Evidence(0.0 if below else 18e6, 1e6, 2e6, 5e6, 1e-9, NAN, 1e-7, 3)
        sign = -1 if below else 1
        return Sighting(
            pool, level, 0, Anomaly(number, kind, change, sign, NOW - 180, "major", reason, evidence)
        )

    stream = AlarmStream(Alarms())
    west = ("global/west", "region", 1, Kind.SILENCE)
    stream.take(NOW - 120, [seen(*west, Change.OPENED)])
    stream.take(NOW - 60, [seen("global/west/g1/anna", "user", 3, Kind.SPIKE, Change.OPENED)])
    stream.take(NOW, [seen(*west, Change.CLOSED, "back to normal")])
    return stream


def make_remedied() -> Running:
    """A planner that helped the lab, calls for capacity, and isolated Emma; Anna is not isolated."""
    congestion = {
        "mode": "act", "raise_ticks": 2, "clear_ticks": 2, "judge_ticks": 4, "cooldown_s": 15, "max_groups": 1,
        "max_regions": 1,
    }  # fmt: skip
    lab = {"lab": {"members": ["anna", "ben", "carla"], "ceiling_mbps": 6}}
    running = Running(small(remediation={"congestion": congestion, "isolation": {"mode": "act"}}, groups=lab))
    running.offered = dict.fromkeys(PLACES, 4e6)
    running.connect()
    running.tick(count=3)
    evidence = Evidence(400.0, 1.0, 10.0, 20.0, 1e-9, NAN, 1e-7, 3)
    anomaly = Anomaly(1, Kind.FAN_OUT, Change.OPENED, 1, running.now, "critical", "over", evidence)
    path = running.planner.snapshot.pools.path[running.row("emma")]
    running.planner.alarm_watch.stream.take(running.now, [Sighting(path, "user", 0, anomaly)])
    running.tick(count=8)
    return running


class FakeWebhooks:
    """One webhook that once failed, and the message that it did not take."""

    def __init__(self) -> None:
        self.letters: tuple[DeadLetter, ...] = (
            DeadLetter("msg_1", 0, "https://a.example/...", "alarm", NOW - 60, NOW, 8, "ConnectError"),
        )

    def view(self) -> tuple[WebhookView, ...]:
        dead = len(self.letters)
        return (
            WebhookView(0, "https://a.example/...", ("alarm",), 1 - dead, 3, 8, dead, None, "ConnectError"),
        )

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        return self.letters

    def retry(self, letter_id: str) -> None:
        if letter_id not in {letter.id for letter in self.letters}:
            raise NotThere(f"letterID must be the id of a dead letter, got {letter_id!r}")
        self.letters = ()


class FakeOperations:
    """Keeps what was written and shows it in the next snapshot."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or make_snapshot()
        self.written: list[tuple[str, Any]] = []
        self.versions = make_versions()
        self.events = FakeEvents()
        self.alarms = make_alarms()
        self.archetypes = FakeArchetypes()
        self.webhooks = FakeWebhooks()
        #: What the desk reported as written.
        self.told: list[str] = []

    @cached_property
    def running(self) -> Running:
        """A real planner for what is asked of policies: five users, three plans, no processes."""
        running = Running(small(allocation={"keep_every_s": 0}, groups={"lab": {"members": ["emma"]}}))
        running.offered = dict.fromkeys(PLACES, 2e6)
        running.connect()
        grouping = running.planner.grouping
        grouping.tracker.update([frozenset({"carla", "david"})], running.now)
        grouping.pin("crew", ("anna", "ben"), running.now)
        # The snapshot's own group is known there too.
        grouping.pin("g1", (), running.now)
        running.tick(count=3)
        return running

    @cached_property
    def remediation(self) -> RemediationDesk:
        """The desk of a planner that had something to remedy."""
        running = make_remedied()
        return RemediationDesk(running.planner, self.told.append, lambda: running.now)

    @cached_property
    def policy(self) -> PolicyDesk:
        """The desk of that planner."""
        running = self.running
        return PolicyDesk(running.planner, self.told.append, lambda: running.now)

    @cached_property
    def grouping(self) -> GroupDesk:
        """The desk for groups of that planner."""
        running = self.running
        return GroupDesk(running.planner, self.told.append, lambda: running.now)

    @cached_property
    def network(self) -> NetworkDesk:
        """The desk for the network of that planner."""
        running = self.running
        return NetworkDesk(running.planner, self.told.append, lambda: running.now)

    @cached_property
    def shaping(self) -> ShapeDesk:
        """The desk for traffic shapes of that planner; one is in force."""
        running = self.running
        desk = ShapeDesk(running.planner, self.told.append, lambda: running.now)
        desk.put(TrafficShape("lab", AddressRange.parse("10.9.0.0/16"), limit_bps=(5e6, 5e6)))
        return desk

    def rehearse(self) -> Rehearsal:
        return Rehearsal(self.running.planner, self.running.now)

    def models(self) -> dict[str, Any]:
        return self.versions.report(NOW)

    def roll_back_model(self, version: int) -> dict[str, Any]:
        if version not in {one.version for one in self.versions}:
            raise NotThere(f"version must be one of the models on record, got {version}")
        if not self.versions[version].kept:
            raise Refused(f"version must be one whose model is kept, got {version}")
        self.versions.roll_back(NOW, version, float("inf"), "by command")
        return self.models()

    def release_model(self) -> dict[str, Any]:
        if self.versions.held(NOW):
            self.versions.release(NOW, "by command")
        return self.models()

    def pool_forecast(self, pool: str, since: float, application: str | None = None) -> PoolForecast:
        found = with_web(make_forecast(since))
        if not found.path.endswith(pool):
            raise NotThere(f"pool must be a path of the tree or the end of one, got {pool!r}")
        if application not in (None, "web"):
            raise NotThere(f"application must be one of other, web, got {application!r}")
        return found if application is None else found.applications[0]

    def forecast_quality(self) -> ForecastQuality:
        return make_quality()

    def create_group(self, group_id: str, members: tuple[str, ...], policy: dict[str, Any]) -> None:
        if any(group.id == group_id for group in self.snapshot.groups):
            raise Refused(f"id must be new, got {group_id!r}, which exists")
        for member in members:
            if member not in ("anna", "ben", "carla"):
                raise Refused(f"members must be users, got {member!r}")
        group = GroupView(
            group_id, "operator", "active", members, NOW, "asked for by an operator",
            policy.get("guarantee_bps"), policy.get("ceiling_bps"), policy.get("weight", 1.0), (),
        )  # fmt: skip
        self.written.append((group_id, policy))
        self.snapshot = replace(self.snapshot, groups=(*self.snapshot.groups, group))

    def set_group_bandwidth(self, group_id: str, policy: dict[str, Any]) -> None:
        groups = {group.id: group for group in self.snapshot.groups}
        if group_id not in groups:
            raise UnknownGroup(group_id)
        if policy.get("guarantee_bps", (0, 0))[0] > 36_000_000:
            raise Refused("guarantee_mbps.up must be <= the region's capacity 36, got more")
        self.written.append((group_id, policy))
        groups[group_id] = replace(groups[group_id], **policy)
        self.snapshot = replace(self.snapshot, groups=tuple(groups.values()))

    def rate_history(
        self, level: Level, name: str, start: float, end: float, resolution_s: float | None = None
    ) -> RateHistory:
        if level is Level.GROUP and all(group.id != name for group in self.snapshot.groups):
            raise UnknownGroup(name)
        if level in (Level.REGION, Level.USER) and name not in ("west", "anna", "ben"):
            raise NotThere(f"{level.name.lower()} must be one of the configuration's, got {name!r}")
        times = np.array([NOW - 10, NOW - 5, NOW])
        offered, grant = both(1e6, NAN, 3e6), both(2e6, 2e6, 4e6)
        known = (times >= start) & (times <= end)
        gaps = np.isnan(offered).astype(int)
        return RateHistory(
            resolution_s or 5.0, times[known], offered[:, known], grant[:, known], gaps[:, known]
        )

    def summary(self) -> dict[str, Any]:
        row = {
            "path": "global/west/g1/anna",
            "level": "user",
            "offered_bps": 0.0,
            "p50_bps": NAN,
            "p90_bps": 5e6,
            "grant_bps": 4.4e6,
            "measured_bps": NAN,
            "static_equal_bps": 3e6,
            "auto_bandwidth_bps": 2e6,
        }
        return {
            "window": {"since": NOW - 60, "until": NOW, "what": "the last minute"},
            "pools": [{**row, "direction": "up"}, {**row, "direction": "down", "grant_bps": 8.8e6}],
            "totals": {"carried_bps": {"tidegate": 9e6, "static": NAN}},
            "meters_equal_plan": True,
        }
