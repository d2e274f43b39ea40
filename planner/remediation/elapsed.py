"""Seconds that only go forward, counted from a clock that may be set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Elapsed:
    """A clock set back costs the time until then; nothing comes early, and nothing waits for ever."""

    seconds: float = 0.0
    _clock: float = math.nan

    def until(self, now: float) -> None:
        """Count on to this moment, epoch seconds."""
        if math.isfinite(now):
            if now > self._clock:
                self.seconds += now - self._clock
            self._clock = now

    def state(self) -> list[float | None]:
        """For ``restore``, as JSON-able values."""
        return [self.seconds, None if math.isnan(self._clock) else self._clock]

    @classmethod
    def restore(cls, state: Any) -> Elapsed:
        """What ``state`` was; what passed since is counted. Raises TypeError, ValueError."""
        seconds, clock = state
        return cls(float(seconds), math.nan if clock is None else float(clock))
