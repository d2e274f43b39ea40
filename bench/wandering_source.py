"""UDP whose rate rises and falls.

    python -m bench.wandering_source ADDRESS PORT MEAN_MBPS PERIOD_S PHASE

Runs until it is killed. The rate is MEAN x (1 + 0.9 sin), PHASE of 0 to 1 being where in its period it begins.
"""

from __future__ import annotations

import math
import socket
import sys
import time
from contextlib import suppress

from bench.enforce_traffic import UDP_HEADERS_BYTES

_PAYLOAD = bytes(1400)
_FRAME_BITS = (len(_PAYLOAD) + UDP_HEADERS_BYTES) * 8


def sent_by(elapsed_s: float, mean_bps: float, period_s: float, phase: float) -> float:
    """Bits of frames that are sent in the first seconds: the integral of the rate."""
    turn = 2 * math.pi
    swing = math.cos(turn * phase) - math.cos(turn * (phase + elapsed_s / period_s))
    return mean_bps * (elapsed_s + 0.9 * swing * period_s / turn)


def main(arguments: list[str]) -> None:
    """Send, for ever."""
    address, port = arguments[0], int(arguments[1])
    mean_bps, period_s, phase = float(arguments[2]) * 1e6, float(arguments[3]), float(arguments[4])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.connect((address, port))
        started, sent = time.monotonic(), 0
        while True:
            due = sent_by(time.monotonic() - started, mean_bps, period_s, phase)
            while (sent + 1) * _FRAME_BITS <= due:
                sent += 1
                # Nobody listens there; what arrives is counted by the interface.
                with suppress(ConnectionRefusedError):
                    source.send(_PAYLOAD)
            time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1:])
