"""What an archetype is called, by rule: the first line of a table that its centre fulfils."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Times the level's median rate from which an archetype is heavy, and share of it up to which it is light.
HEAVY: Final = 3.0
LIGHT: Final = 1 / 3
#: Share of the day's demand in a part of the day that makes the part a habit.
NIGHT_AT: Final = 0.5
EVENING_AT: Final = 0.5
WORK_AT: Final = 0.6

Centre = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """A name, its condition in words for operators, and the condition."""

    name: str
    when: str
    holds: Callable[[Centre], bool]


def _bursty(centre: Centre) -> bool:
    # Independent exponential samples have 0.5; a relative step of 0.6 between neighbours has about 0.2.
    return centre["variance_short"] >= 0.2


def _pauses(centre: Centre) -> bool:
    return centre["idle_share"] >= 1 / 3


#: A figure that is not known (NaN) fulfils no comparison.
RULES: Final = (
    Rule("night mover", "half of its day's demand falls between 0 and 6", lambda c: c["night"] >= NIGHT_AT),
    Rule("idle device", "quiet in at least 80 % of its steps", lambda c: c["idle_share"] >= 0.8),
    Rule(
        "heavy streamer",
        "at least 3 times the level's median rate, steps vary little",
        lambda c: c["relative_rate"] >= HEAVY and not _bursty(c),
    ),
    Rule(
        "bulk mover",
        "at least 3 times the level's median rate, in bursts",
        lambda c: c["relative_rate"] >= HEAVY,
    ),
    Rule("on-off user", "bursts with pauses of a third of its steps", lambda c: _bursty(c) and _pauses(c)),
    Rule("bursty gamer", "bursts without long pauses", _bursty),
    Rule(
        "evening user",
        "half of its day's demand falls between 18 and 24",
        lambda c: c["evening"] >= EVENING_AT,
    ),
    Rule("office worker", "60 % of its day's demand falls between 8 and 18", lambda c: c["work"] >= WORK_AT),
    Rule(
        "light device",
        "at most a third of the level's median rate, steps vary little",
        lambda c: c["relative_rate"] <= LIGHT,
    ),
    Rule("occasional user", "pauses of a third of its steps", _pauses),
    Rule("steady worker", "all others", lambda c: True),
)


def names(centres: Sequence[Centre], levels: Sequence[int]) -> list[str]:
    """A name for each archetype; alike ones of a level are numbered, the first as it is.

    A centre holds ``idle_share``, ``relative_rate``, ``variance_short`` and the shares of the day
    ``night``, ``work`` and ``evening``; NaN for what is not known.
    """
    given: list[str] = []
    seen: dict[tuple[int, str], int] = {}
    for centre, level in zip(centres, levels, strict=True):
        name = next(rule.name for rule in RULES if rule.holds(centre))
        seen[level, name] = seen.get((level, name), 0) + 1
        given.append(name if seen[level, name] == 1 else f"{name} {seen[level, name]}")
    return given
