"""What changed in the network, as a bounded stream of numbered events.

Something that flaps is told once, and once more when it has been steady: the
stream stays readable, and other events stay in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from topology.damping import DampingRules, FlapDamping

What = Literal["switch", "link", "port", "user"]
Change = Literal["up", "down", "flapping", "steady", "moved"]
Thing = tuple[What, str]


@dataclass(frozen=True, slots=True)
class TopologyEvent:
    """One change. Ids rise by one; ``name`` is a dpid, a port (dpid/port_no), a link (port-port) or a user."""

    id: int
    time: float
    what: What
    name: str
    change: Change
    detail: str = ""


class TopologyLog:
    """The latest ``keep`` events."""

    def __init__(self, keep: int = 1000, rules: DampingRules | None = None) -> None:
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        self._events: deque[TopologyEvent] = deque(maxlen=keep)
        self._damping: FlapDamping[Thing] = FlapDamping(rules)
        self._up: frozenset[Thing] = frozenset()
        self._ports: set[Thing] = set()
        self._places: Mapping[str, str] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many events are kept."""
        return len(self._events)

    @property
    def last(self) -> int:
        """Id of the newest event ever; 0 before the first."""
        return self._last

    @property
    def waits(self) -> bool:
        """Whether something flaps, so that time alone may bring an event."""
        return bool(self._damping.held)

    def since(self, after: int = 0) -> tuple[tuple[TopologyEvent, ...], bool]:
        """The events with greater ids, oldest first, and whether none in between was forgotten.

        An id that was never given, as after a restart, is taken for 0.
        """
        after = after if 0 <= after <= self._last else 0
        kept = tuple(event for event in self._events if event.id > after)
        return kept, self._last - after == len(kept)

    def observe(self, up: Collection[Thing], places: Mapping[str, str], now: float) -> None:
        """Note what is up and where users are; call at every change, and now and then for what became steady.

        A user's first place, and its last, are no event: thousands come and go each morning. Nor is it
        that a port is up when it is first seen: a switch that connects brings fifty.
        """
        seen, held_before = frozenset(up), self._damping.held
        self._damping.observe(seen, now)
        held = self._damping.held
        self._tell(held - held_before, "flapping", now)
        # What is held is not told of; what is let go is told as it then is.
        ports = {thing for thing in seen if thing[0] == "port"}
        self._tell((seen - self._up) - held - held_before - (ports - self._ports), "up", now)
        self._ports |= ports
        self._tell((self._up - seen) - held - held_before, "down", now)
        for thing in sorted(held_before - held):
            self._add(now, thing, "steady", "up" if thing in seen else "down")
        self._up = seen
        for user, place in places.items():
            before = self._places.get(user, place)
            if before != place:
                self._add(now, ("user", user), "moved", f"{before} -> {place}")
        self._places = dict(places)

    def _tell(self, things: Iterable[Thing], change: Change, now: float) -> None:
        for thing in sorted(things):
            self._add(now, thing, change)

    def _add(self, now: float, thing: Thing, change: Change, detail: str = "") -> None:
        self._last += 1
        self._events.append(TopologyEvent(self._last, now, *thing, change, detail))
