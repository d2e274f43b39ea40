"""Which meter id each pool has on each switch: stable, and within what the switch can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Users that no id is left for share this meter, one for each direction.
SHARED: Final = ("shared:up", "shared:down")


@dataclass
class MeterIds:
    """Meter ids by switch and owner, from 1 on. An owner keeps its id while it is wanted.

    An id that came free is used again only when no other is left: for a moment
    packets may still go through the old owner's meter.
    """

    _ids: dict[int, dict[str, int]] = field(default_factory=dict)
    _next: dict[int, int] = field(default_factory=dict)

    def assign(
        self, dpid: int, first: Sequence[str], then: Sequence[tuple[str, int]], budget: int
    ) -> dict[str, int]:
        """Ids for the owners on one switch, at most ``budget``.

        Parameters
        ----------
        first : owners that must have a meter of their own (regions, then groups).
        then :  owners that may share, with their direction (users).

        Returns
        -------
        Ids by owner; owners that share have the id of ``SHARED`` of their
        direction. An owner of ``first`` that does not even fit is absent.
        """
        own = list(first[:budget])
        room = budget - len(own)
        if len(then) > room:
            directions = sorted({direction for _, direction in then})
            alone = max(0, room - len(directions))
            shared = [SHARED[d] for d in directions][:room]
        else:
            alone, shared = len(then), []
        own += [name for name, _ in then[:alone]] + shared
        ids = self._keep(dpid, own, budget)
        for name, direction in then[alone:]:
            if SHARED[direction] in ids:
                ids[name] = ids[SHARED[direction]]
        return ids

    def _keep(self, dpid: int, owners: list[str], budget: int) -> dict[str, int]:
        old = self._ids.get(dpid, {})
        ids = {name: old[name] for name in owners if name in old and old[name] <= budget}
        following = self._next.get(dpid, 1)
        taken = set(ids.values())
        # Of what was handed out before this call, so that nothing given below is given twice.
        freed = (number for number in range(1, min(following, budget + 1)) if number not in taken)
        for name in owners:
            if name in ids:
                continue
            if following <= budget:
                ids[name], following = following, following + 1
                continue
            ids[name] = next(freed)
        self._ids[dpid] = dict(ids)
        self._next[dpid] = following
        return ids

    def state(self) -> dict[str, Any]:
        """All of it, as JSON-able values."""
        return {f"{dpid:016x}": {"next": self._next[dpid], "ids": ids} for dpid, ids in self._ids.items()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> MeterIds:
        """What ``state`` was."""
        return cls(
            {int(dpid, 16): dict(entry["ids"]) for dpid, entry in state.items()},
            {int(dpid, 16): int(entry["next"]) for dpid, entry in state.items()},
        )
