"""What the planner does by itself, for the audit log: seen by comparing before and after each tick.

So the parts that act know nothing of the log, and one that is forgotten here still acts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from planner.audit import Record
from planner.loop import Planner
from planner.model_versions import Change, What
from planner.policy import TemporaryBoost
from planner.remediation.steps import Step

ACTOR: Final = "planner"
#: What an operator did, and is in the log under its name.
_OPERATORS: Final = (What.ROLLED_BACK, What.RELEASED)


@dataclass(frozen=True)
class _Seen:
    """What may change by itself."""

    changes: tuple[Change, ...]
    boosts: dict[str, TemporaryBoost]
    #: Names of the rules that are on, and of the plans that are held back.
    rules: frozenset[str]
    steps: dict[int, Step]
    stale: bool


class AuditWatch:
    """Looks at one planner. Used from the loop's thread."""

    def __init__(self, planner: Planner, record: Record) -> None:
        """What is so now is not news: an earlier planner recorded it."""
        self._planner = planner
        self._record = record
        self._seen = self._look()

    def step(self, now: float) -> None:
        """Record what was done since the last step. ``now`` is epoch seconds."""
        before, self._seen = self._seen, self._look()
        for action, target, was, becomes, why in _actions(before, self._seen, now):
            self._record(ACTOR, action, target, was, becomes, why)

    def _look(self) -> _Seen:
        planner = self._planner
        with planner.lock:
            in_force = planner.policies.in_force
            lifts = {rule.name for rules in in_force.lifts.values() for rule in rules}
            clawed = {
                f"plan {plan} in {region}, {'up' if d == 0 else 'down'}"
                for plan, region, d in in_force.clawed
            }
            return _Seen(
                planner.prediction.models.versions.changes,
                dict(planner.policies.boosts),
                frozenset(lifts | clawed),
                {step.id: step for step in planner.remediation.view().steps},
                planner.plan_is_stale,
            )


_Action = tuple[str, str, Any, Any, str]


def _actions(before: _Seen, after: _Seen, now: float) -> Iterator[_Action]:
    for change in after.changes:
        if change not in before.changes and change.what not in _OPERATORS:
            target = "models" if change.version is None else f"model {change.version}"
            yield f"model {change.what.value}", target, change.before, change.version, change.reason or "ok"
    for boost_id, boost in before.boosts.items():
        if boost_id not in after.boosts and boost.end <= now:
            yield "boost ended", boost_id, list(boost.pools), None, "its time was over"
    for name in sorted(after.rules - before.rules):
        yield "policy began", name, None, None, "ok"
    for name in sorted(before.rules - after.rules):
        yield "policy ended", name, None, None, "ok"
    for step_id, step in after.steps.items():
        old = before.steps.get(step_id)
        if old is None or old.standing is not step.standing:
            was = None if old is None else old.standing.value
            yield f"remediation {step.kind}", step.text, was, step.standing.value, step.reason or step.why
    if before.stale != after.stale:
        yield (
            ("plan withheld" if after.stale else "plan handed out again"),
            "plan",
            None,
            None,
            "its input is too old" if after.stale else "ok",
        )
