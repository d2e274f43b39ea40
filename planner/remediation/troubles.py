"""Places that are or were congested, and what is being done about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from planner.remediation.steps import Measures, Rung, Standing

#: A pool's path or a port, and a direction.
Key = tuple[str, int]


@dataclass(frozen=True)
class Doing:
    """A step in force. ``number`` is the remedy's own."""

    number: int
    rung: Rung
    measures: Measures
    standing: Standing
    #: The signal's mean over the ticks before it was taken.
    before: float
    #: When it was taken, by the remedy's time.
    at: float
    #: What was seen since, one figure a tick.
    seen: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """One place in one direction that is or was congested."""

    kind: str
    #: Ticks in a row above ``high``, and below ``low``.
    over: int = 0
    under: int = 0
    #: The last figures, at most as many as are averaged.
    recent: tuple[float, ...] = ()
    #: Rungs already tried since it began.
    climbed: int = 0
    #: When the last step here was taken or ended, and when a scaling event was raised.
    acted: float = -math.inf
    raised: float = -math.inf
    #: When it was last known, by the remedy's time.
    known: float = 0.0
    doing: tuple[Doing, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, without the measures."""
        raw = asdict(self)
        for one in raw["doing"]:
            del one["measures"]
        for name in ("acted", "raised"):
            raw[name] = raw[name] if math.isfinite(raw[name]) else None
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], measures: Mapping[int, Measures]) -> Trouble:
        """What ``to_dict`` was given; ``measures`` by number. Raises KeyError, TypeError, ValueError."""
        doing = tuple(
            Doing(
                **{
                    **one,
                    "rung": Rung(one["rung"]),
                    "standing": Standing(one["standing"]),
                    "seen": tuple(map(float, one["seen"])),
                    "measures": measures[int(one["number"])],
                }
            )
            for one in raw["doing"]
            # What the trail has lost is not in force.
            if int(one["number"]) in measures
        )
        moments = {name: -math.inf if raw[name] is None else float(raw[name]) for name in ("acted", "raised")}
        return cls(**{**raw, **moments, "recent": tuple(map(float, raw["recent"])), "doing": doing})
