"""The ladder: what to do next about congestion, and whether what was done helped.

Pure: figures in, actions out. Time only moves forward here, whatever the clock does,
and a figure that is not known moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from planner.config_remediation import Congestion
from planner.remediation.elapsed import Elapsed
from planner.remediation.steps import Measures, Option, Rung, Signal, Standing, World
from planner.remediation.troubles import Doing, Key, Trouble

#: The rungs, mildest first.
LADDER: Final = (Rung.REALLOCATE, Rung.RECOMPOSE, Rung.SCALE)


@dataclass(frozen=True)
class Take:
    """Do this about a signal, or only propose it."""

    signal: Signal
    option: Option
    standing: Standing
    #: The remedy's own number of what is in force; 0 for what is not.
    number: int = 0


@dataclass(frozen=True)
class End:
    """What was done about a trouble stands otherwise from now on; out of force, it is taken back."""

    key: Key
    number: int
    standing: Standing
    #: The signal's mean since the step had time to show; NaN: not known, or judged before.
    value: float
    reason: str


Action = Take | End


@dataclass
class Remedy:
    """Decides; whoever calls it carries the actions out. Not safe for threads."""

    rules: Congestion
    troubles: dict[Key, Trouble] = field(default_factory=dict)
    _elapsed: Elapsed = field(default_factory=Elapsed)
    _number: int = 0

    def step(self, now: float, signals: Iterable[Signal], world: World, acting: bool = True) -> list[Action]:
        """What to do now.

        acting : False: steps are proposed and none is taken.
        """
        self._elapsed.until(now)
        found: dict[Key, dict[str, Signal]] = {}
        for signal in signals:
            found.setdefault(signal.key, {})[signal.kind] = signal
        actions: list[Action] = []
        for key in sorted(self.troubles.keys() | found.keys()):
            actions += self._one(key, found.get(key, {}), world, acting)
        return actions

    @property
    def _time(self) -> float:
        return self._elapsed.seconds

    def _one(self, key: Key, signals: Mapping[str, Signal], world: World, acting: bool) -> list[Action]:
        trouble = self.troubles.get(key)
        if trouble is None:
            worst = max(
                (one for one in signals.values() if one.value >= one.high),
                key=lambda one: one.value / one.high,
                default=None,
            )
            if worst is None:
                return []
            trouble = Trouble(worst.kind, known=self._time)
        # What began it is what it is judged by: another figure may fall for other reasons.
        signal = signals.get(trouble.kind)
        if signal is not None and math.isfinite(signal.value):
            trouble = self._noted(trouble, signal)
        ends, trouble = self._judged(key, trouble)
        actions: list[Action] = list(ends)
        if signal is not None and math.isfinite(signal.value):
            take, trouble = self._taken(trouble, signal, world, acting)
            actions += take
        forgotten = not trouble.doing and self._over(trouble)
        if forgotten:
            self.troubles.pop(key, None)
        else:
            self.troubles[key] = trouble
        return actions

    def _over(self, trouble: Trouble) -> bool:
        """Nothing is in force, and it is well, never was bad for long, or has not been known for long."""
        rested = self._time - trouble.acted >= self.rules.cooldown_s
        well = trouble.under >= self.rules.clear_ticks
        brief = not trouble.over and not trouble.climbed
        return rested and (well or brief or self._time - trouble.known >= self.rules.hold_s)

    def _noted(self, trouble: Trouble, signal: Signal) -> Trouble:
        value = signal.value
        keep = self.rules.raise_ticks
        return replace(
            trouble,
            over=trouble.over + 1 if value >= signal.high else 0,
            under=trouble.under + 1 if value < signal.low else 0,
            recent=(*trouble.recent, value)[-keep:],
            known=self._time,
            doing=tuple(
                replace(one, seen=(*one.seen, value)[-self.rules.judge_ticks :])
                if one.standing is Standing.TRIED
                else one
                for one in trouble.doing
            ),
        )

    # Ends.

    def _judged(self, key: Key, trouble: Trouble) -> tuple[list[Action], Trouble]:
        kept, ends = [], []
        for one in trouble.doing:
            standing, reason = self._verdict(one, trouble)
            if standing is one.standing:
                kept.append(one)
                continue
            if standing is Standing.HELPED:
                kept.append(replace(one, standing=standing))
            else:
                trouble = replace(trouble, acted=self._time)
            late = math.nan if standing is Standing.ENDED else _late_mean(one.seen)
            ends.append(End(key, one.number, standing, late, reason))
        return list(ends), replace(trouble, doing=tuple(kept))

    def _verdict(self, one: Doing, trouble: Trouble) -> tuple[Standing, str]:
        rules, age = self.rules, self._time - one.at
        if one.standing is Standing.HELPED:
            return (Standing.ENDED, "its time is over") if age >= rules.hold_s else (one.standing, "")
        if trouble.under >= rules.clear_ticks and len(one.seen) >= rules.clear_ticks:
            return Standing.HELPED, "it is well again"
        if len(one.seen) >= rules.judge_ticks:
            share = 1 - _late_mean(one.seen) / one.before if one.before > 0 else 0.0
            if share >= rules.improvement:
                return Standing.HELPED, f"it fell by {share:.0%}"
            return Standing.UNDONE, f"it fell by {max(share, 0):.0%}, less than {rules.improvement:.0%}"
        if age >= rules.hold_s:
            return Standing.UNDONE, "too little was measured to judge it"
        return one.standing, ""

    # Takes.

    def ripe(self, key: Key) -> bool:
        """Whether something may be done at a place if it is congested at this tick too."""
        trouble = self.troubles.get(key)
        over = 0 if trouble is None else trouble.over
        return over + 1 >= self.rules.raise_ticks and not (trouble and _on_trial(trouble))

    def _taken(
        self, trouble: Trouble, signal: Signal, world: World, acting: bool
    ) -> tuple[list[Action], Trouble]:
        rules = self.rules
        if trouble.under >= rules.clear_ticks:
            # The next time it begins at the mildest again.
            return [], replace(trouble, climbed=0)
        if (
            trouble.over < rules.raise_ticks
            or _on_trial(trouble)
            or self._time - trouble.acted < rules.cooldown_s
        ):
            return [], trouble
        ladder = [Rung(name) for name in rules.ladder] or list(LADDER)
        for at, rung in enumerate(ladder):
            # What has not helped is not tried again; only scaling is called for again and again.
            if at < trouble.climbed and rung is not Rung.SCALE:
                continue
            option = next((one for one in signal.options if one.rung is rung), None)
            if option is not None and self._may(option, trouble, world):
                return self._take(trouble, signal, option, at + 1, acting)
        return [], trouble

    def _take(
        self, trouble: Trouble, signal: Signal, option: Option, climbed: int, acting: bool
    ) -> tuple[list[Action], Trouble]:
        if option.rung is Rung.SCALE:
            raised = replace(trouble, climbed=climbed, acted=self._time, raised=self._time)
            return [Take(signal, option, Standing.RAISED)], raised
        if not acting:
            # Nothing changes: it counts anew before the next rung is proposed.
            later = replace(trouble, climbed=climbed, acted=self._time, over=0)
            return [Take(signal, option, Standing.PROPOSED)], later
        self._number += 1
        before = sum(trouble.recent) / len(trouble.recent)
        doing = Doing(self._number, option.rung, option.measures, Standing.TRIED, before, self._time)
        taken = replace(trouble, climbed=climbed, acted=self._time, doing=(*trouble.doing, doing))
        # Entered at once: the next trouble of this tick has to see it.
        self.troubles[signal.key] = taken
        return [Take(signal, option, Standing.TRIED, self._number)], taken

    def _may(self, option: Option, trouble: Trouble, world: World) -> bool:
        """Whether it is this rung's time, and within the blast radius."""
        if option.rung is Rung.SCALE:
            return self._time - trouble.raised >= self.rules.scale_every_s
        if any(one.rung is option.rung for one in trouble.doing):
            return False
        touched = [one.measures for one in self.in_force()] + [option.measures]
        users = frozenset().union(*(one.users for one in touched))
        groups = {group for one in touched for group in one.groups}
        regions = {region for one in touched for region in one.regions}
        rules = self.rules
        return (
            len(users) <= at_most(rules.max_users, world.users)
            and len(groups) <= at_most(rules.max_groups, world.groups)
            and len(regions) <= at_most(rules.max_regions, world.regions)
        )

    def in_force(self) -> list[Doing]:
        """All that is done now."""
        return [one for trouble in self.troubles.values() for one in trouble.doing]

    def undo(self, number: int) -> bool:
        """Take back one that is in force, by order. False if there is none."""
        for key, trouble in self.troubles.items():
            kept = tuple(one for one in trouble.doing if one.number != number)
            if len(kept) < len(trouble.doing):
                self.troubles[key] = replace(trouble, doing=kept, acted=self._time)
                return True
        return False

    def state(self) -> dict[str, Any]:
        """For ``restore``, but for the measures, which the trail keeps."""
        return {
            "elapsed": self._elapsed.state(),
            "number": self._number,
            "troubles": [[place, d, one.to_dict()] for (place, d), one in self.troubles.items()],
        }

    def restore(self, state: Mapping[str, Any], measures: Mapping[int, Measures]) -> None:
        """Go on with a predecessor's troubles; ``measures`` by number. Raises ValueError."""
        try:
            troubles = {
                (str(place), int(d)): Trouble.from_dict(raw, measures) for place, d, raw in state["troubles"]
            }
            elapsed, number = Elapsed.restore(state["elapsed"]), int(state["number"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"remediation state is malformed: {error!r}") from None
        self.troubles, self._elapsed, self._number = troubles, elapsed, number


def at_most(share: float, n: int) -> int:
    """How many of ``n`` a share is: one at least, none of a share of 0."""
    return 0 if share <= 0 else max(1, math.floor(share * n + 1e-9))


def _on_trial(trouble: Trouble) -> bool:
    return any(one.standing is Standing.TRIED for one in trouble.doing)


def _late_mean(seen: tuple[float, ...]) -> float:
    """Of the later half: a step takes some ticks to show. NaN of nothing."""
    late = seen[len(seen) // 2 :]
    return sum(late) / len(late) if late else math.nan
