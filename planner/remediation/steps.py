"""The values of remediation: what was seen, what is done about it, and how it went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from planner.policies import Lift, Pair


class Rung(StrEnum):
    """A kind of step. The first three are the ladder, mildest first."""

    REALLOCATE = "reallocate"
    RECOMPOSE = "recompose"
    SCALE = "scale"
    ISOLATE = "isolate"


class Standing(StrEnum):
    """How a step stands. The first two are open; the others are its end."""

    #: Done, and being watched.
    TRIED = "tried"
    #: It helped, and is kept for a time.
    HELPED = "helped"
    #: It helped, and its time is over.
    ENDED = "ended"
    #: It did not help, or could not be judged, or somebody undid it: it was taken back.
    UNDONE = "undone"
    #: Only to be told: nothing was changed.
    PROPOSED = "proposed"
    #: A scaling event was raised; there is nothing to take back.
    RAISED = "raised"


#: Standings in which what a step changed is in force.
IN_FORCE = (Standing.TRIED, Standing.HELPED)


@dataclass(frozen=True)
class Measures:
    """What a step changes. Pools are named as in policies, users by id."""

    #: Lifts by pool.
    lifts: Mapping[str, Lift] = field(default_factory=dict)
    #: Rates that users may have at most, upload and download, bit/s; infinity: no limit.
    limits: Mapping[str, Pair] = field(default_factory=dict)
    #: Users that are taken out of the groups that were found.
    apart: tuple[str, ...] = ()
    #: Users all of whose packets are dropped.
    dropped: tuple[str, ...] = ()
    #: Whether groups are looked for now, and not when it is time.
    regroup: bool = False
    #: Groups and regions that it changes, for the blast radius.
    groups: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    @property
    def users(self) -> frozenset[str]:
        """The users that it takes something from."""
        return frozenset((*self.limits, *self.apart, *self.dropped))


@dataclass(frozen=True)
class Option:
    """What one rung would do at a place, and the words for it."""

    rung: Rung
    measures: Measures
    text: str


@dataclass(frozen=True)
class Signal:
    """One figure that tells of congestion at one place."""

    kind: str
    #: A pool's path, or ``port DPID/NUMBER``.
    place: str
    #: 0 upload or into the switch, 1 download or out of it.
    direction: int
    #: NaN: not known.
    value: float
    #: Congested from here on; well again below ``low``.
    high: float
    low: float
    #: Figures in support, for the record.
    evidence: Mapping[str, float] = field(default_factory=dict)
    #: What could be done, mildest first. Only where ``value`` is high.
    options: tuple[Option, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """One trouble is at one place in one direction, whatever tells of it."""
        return self.place, self.direction


@dataclass(frozen=True)
class World:
    """How much there is, for shares of it."""

    users: int = 0
    groups: int = 0
    regions: int = 0


@dataclass(frozen=True)
class Step:
    """One step on record."""

    id: int
    rung: Rung
    kind: str
    place: str
    direction: int
    standing: Standing
    #: What was done, and why, for people.
    text: str
    why: str
    measures: Measures = field(default_factory=Measures)
    evidence: Mapping[str, float] = field(default_factory=dict)
    #: The signal when it was taken, and when it was judged; NaN: not judged.
    before: float = math.nan
    after: float = math.nan
    #: Epoch seconds at which it was taken, and last changed.
    time: float = 0.0
    changed: float = 0.0
    #: Why it stands as it does.
    reason: str = ""
    #: What the one who decided calls it; 0 where nothing came into force.
    number: int = 0
    #: Grows with every change of any step.
    sequence: int = 0

    @property
    def in_force(self) -> bool:
        """Whether what it changes holds now."""
        return self.standing in IN_FORCE

    @property
    def helped(self) -> bool | None:
        """Whether it helped; None: not known."""
        if self.standing in (Standing.HELPED, Standing.ENDED):
            return True
        return False if self.standing is Standing.UNDONE and math.isfinite(self.after) else None


def step_to_dict(step: Step) -> dict[str, Any]:
    """The step as JSON-able values; numbers that are none as None."""
    raw = asdict(step)
    raw["measures"]["lifts"] = {
        pool: {**entry, "guarantee_bps": entry["guarantee_bps"], "ceiling_bps": _finite(entry["ceiling_bps"])}
        for pool, entry in raw["measures"]["lifts"].items()
    }
    raw["measures"]["limits"] = {user: _finite(pair) for user, pair in raw["measures"]["limits"].items()}
    for name in ("before", "after"):
        raw[name] = raw[name] if math.isfinite(raw[name]) else None
    raw["evidence"] = {name: v if math.isfinite(v) else None for name, v in step.evidence.items()}
    return raw


def step_from_dict(raw: Mapping[str, Any]) -> Step:
    """What ``step_to_dict`` was given. Raises ValueError, TypeError, KeyError."""
    step = Step(**{**raw, "rung": Rung(raw["rung"]), "standing": Standing(raw["standing"])})
    m = raw["measures"]
    measures = Measures(
        lifts={
            str(pool): Lift(
                None if entry["guarantee_bps"] is None else _pair(entry["guarantee_bps"]),
                None if entry["ceiling_bps"] is None else _pair(entry["ceiling_bps"]),
                float(entry["weight_factor"]),
                entry["priority"],
            )
            for pool, entry in m["lifts"].items()
        },
        limits={str(user): _pair(pair) for user, pair in m["limits"].items()},
        regroup=bool(m["regroup"]),
        **{name: tuple(map(str, m[name])) for name in ("apart", "dropped", "groups", "regions")},
    )
    before, after = (math.nan if raw[name] is None else float(raw[name]) for name in ("before", "after"))
    evidence = {str(name): math.nan if v is None else float(v) for name, v in raw["evidence"].items()}
    return replace(step, measures=measures, evidence=evidence, before=before, after=after)


def _finite(pair: Pair | None) -> tuple[float | None, ...] | None:
    return None if pair is None else tuple(rate if math.isfinite(rate) else None for rate in pair)


def _pair(values: Any) -> Pair:
    up, down = (math.inf if value is None else float(value) for value in values)
    return up, down
