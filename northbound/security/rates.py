"""How often somebody may do something: a bucket that fills steadily and is emptied by use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

#: Strangers' addresses are without number; the longest unused are forgotten.
MAX_KEYS = 10_000


class Buckets:
    """One bucket for each key. Used from the event loop alone."""

    def __init__(self, per_s: float, size: float) -> None:
        """Each bucket holds ``size`` and fills by ``per_s`` a second."""
        self._per_s = per_s
        self._size = max(1.0, size)
        self._level: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """Take one out: 0, or the seconds until there is one; then nothing is taken."""
        level, since = self._level.pop(key, (self._size, now))
        level = min(self._size, level + max(0.0, now - since) * self._per_s)
        wait_s = 0.0 if level >= 1 else (1 - level) / self._per_s
        self._level[key] = (level if wait_s else level - 1, now)
        if len(self._level) > MAX_KEYS:
            self._level.popitem(last=False)
        return wait_s
