"""One announced event."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: Announced factors outside these are slips; measured ones are cut to them.
MIN_UPLIFT, MAX_UPLIFT = 0.02, 50.0
MAX_TEXT: Final = 200


@dataclass(frozen=True)
class Event:
    """Something that is announced to happen.

    Raises
    ------
    ValueError : when a text is empty or too long, it does not end after it
        starts, or the announced factor is out of bounds.
    """

    id: str
    #: A free tag: events of one kind are taken to be alike.
    kind: str
    #: Epoch seconds.
    start: float
    end: float
    #: Pools concerned, see ``forecasting.events.Places``; empty: everybody.
    scope: tuple[str, ...] = ()
    #: Announced factor on demand; None: not known.
    expected_uplift: float | None = None
    #: The feed that it came from.
    source: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "kind"):
            if not 0 < len(getattr(self, name)) <= MAX_TEXT:
                raise ValueError(f"{name} must have 1 to {MAX_TEXT} characters")
        if not (math.isfinite(self.start) and math.isfinite(self.end) and self.start < self.end):
            raise ValueError(f"end must be after start {self.start!r}, got {self.end!r}")
        uplift = self.expected_uplift
        if uplift is not None and not MIN_UPLIFT <= uplift <= MAX_UPLIFT:
            raise ValueError(f"expected_uplift must be {MIN_UPLIFT:g} to {MAX_UPLIFT:g}, got {uplift:g}")
