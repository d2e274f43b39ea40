"""A control channel with faults: slow, out of order, losing messages, stalled, cut."""

from __future__ import annotations

import queue
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

from tests.e2e.intermediary import Intermediary

_HEADER_BYTES = 8
_TYPE_BARRIER_REQUEST = 20
#: Flow-mods, meter-mods, barriers, statistics and their replies: what tables and meters hang on.
_LOSABLE = frozenset({14, 18, 19, 20, 21, 29})
#: When a message arrived, and the message; None: no more.
_Queue = queue.Queue[tuple[float, bytes] | None]
_RESET = struct.pack("ii", 1, 0)


class Fault(Enum):
    """What is wrong with the channel."""

    NOTHING = auto()
    #: Each message is under way for up to 0.3 s, and overtakes none.
    DELAYED = auto()
    #: What comes between two barriers arrives in any order, as a switch may treat it anyway.
    REORDERED = auto()
    #: Each tenth message that matters is lost, either way.
    LOSSY = auto()
    #: Nothing passes until it is over, then everything at once.
    STALLED = auto()
    #: Connections are reset again and again.
    CUT = auto()


class BadChannel(Intermediary):
    """Passes OpenFlow on with the fault of the moment."""

    def __init__(self, listener: socket.socket, controller_port: int) -> None:
        self.fault = Fault.NOTHING
        self.n_meddled = 0
        self._random = random.Random(7)
        super().__init__(listener, controller_port)

    @contextmanager
    def having(self, fault: Fault) -> Iterator[None]:
        """The fault is there while the block runs."""
        self.fault = fault
        ended = threading.Event()
        cutter = threading.Thread(target=self._cut_again_and_again, args=(ended,), daemon=True)
        if fault is Fault.CUT:
            cutter.start()
        try:
            yield
        finally:
            self.fault = Fault.NOTHING
            ended.set()
            if cutter.ident is not None:
                cutter.join()

    def _cut_again_and_again(self, ended: threading.Event) -> None:
        while not ended.wait(1.5):
            connections, self._sockets[1:] = self._sockets[1:], []
            for each in connections:
                self.n_meddled += 1
                with suppress(OSError):
                    # A reset and not an orderly end: what is under way is lost.
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _pass(self, source: socket.socket, sink: socket.socket, lossy: bool) -> None:
        waiting: _Queue = queue.Queue()
        threading.Thread(target=self._deliver, args=(waiting, sink, not lossy), daemon=True).start()
        with suppress(OSError, ValueError), source.makefile("rb") as stream:
            while len(header := stream.read(_HEADER_BYTES)) == _HEADER_BYTES:
                body = stream.read(int.from_bytes(header[2:4], "big") - _HEADER_BYTES)
                waiting.put((time.monotonic(), header + body))
        waiting.put(None)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _deliver(self, waiting: _Queue, sink: socket.socket, to_switch: bool) -> None:
        with suppress(OSError):
            while (arrived := waiting.get()) is not None:
                for message in self._meddled(*arrived, waiting, to_switch):
                    sink.sendall(message)

    def _meddled(self, arrived_at: float, message: bytes, waiting: _Queue, to_switch: bool) -> list[bytes]:
        """What is sent on in place of a message, when it is time."""
        if self.fault is Fault.DELAYED:
            self.n_meddled += 1
            time.sleep(max(0.0, arrived_at + self._random.uniform(0, 0.3) - time.monotonic()))
        elif self.fault is Fault.LOSSY and message[1] in _LOSABLE and self._random.random() < 0.1:
            self.n_meddled += 1
            return []
        elif self.fault is Fault.REORDERED and to_switch:
            return self._shuffled(message, waiting)
        while self.fault is Fault.STALLED:
            self.n_meddled += 1
            time.sleep(0.05)
        return [message]

    def _shuffled(self, message: bytes, waiting: _Queue) -> list[bytes]:
        """The messages up to the next barrier, as far as they are here soon, in any order."""
        batch = [message]
        with suppress(queue.Empty):
            while batch[-1][1] != _TYPE_BARRIER_REQUEST:
                following = waiting.get(timeout=0.02)
                if following is None:
                    waiting.put(None)
                    break
                batch.append(following[1])
        barrier = [batch.pop()] if batch[-1][1] == _TYPE_BARRIER_REQUEST else []
        self.n_meddled += len(batch) > 1
        self._random.shuffle(batch)
        return batch + barrier


@contextmanager
def bad_channel(controller_port: int) -> Iterator[BadChannel]:
    """A channel to the controller at this port, without a fault for now, on a port of its own."""
    channel = BadChannel(socket.create_server(("127.0.0.1", 0)), controller_port)
    try:
        yield channel
    finally:
        channel.close()
