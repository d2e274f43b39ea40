"""The audit trail: every step that was taken or proposed, bounded, numbered, kept over restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from planner.remediation.steps import Step, step_from_dict, step_to_dict
from planner.snapshot import NotThere

#: More changes than come between two writings of the state.
_AHEAD: Final = 1000


class Trail:
    """Steps by id, oldest first. What is in force is never dropped. Not safe for threads."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._steps: dict[int, Step] = {}
        self._last_id = 0
        #: Grows with every change of any step.
        self.sequence = 0

    def add(self, step: Step) -> Step:
        """Take a new step; gives it with its id."""
        self._last_id += 1
        made = self._put(replace(step, id=self._last_id))
        excess = len(self._steps) - self._keep
        for old in [one.id for one in self._steps.values() if not one.in_force][: max(0, excess)]:
            del self._steps[old]
        return made

    def change(self, step_id: int, now: float, **changes: Any) -> Step:
        """Change a step that is kept."""
        return self._put(replace(self._steps[step_id], changed=now, **changes))

    def _put(self, step: Step) -> Step:
        self.sequence += 1
        step = replace(step, sequence=self.sequence)
        self._steps[step.id] = step
        return step

    def step(self, step_id: int) -> Step:
        """One step. Raises NotThere."""
        found = self._steps.get(step_id)
        if found is None:
            raise NotThere(f"stepID must be the id of a step that is kept, got {step_id}")
        return found

    @property
    def steps(self) -> tuple[Step, ...]:
        """All that are kept, oldest first."""
        return tuple(self._steps.values())

    @property
    def in_force(self) -> tuple[Step, ...]:
        """Those whose measures hold now."""
        return tuple(step for step in self._steps.values() if step.in_force)

    def since(self, sequence: int) -> tuple[Step, ...]:
        """Those that changed after this, in the order of their changes."""
        found = (step for step in self._steps.values() if step.sequence > sequence)
        return tuple(sorted(found, key=lambda step: step.sequence))

    def state(self) -> dict[str, Any]:
        """For ``restore``, as JSON-able values."""
        return {
            "last_id": self._last_id,
            "sequence": self.sequence,
            "steps": [step_to_dict(step) for step in self._steps.values()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with a predecessor's steps. Raises ValueError; nothing changes then."""
        try:
            steps = [step_from_dict(raw) for raw in state["steps"]]
            last_id, sequence = int(state["last_id"]), int(state["sequence"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"remediation state is malformed: {error!r}") from None
        # Later than anything told since this was written down.
        self._steps = {step.id: step for step in steps}
        self._last_id, self.sequence = last_id + _AHEAD, sequence + _AHEAD
