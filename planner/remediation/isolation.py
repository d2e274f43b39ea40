"""Whom an alarm isolates, and for how long. Pure: suspects in, actions out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from planner.config_remediation import IsolationBlock, IsolationRule
from planner.remediation.elapsed import Elapsed

SEVERITIES: Final = ("minor", "major", "critical")
_DEFAULT: Final = (
    IsolationRule(kind="fan_out"),
    IsolationRule(kind="spike", times=10.0),
)


@dataclass(frozen=True)
class Suspect:
    """A user of whom an alarm is open."""

    user: str
    #: The alarm, and how often it was opened: one opening isolates once.
    alarm: int
    times: int
    kind: str
    severity: str
    #: What came, and the highest that was expected; NaN: not known.
    realised: float
    high: float
    #: What operators were told.
    text: str = ""

    @property
    def excess(self) -> float:
        """How many times the highest that was expected; NaN: not known."""
        return self.realised / self.high if self.high > 0 else math.inf if self.realised > 0 else math.nan


@dataclass(frozen=True)
class Isolate:
    """Cut this user off; ``acting`` False: only propose it."""

    suspect: Suspect
    rule: IsolationRule
    acting: bool
    number: int = 0


@dataclass(frozen=True)
class Release:
    """End an isolation: its time is over. ``helped``: the alarm closed meanwhile."""

    user: str
    number: int
    helped: bool


@dataclass(frozen=True)
class Held:
    """An isolation in force."""

    number: int
    alarm: int
    #: When it ends, by the isolator's time.
    until: float


@dataclass
class Isolator:
    """Decides; whoever calls it carries the actions out. Not safe for threads."""

    rules: IsolationBlock
    held: dict[str, Held] = field(default_factory=dict)
    #: Openings of alarms that were dealt with.
    _done: set[tuple[int, int]] = field(default_factory=set)
    #: Users lifted by hand, and until when they are left alone.
    _spared: dict[str, float] = field(default_factory=dict)
    _elapsed: Elapsed = field(default_factory=Elapsed)
    _number: int = 0

    def step(
        self, now: float, suspects: Iterable[Suspect], protected: Collection[str], acting: bool = True
    ) -> list[Isolate | Release]:
        """What to do now. ``suspects`` are all of whom an alarm is open now."""
        self._elapsed.until(now)
        time, found = self._elapsed.seconds, list(suspects)
        standing = {one.alarm for one in found}
        actions: list[Isolate | Release] = []
        for user, held in list(self.held.items()):
            # Protected since: it ends at once.
            if time >= held.until or user in protected:
                del self.held[user]
                actions.append(Release(user, held.number, held.alarm not in standing))
        self._spared = {user: until for user, until in self._spared.items() if time < until}
        self._done &= {(one.alarm, one.times) for one in found}
        # Where there is not room for all, the worst first.
        for one in sorted(found, key=_worst_first):
            rule = self._rule(one)
            if rule is None or one.user in protected or one.user in self._spared or one.user in self.held:
                continue
            if (one.alarm, one.times) in self._done:
                continue
            if not acting:
                self._done.add((one.alarm, one.times))
                actions.append(Isolate(one, rule, False))
            elif len(self.held) < self.rules.max_users:
                self._done.add((one.alarm, one.times))
                self._number += 1
                self.held[one.user] = Held(self._number, one.alarm, time + self.rules.for_s)
                actions.append(Isolate(one, rule, True, self._number))
        return actions

    def _rule(self, one: Suspect) -> IsolationRule | None:
        for rule in self.rules.rules or _DEFAULT:
            severe = SEVERITIES.index(one.severity) >= SEVERITIES.index(rule.severity)
            if one.kind == rule.kind and severe and (rule.times <= 1 or one.excess >= rule.times):
                return rule
        return None

    def lift(self, user: str) -> bool:
        """End one by order, and leave the user alone for as long as an isolation lasts. False: not isolated."""
        if self.held.pop(user, None) is None:
            return False
        self._spared[user] = self._elapsed.seconds + self.rules.for_s
        return True

    def remaining_s(self, user: str) -> float:
        """Seconds until an isolation ends."""
        return self.held[user].until - self._elapsed.seconds

    def state(self) -> dict[str, Any]:
        """For ``restore``, as JSON-able values."""
        return {
            "elapsed": self._elapsed.state(),
            "number": self._number,
            "held": {user: asdict(held) for user, held in self.held.items()},
            "done": sorted(self._done),
            "spared": self._spared,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with a predecessor's isolations. Raises ValueError; nothing changes then."""
        try:
            held = {str(user): Held(**one) for user, one in state["held"].items()}
            done = {(int(alarm), int(times)) for alarm, times in state["done"]}
            spared = {str(user): float(until) for user, until in state["spared"].items()}
            elapsed, number = Elapsed.restore(state["elapsed"]), int(state["number"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"remediation state is malformed: {error!r}") from None
        self.held, self._done, self._spared = held, done, spared
        self._elapsed, self._number = elapsed, number


def _worst_first(one: Suspect) -> tuple[int, float, str]:
    excess = one.excess if not math.isnan(one.excess) else 0.0
    return -SEVERITIES.index(one.severity), -excess, one.user
