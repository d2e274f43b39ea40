"""Decreases first, over all switches: what one pool loses on one switch another may gain elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

#: So long increases wait for switches that do not say that they lowered what was to be lowered.
PATIENCE_S: Final = 3.0


@dataclass
class DecreasesFirst:
    """Who has still to lower meters for a plan before anybody raises any. Times are of one clock that never goes back.

    A switch whose connection is lost is not waited for: it keeps what it has, and nobody knows for how long.
    """

    patience_s: float = PATIENCE_S
    _version: int | None = None
    _pending: set[int] = field(default_factory=set)
    _until: float = 0.0

    def begin(self, version: int, dpids: Iterable[int], now: float) -> None:
        """A plan came, for these connected switches."""
        self._version, self._pending, self._until = version, set(dpids), now + self.patience_s

    def lowered(self, dpid: int, version: int | None) -> bool:
        """A switch was seen to have lowered all that this plan lowers. True if it was the last."""
        if version != self._version or dpid not in self._pending:
            return False
        self._pending.discard(dpid)
        return not self._pending

    def forget(self, dpid: int) -> bool:
        """A connection ended. True if nobody else is waited for now."""
        waited = dpid in self._pending
        self._pending.discard(dpid)
        return waited and not self._pending

    def give_up(self, now: float) -> frozenset[int]:
        """The switches that are waited for no longer, once patience is at an end; else none."""
        if not self._pending or now < self._until:
            return frozenset()
        late, self._pending = frozenset(self._pending), set()
        return late

    def may_raise(self, version: int | None) -> bool:
        """Whether meters may be raised for this plan."""
        return version != self._version or not self._pending
