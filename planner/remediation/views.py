"""Remediation and webhooks as readers see them, and what northbound may ask of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from planner.remediation.steps import Step


@dataclass(frozen=True)
class TroubleView:
    """A place that is or was congested."""

    place: str
    direction: int
    kind: str
    #: The newest figure; NaN: not known.
    value: float
    #: Ticks in a row above the threshold, and below that of being well.
    ticks_over: int
    ticks_well: int
    #: Rungs tried since it began.
    climbed: int


@dataclass(frozen=True)
class RemediationView:
    """How remediation stands."""

    #: ``off``, ``observe`` or ``act``.
    congestion_mode: str
    isolation_mode: str
    #: Whether steps are taken now: not while the plan is frozen or in shadow.
    acting: bool
    troubles: tuple[TroubleView, ...]
    #: Oldest first.
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class IsolationView:
    """A user that is cut off."""

    user: str
    #: Seconds until it ends by itself.
    remaining_s: float
    step: Step


class RemediationOperations(Protocol):
    """What northbound may ask of remediation. Writes return when they are stored."""

    def view(self) -> RemediationView:
        """Troubles, steps in force, and the record."""

    def undo(self, step_id: int) -> Step:
        """Take back a step that is in force. Raises NotThere, Refused."""

    def isolations(self) -> tuple[IsolationView, ...]:
        """Who is cut off."""

    def lift(self, user: str) -> None:
        """End an isolation. Raises NotThere."""


@dataclass(frozen=True)
class WebhookView:
    """One webhook as it stands."""

    #: Its place in the configuration's list.
    number: int
    #: Without what may be secret in it.
    address: str
    #: Empty: everything.
    events: tuple[str, ...]
    waiting: int
    delivered: int
    failed: int
    dead: int
    #: Epoch seconds; None: never.
    last_success: float | None
    #: What went wrong last; empty after a success.
    error: str


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be delivered."""

    id: str
    webhook: int
    address: str
    event: str
    #: Epoch seconds at which it happened, and at which it was given up.
    time: float
    given_up: float
    attempts: int
    error: str


class WebhookOperations(Protocol):
    """What northbound may ask of the webhooks."""

    def view(self) -> tuple[WebhookView, ...]:
        """All of the configuration."""

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """What was given up, oldest first."""

    def retry(self, letter_id: str) -> None:
        """Try one again. Raises NotThere."""
