"""What operators ask of remediation, from any thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from planner.loop import Planner
from planner.remediation.steps import Step
from planner.remediation.views import IsolationView, RemediationView


class RemediationDesk:
    """For any thread. Writes return when they are stored; the next tick follows them."""

    def __init__(
        self, planner: Planner, written: Callable[[str], None], now: Callable[[], float] = time.time
    ) -> None:
        """``written`` is told in words what was changed; when it returns that is on disk."""
        self._planner = planner
        self._written = written
        self._now = now

    def view(self) -> RemediationView:
        """See ``RemediationOperations``."""
        with self._planner.lock:
            return self._planner.remediation.view()

    def undo(self, step_id: int) -> Step:
        """See ``RemediationOperations``."""
        with self._planner.lock:
            step = self._planner.remediation.undo(step_id, self._now())
            self._enforce()
        self._written(f"remediation {step_id} undone: {step.text}")
        return step

    def isolations(self) -> tuple[IsolationView, ...]:
        """See ``RemediationOperations``."""
        with self._planner.lock:
            return self._planner.remediation.isolations()

    def lift(self, user: str) -> None:
        """See ``RemediationOperations``."""
        with self._planner.lock:
            self._planner.remediation.lift(user, self._now())
            self._enforce()
        self._written(f"isolation of {user} lifted")

    def _enforce(self) -> None:
        if self._planner.remediation.enforce(self._now()):
            self._planner.restructure()
