"""Alarms as readers see them, and what northbound may ask of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forecasting.anomaly import Evidence


@dataclass(frozen=True)
class Alarm:
    """One alarm as it stands. ``None`` for times that did not come."""

    id: int
    #: Grows with every change of any alarm.
    sequence: int
    pool: str
    level: str
    #: ``up`` or ``down``: of the traffic.
    direction: str
    kind: str
    #: ``above`` or ``below`` the forecast.
    side: str
    severity: str
    #: Epoch seconds at which it began, changed last, closed, was acknowledged.
    since: float
    updated: float
    closed: float | None
    acknowledged: float | None
    #: Why it closed; empty while open.
    reason: str
    #: How often it was opened.
    times: int
    #: What to tell an operator.
    text: str
    evidence: Evidence


@dataclass(frozen=True)
class AlarmsView:
    """A part of the stream, oldest change first."""

    #: Ask for changes after this one next.
    sequence: int
    #: Whether nothing between was forgotten.
    complete: bool
    #: All that are open, acknowledged or not, on this page or not.
    open: int
    #: Not acknowledged, of these.
    unacknowledged: int
    #: Alarms held back since the start, since their pool had many within the hour.
    held_back: int
    alarms: tuple[Alarm, ...]


class AlarmOperations(Protocol):
    """What northbound may ask of the stream."""

    def view(
        self, since: int = 0, *, only_open: bool | None = None, pool: str | None = None, limit: int = 1000
    ) -> AlarmsView:
        """The alarms that changed after ``since``; see ``AlarmStream.view``."""

    def acknowledge(self, alarm_id: int, now: float) -> Alarm:
        """Note that somebody has seen it. Raises NotThere."""
