"""Decreases first, over all switches: what one pool loses on one switch another may gain elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

#: After so long without its decreases a switch counts as out of reach, and the planner is told.
PATIENCE_S: Final = 3.0
#: So long increases wait in all for a switch of which no plan says that it is out of reach.
BOUND_S: Final = 30.0


@dataclass
class DecreasesFirst:
    """Who has still to lower meters for a plan before anybody raises any. Times are of one clock that never goes back.

    A switch whose connection is lost is waited for too, since it keeps what it has. The next plan
    counts with that, says so, and is then followed without it.
    """

    patience_s: float = PATIENCE_S
    bound_s: float = BOUND_S
    _version: int | None = None
    #: Every switch that was ever connected, but for those that were given up.
    _known: set[int] = field(default_factory=set)
    #: Since when each is waited for, through all plans.
    _pending: dict[int, float] = field(default_factory=dict)
    #: Those of them that were said to be late.
    _late: set[int] = field(default_factory=set)

    def connected(self, dpid: int) -> None:
        """A switch is there, perhaps again."""
        self._known.add(dpid)

    def begin(self, version: int, dpids: Collection[int], away: Collection[int], now: float) -> None:
        """A plan came for these switches; those ``away`` it takes to keep what they have."""
        waited = self._known.intersection(dpids).difference(away)
        self._version = version
        self._pending = {dpid: self._pending.get(dpid, now) for dpid in waited}
        self._late &= waited

    def lowered(self, dpid: int, version: int | None) -> bool:
        """A switch was seen to have lowered all that this plan lowers. True if it was the last."""
        self._known.add(dpid)
        if version != self._version or dpid not in self._pending:
            return False
        del self._pending[dpid]
        self._late.discard(dpid)
        return not self._pending

    def late(self, now: float) -> frozenset[int]:
        """The switches for which patience is at an end now; each is told once. They are waited for all the same."""
        late = {dpid for dpid, since in self._pending.items() if now - since >= self.patience_s} - self._late
        self._late |= late
        return frozenset(late)

    def give_up(self, now: float) -> frozenset[int]:
        """The switches that are waited for no longer, nor with later plans unless they come back; else none.

        Another process may speak for them now, or there is no new plan.
        """
        given_up = frozenset(dpid for dpid, since in self._pending.items() if now - since >= self.bound_s)
        for dpid in given_up:
            del self._pending[dpid]
        self._known -= given_up
        return given_up

    def may_raise(self, version: int | None) -> bool:
        """Whether meters may be raised for this plan."""
        return version != self._version or not self._pending
