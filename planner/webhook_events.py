"""What webhooks are told: alarms, steps of remediation, scaling, changes of the plan's stance, groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from planner.config_remediation import EventName
from planner.loop import Planner
from planner.remediation.steps import Rung, Step, step_to_dict
from planner.webhooks import Webhooks
from telemetry.samples import DIRECTIONS


class Announcer:
    """Compares one tick with the one before, and tells what changed."""

    def __init__(self, planner: Planner, webhooks: Webhooks) -> None:
        """What was before is not told again."""
        self._planner = planner
        self._webhooks = webhooks
        self._alarms = planner.alarm_watch.stream.sequence
        self._steps = planner.remediation.trail.sequence
        self._plan = self._stance()
        self._groups = self._members()

    def step(self, now: float) -> None:
        """Tell what changed since the last call."""
        self._tell_alarms(now)
        with self._planner.lock:
            trail = self._planner.remediation.trail
            changed, self._steps = trail.since(self._steps), trail.sequence
            plan, groups = self._stance(), self._members()
        for step in changed:
            self._webhooks.send(_event(step), step_message(step), now)
        if plan != self._plan:
            self._webhooks.send("plan", {**plan, "before": self._plan}, now)
        for name in sorted(groups.keys() | self._groups.keys()):
            before, after = self._groups.get(name, ()), groups.get(name, ())
            if before != after:
                joined, left = sorted(set(after) - set(before)), sorted(set(before) - set(after))
                data = {"group": name, "members": after, "joined": joined, "left": left}
                self._webhooks.send("group", data, now)
        self._plan, self._groups = plan, groups

    def _tell_alarms(self, now: float) -> None:
        stream = self._planner.alarm_watch.stream
        if stream.sequence == self._alarms:
            return
        view = stream.view(self._alarms)
        for alarm in view.alarms:
            self._webhooks.send("alarm", _finite(asdict(alarm)), now)
        self._alarms = view.sequence

    def _stance(self) -> dict[str, Any]:
        own = self._planner.publication.stance
        return {
            "mode": own.mode,
            "regions": own.regions,
            "frozen": own.frozen,
            "reason": own.reason,
            "health": self._planner.snapshot.health.status,
        }

    def _members(self) -> dict[str, tuple[str, ...]]:
        return {group.id: tuple(sorted(group.members)) for group in self._planner.grouping.groups}


def _event(step: Step) -> EventName:
    return "scaling" if step.rung is Rung.SCALE else "remediation"


def step_message(step: Step) -> dict[str, Any]:
    """A step as messages and answers carry it."""
    raw = _finite(step_to_dict(step))
    del raw["number"]
    return {**raw, "direction": DIRECTIONS[step.direction], "helped": step.helped}


def _finite(value: Any) -> Any:
    """Nested values as JSON has them; None for numbers that are none."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
