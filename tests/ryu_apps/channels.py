"""A control channel with faults, in simulated time.

A switch's thread runs here to its end without waiting for anything: where it would wait, time
jumps to the next event. Buffers meet a fate each, in both directions.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from ryu_apps import conversation, enforcer, switch
from ryu_apps.framework import hub
from tests.ryu_apps.benches import Bench
from tests.ryu_apps.fake_switch import split_messages


@dataclass
class Simulation:
    """Events in the order of their times; seconds from 0."""

    now: float = 0.0
    _events: list[tuple[float, int, Callable[[], Any]]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def at(self, time: float, act: Callable[[], Any]) -> None:
        """Do this then."""
        heapq.heappush(self._events, (time, next(self._count), act))

    def forget(self) -> None:
        """What is under way goes under."""
        self._events.clear()

    def pass_until(self, deadline: float, is_so: Callable[[], bool]) -> bool:
        """Let time pass until something is so, at most until the deadline."""
        while not is_so():
            if not self._events or self._events[0][0] > deadline:
                self.now = max(self.now, deadline)
                return is_so()
            time, _, act = heapq.heappop(self._events)
            self.now = max(self.now, time)
            act()
        return True

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the application's waiting and its clock this simulation's."""
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now)
        for module in (conversation, enforcer, switch):
            monkeypatch.setattr(module, "time", clock)
        waits = SimpleNamespace(Queue=lambda _: _Queue(self), QueueEmpty=hub.QueueEmpty)
        monkeypatch.setattr(conversation, "hub", waits)


@dataclass
class _Queue:
    simulation: Simulation
    items: list[Any] = field(default_factory=list)

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self, timeout: float) -> Any:
        if self.simulation.pass_until(self.simulation.now + timeout, lambda: bool(self.items)):
            return self.items.pop()
        raise hub.QueueEmpty


@dataclass
class Wake:
    """The event that a switch's thread sleeps on."""

    simulation: Simulation
    is_set: bool = False

    def set(self) -> None:
        self.is_set = True

    def clear(self) -> None:
        self.is_set = False

    def wait(self, timeout: float) -> None:
        self.simulation.pass_until(self.simulation.now + timeout, lambda: self.is_set)


@dataclass
class Channel:
    """What is between an application and its switch. Each buffer's fate is what ``fates`` says next.

    ``whole``; ``lost``; ``half`` of its messages; ``late`` by some seconds, with all after it
    behind it, as in TCP; ``overtaken``: late, and others pass it; ``deaf``: taken, its answers lost.
    """

    simulation: Simulation
    bench: Bench
    fates: Iterator[tuple[str, float]]
    broken_until: float = 0.0
    #: Nothing sent now arrives before this.
    _behind: float = 0.0

    def __post_init__(self) -> None:
        self.bench.fake.datapath.send = self.send
        self.bench.switch._wake = Wake(self.simulation)

    def send(self, raw: bytes) -> bool:
        """The application sends a buffer."""
        now, fake = self.simulation.now, self.bench.fake
        fate, delay = next(self.fates, ("whole", 0.0)) if now < self.broken_until else ("whole", 0.0)
        # Nothing under way arrives after the channel is whole.
        arrives = max(
            self._behind, min(now + delay, self.broken_until) if fate in {"late", "overtaken"} else now
        )
        if fate == "lost":
            return True
        if fate == "half":
            messages = split_messages(raw)
            raw = b"".join(messages[: len(messages) // 2])
        if fate != "overtaken":
            self._behind = arrives

        def arrive() -> None:
            fake.silent = fate == "deaf"
            fake.receive(raw)
            fake.silent = False

        if arrives <= now:
            arrive()
        else:
            self.simulation.at(arrives, arrive)
        return True
