"""A wire between two interfaces that is as long as it should be, for kernels without netem.

    python -m bench.delay_line INTERFACE INTERFACE DELAY_MS

Every frame that one interface receives leaves by the other so much later, in order.
"""

from __future__ import annotations

import argparse
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
#: Linux's option that is not bound by the system's limit, for root; Python does not name it.
_SO_RCVBUFFORCE: Final = 33
#: Frames that wait in the kernel while this process does: 100 Mbit/s for a third of a second.
_BUFFER_BYTES: Final = 8 << 20
#: Frames taken from one side before the other has its turn.
_BATCH: Final = 64
_LONGEST_FRAME: Final = 65536


class Lane:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        self.source, self._sink, self._delay_s = source, sink, delay_s
        self._waiting: deque[tuple[float, bytes]] = deque()

    @property
    def next_due(self) -> float:
        """When the first frame is due; inf when none waits."""
        return self._waiting[0][0] if self._waiting else float("inf")

    def take(self) -> None:
        """Take in what has arrived."""
        due = time.monotonic() + self._delay_s
        with suppress(BlockingIOError):
            for _ in range(_BATCH):
                frame, sender = self.source.recvfrom(_LONGEST_FRAME)
                # What this process sent there itself is seen too.
                if sender[2] != _PACKET_OUTGOING:
                    self._waiting.append((due, frame))

    def pass_on(self, now: float) -> None:
        """Send what is due."""
        while self.next_due <= now:
            _, frame = self._waiting.popleft()
            # A wire does not know whether anybody listens at its end.
            with suppress(OSError):
                self._sink.send(frame)


def open_end(interface: str) -> socket.socket:
    """A socket that sees every frame of an interface."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    end.bind((interface, 0))
    end.setblocking(False)
    return end


def carry(a: str, b: str, delay_s: float) -> None:
    """Carry frames between two interfaces, for ever."""
    ends = open_end(a), open_end(b)
    lanes = (Lane(ends[0], ends[1], delay_s), Lane(ends[1], ends[0], delay_s))
    by_source = {lane.source: lane for lane in lanes}
    while True:
        next_due = min(lane.next_due for lane in lanes)
        timeout = None if next_due == float("inf") else max(0.0, next_due - time.monotonic())
        readable, _, _ = select.select(ends, (), (), timeout)
        for source in readable:
            by_source[source].take()
        now = time.monotonic()
        for lane in lanes:
            lane.pass_on(now)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.delay_line", description=__doc__)
    parser.add_argument("interfaces", nargs=2)
    parser.add_argument("delay_ms", type=float)
    options = parser.parse_args(arguments)
    a, b = options.interfaces
    carry(a, b, options.delay_ms / 1e3)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
