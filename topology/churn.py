"""How many memberships discovery may change: at most a share of them within any hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_WINDOW_S: Final = 3600.0


@dataclass
class ChurnWindow:
    """When memberships changed in the last hour, and how many."""

    spent: list[tuple[float, int]] = field(default_factory=list)

    def used(self, now: float) -> int:
        """Changes within the hour before ``now``."""
        # What lies ahead is of before the clock was set back: it counts as of now.
        kept = ((min(at, now), n) for at, n in self.spent)
        self.spent = [(at, n) for at, n in kept if now - at < _WINDOW_S]
        return sum(n for _, n in self.spent)

    def spend(self, changes: int, now: float) -> None:
        """Note so many changes."""
        if changes:
            self.spent.append((now, changes))

    def to_list(self) -> list[list[float]]:
        """The window as JSON-able values."""
        return [[at, n] for at, n in self.spent]

    @classmethod
    def from_list(cls, raw: Sequence[Any]) -> ChurnWindow:
        """The window that ``to_list`` gave. Raises TypeError, ValueError."""
        return cls([(float(at), int(n)) for at, n in raw])
