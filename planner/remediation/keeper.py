"""Remediation in the loop: looks, decides, carries out, and keeps the record.

What is in force follows from the record alone and is set at every tick, so a restart
or a lost write leaves nothing behind.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from planner.alarms import AlarmStream
from planner.config import Config
from planner.explain import Decided
from planner.grouping import Grouping
from planner.modes import Stance
from planner.plan import SwitchLayout
from planner.policies import Pair, Rule
from planner.policy import Policies
from planner.remediation.isolation import Isolate, Isolator, Release
from planner.remediation.ladder import Action, End, Remedy, Take
from planner.remediation.lookout import Lookout, suspects_of, world_of
from planner.remediation.steps import Measures, Rung, Signal, Standing, Step, World
from planner.remediation.trail import Trail
from planner.remediation.views import IsolationView, RemediationView, TroubleView
from planner.snapshot import NotThere, Refused
from planner.structure import Structure
from telemetry.samples import DIRECTIONS

LOG = logging.getLogger("tidegate.planner")


@dataclass
class Keeper:
    """The ladder and the isolator over one planner. Hold the planner's lock."""

    config: Config
    lookout: Lookout
    policies: Policies
    grouping: Grouping
    alarms: AlarmStream
    trail: Trail = field(init=False)
    remedy: Remedy = field(init=False)
    isolator: Isolator = field(init=False)
    #: Users all of whose packets are dropped.
    dropped: frozenset[str] = frozenset()
    acting: bool = False

    def __post_init__(self) -> None:
        rules = self.config.remediation
        self.trail = Trail(rules.keep)
        self.remedy = Remedy(rules.congestion)
        self.isolator = Isolator(rules.isolation)

    def step(self, now: float, decided: Decided, stance: Stance) -> bool:
        """Decide on what was published at this tick. True if a layout has to be made anew."""
        rules = self.config.remediation
        # While another plan stands than the one that is made, nothing that is done here takes effect.
        self.acting = stance.mode == "live" and not stance.frozen
        s = decided.structure
        if rules.congestion.mode != "off":
            found = self.lookout.signals(now, decided, self.remedy) if self.acting else []
            self._climb(now, found, world_of(s))
        if rules.isolation.mode != "off":
            self._isolate(now, s)
        return self.enforce(now)

    def _climb(self, now: float, found: list[Signal], world: World) -> None:
        acts = self.acting and self.config.remediation.congestion.mode == "act"
        for action in self.remedy.step(now, found, world, acts):
            self._carry(now, action)

    def _carry(self, now: float, action: Action) -> None:
        if isinstance(action, End):
            step = self._of_number(action.number, isolation=False)
            if step is not None:
                known = {"after": action.value} if math.isfinite(action.value) else {}
                self._change(now, step, action.standing, action.reason, **known)
            return
        signal = action.signal
        step = Step(
            id=0,
            rung=action.option.rung,
            kind=signal.kind,
            place=signal.place,
            direction=signal.direction,
            standing=action.standing,
            text=action.option.text,
            why=_why(action, self.config.remediation.congestion.raise_ticks),
            measures=action.option.measures,
            evidence=signal.evidence,
            before=signal.value,
            time=now,
            changed=now,
            number=action.number,
        )
        if step.in_force and step.measures.regroup:
            self.grouping.regroup()
        self._add(step)

    # Isolation.

    def _isolate(self, now: float, s: Structure) -> None:
        rules = self.config.remediation.isolation
        suspects = suspects_of(self.alarms, s)
        acts = self.acting and rules.mode == "act"
        for action in self.isolator.step(now, suspects, self.lookout.protected(s), acts):
            if isinstance(action, Isolate):
                self._add(self._isolation(now, s, action))
            else:
                self._release(now, action)

    def _isolation(self, now: float, s: Structure, action: Isolate) -> Step:
        rules, one = self.config.remediation.isolation, action.suspect
        rate = (rules.rate_mbps or self.config.allocation.min_rate_mbps) * 1e6
        drops = rules.action == "drop"
        what = "drop all it sends" if drops else f"hold it at {rate / 1e6:g} Mbit/s"
        measures = Measures(limits={one.user: (rate, rate)}, dropped=(one.user,) if drops else ())
        path = next(path for path in s.path[s.user_rows] if path.endswith(f"/{one.user}"))
        return Step(
            id=0,
            rung=Rung.ISOLATE,
            kind=one.kind,
            place=path,
            direction=0,
            standing=Standing.TRIED if action.acting else Standing.PROPOSED,
            text=f"isolate {one.user} for {rules.for_s:g} s: {what}",
            why=f"alarm {one.alarm}, {one.severity}: {one.text}",
            measures=measures,
            evidence={"alarm": one.alarm, "realised": one.realised, "high": one.high, "times": one.excess},
            before=one.realised,
            time=now,
            changed=now,
            number=action.number,
        )

    def _release(self, now: float, action: Release) -> None:
        step = self._of_number(action.number, isolation=True)
        if step is None:
            return
        if action.helped:
            self._change(now, step, Standing.ENDED, "its time is over, and the alarm is closed")
        else:
            self._change(
                now, step, Standing.UNDONE, "its time is over; the alarm still stands", after=step.before
            )

    # The record, and what follows from it.

    def _of_number(self, number: int, *, isolation: bool) -> Step | None:
        return next(
            (
                step
                for step in self.trail.in_force
                if step.number == number and (step.rung is Rung.ISOLATE) == isolation
            ),
            None,
        )

    def _add(self, step: Step) -> None:
        made = self.trail.add(step)
        level = logging.WARNING if step.rung is Rung.SCALE else logging.INFO
        LOG.log(
            level, "remediation %d %s %s: %s (%s)", made.id, made.rung, made.standing, made.text, made.why
        )

    def _change(self, now: float, step: Step, standing: Standing, reason: str, **more: Any) -> Step:
        made = self.trail.change(step.id, now, standing=standing, reason=reason, **more)
        LOG.info("remediation %d %s %s: %s", made.id, made.rung, made.standing, reason)
        return made

    def enforce(self, now: float) -> bool:
        """Set what the record says holds. True if a layout has to be made anew."""
        held = self.trail.in_force
        limits: dict[str, Pair] = {}
        for step in held:
            for user, pair in step.measures.limits.items():
                before = limits.get(user, (math.inf, math.inf))
                limits[user] = min(before[0], pair[0]), min(before[1], pair[1])
        rules = [
            Rule(f"remediation {step.id}", (pool,), lift)
            for step in held
            for pool, lift in step.measures.lifts.items()
        ]
        # A file of today need not know whom yesterday's did.
        known = self.config.users.keys()
        self.policies.remedy(rules, {user: pair for user, pair in limits.items() if user in known})
        self.grouping.keep_apart(frozenset(user for step in held for user in step.measures.apart), now)
        dropped = frozenset(user for step in held for user in step.measures.dropped)
        changed, self.dropped = dropped != self.dropped, dropped
        return changed

    # What operators ask.

    def undo(self, step_id: int, now: float, reason: str = "by an operator") -> Step:
        """Take back a step that is in force. Raises NotThere, Refused."""
        step = self.trail.step(step_id)
        if not step.in_force:
            raise Refused(f"stepID must be the id of a step that is in force, got {step_id}, {step.standing}")
        if step.rung is Rung.ISOLATE:
            self.isolator.lift(step.place.rpartition("/")[2])
        else:
            self.remedy.undo(step.number)
        return self._change(now, step, Standing.UNDONE, reason)

    def isolations(self) -> tuple[IsolationView, ...]:
        """Who is cut off."""
        found = []
        for step in self.trail.in_force:
            user = step.place.rpartition("/")[2]
            if step.rung is Rung.ISOLATE and user in self.isolator.held:
                found.append(IsolationView(user, self.isolator.remaining_s(user), step))
        return tuple(found)

    def lift(self, user: str, now: float) -> Step:
        """End an isolation. Raises NotThere."""
        found = next((one.step for one in self.isolations() if one.user == user), None)
        if found is None:
            raise NotThere(f"user must be one that is isolated, got {user!r}")
        return self.undo(found.id, now)

    def view(self) -> RemediationView:
        """How it stands."""
        rules = self.config.remediation
        troubles = tuple(
            TroubleView(
                place, d, one.kind, one.recent[-1] if one.recent else math.nan, one.over, one.under, one.climbed
            )
            for (place, d), one in sorted(self.remedy.troubles.items())
        )  # fmt: skip
        return RemediationView(
            rules.congestion.mode, rules.isolation.mode, self.acting, troubles, self.trail.steps
        )

    # Restarts.

    def state(self) -> dict[str, Any]:
        """For ``restore``, as JSON-able values."""
        return {
            "trail": self.trail.state(),
            "ladder": self.remedy.state(),
            "isolator": self.isolator.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a predecessor stopped. A state that is none is told of, and changes nothing."""
        if not state:
            return
        try:
            trail = Trail(self.config.remediation.keep)
            trail.restore(state["trail"])
            held = {step.number: step.measures for step in trail.in_force if step.rung is not Rung.ISOLATE}
            remedy, isolator = Remedy(self.remedy.rules), Isolator(self.isolator.rules)
            remedy.restore(state["ladder"], held)
            isolator.restore(state["isolator"])
        except (KeyError, TypeError, ValueError) as error:
            LOG.error("remediation of an earlier planner not restored: %s", error)
            return
        self.trail, self.remedy, self.isolator = trail, remedy, isolator
        self._let_go()
        # Before the first plan: nobody is free for a tick because a planner was restarted.
        self.enforce(max((step.changed for step in trail.in_force), default=0.0))

    def _let_go(self) -> None:
        """Take back what the configuration of today does not do, and what nobody would end."""
        rules = self.config.remediation
        decided_on = {doing.number for doing in self.remedy.in_force()}
        held = {one.number for one in self.isolator.held.values()}
        for step in self.trail.in_force:
            isolates = step.rung is Rung.ISOLATE
            mode = rules.isolation.mode if isolates else rules.congestion.mode
            if mode != "act":
                self.undo(step.id, step.changed, f"the mode is {mode} now")
            elif step.number not in (held if isolates else decided_on):
                self._change(step.changed, step, Standing.UNDONE, "nobody knew when it ends")


def _why(action: Take, ticks: int) -> str:
    signal = action.signal
    way = (
        DIRECTIONS[signal.direction]
        if not signal.place.startswith("port ")
        else ("in", "out")[signal.direction]
    )
    return (
        f"{signal.kind} of {signal.place} {way} is {signal.value:.3g}, at or above {signal.high:g} "
        f"for {ticks} ticks"
    )


def isolating(layouts: Mapping[int, SwitchLayout], users: frozenset[str]) -> Mapping[int, SwitchLayout]:
    """Layouts whose switches drop all that these users' devices send there."""
    if not users:
        return layouts
    macs = {
        dpid: tuple(sorted({one.mac for one in layout.bindings if one.user in users}))
        for dpid, layout in layouts.items()
    }
    return {dpid: replace(layout, isolated=macs[dpid]) for dpid, layout in layouts.items()}
