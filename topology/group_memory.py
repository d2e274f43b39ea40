"""What the group tracker remembers, and how that survives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from topology.churn import ChurnWindow
from topology.group_log import GroupLog
from topology.places import Places
from topology.wishes import GroupState, Wishes

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A discovered group between updates."""

    state: GroupState
    since: float
    reason: str
    #: The community it was last found as; members follow it with delay.
    core: frozenset[str]
    #: Updates in a row that found it, counted until it is active, and that did not.
    found: int = 0
    missed: int = 0
    #: It has been active before.
    settled: bool = False
    #: The group that most of its members came from, and the one that most of its core was found in since.
    origin: str = ""
    into: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An endpoint that is found elsewhere than it is: where ("" is nowhere), since when, how often."""

    target: str
    since: float
    times: int


@dataclass
class Memory:
    """The tracker's state: discovered groups by age, who is where, what operators want, and what was."""

    next_number: int = 1
    traces: dict[str, Trace] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    doubts: dict[str, Doubt] = field(default_factory=dict)
    wishes: Wishes = field(default_factory=Wishes)
    churn: ChurnWindow = field(default_factory=ChurnWindow)
    log: GroupLog = field(default_factory=GroupLog)

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON-able values."""
        return {
            "version": _VERSION,
            "next": self.next_number,
            "discovered": [
                {
                    "id": group_id,
                    "state": trace.state,
                    "since": trace.since,
                    "reason": trace.reason,
                    "core": sorted(trace.core),
                    "found": trace.found,
                    "missed": trace.missed,
                    "settled": trace.settled,
                    "origin": trace.origin,
                    "into": trace.into,
                }
                for group_id, trace in self.traces.items()
            ],
            "group_of": dict(sorted(self.places.group_of.items())),
            "doubts": {
                member: [doubt.target, doubt.since, doubt.times]
                for member, doubt in sorted(self.doubts.items())
            },
            **self.wishes.to_dict(),
            "churn": self.churn.to_list(),
            "log": self.log.to_list(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Memory:
        """The state that ``to_dict`` wrote.

        Raises
        ------
        ValueError : if it is not such a state; says what is missing or wrong.
        """
        try:
            if raw["version"] != _VERSION:
                raise ValueError(f"groups state version must be {_VERSION}, got {raw['version']!r}")
            memory = cls(
                int(raw["next"]),
                {str(item["id"]): _trace(item) for item in raw["discovered"]},
                Places({str(member): str(group_id) for member, group_id in raw["group_of"].items()}),
                {
                    str(member): Doubt(str(target), float(since), int(times))
                    for member, (target, since, times) in raw["doubts"].items()
                },
                Wishes.from_dict(raw),
                # A state of before these were kept has none.
                ChurnWindow.from_list(raw.get("churn", ())),
                GroupLog.from_list(raw.get("log", (0, ()))),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"groups state is malformed: {error!r}") from None
        strangers = {*memory.places.groups(), *memory.wishes.pins.values()} - memory.traces.keys()
        if strangers:
            raise ValueError(f"groups state is malformed: members of unknown groups {sorted(strangers)}")
        return memory


def _trace(item: Mapping[str, Any]) -> Trace:
    if item["state"] not in ("forming", "active", "dissolving"):
        raise ValueError(f"groups state of {item['id']} must be a state of a group, got {item['state']!r}")
    return Trace(
        item["state"],
        float(item["since"]),
        str(item["reason"]),
        frozenset(item["core"]),
        int(item["found"]),
        int(item["missed"]),
        bool(item["settled"]),
        str(item.get("origin", "")),
        str(item.get("into", "")),
    )
