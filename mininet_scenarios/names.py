"""A name server's worth of traffic: small UDP questions, somewhat larger answers.

Runs inside the hosts as a plain script, ``names.py serve PORT`` and
``names.py ask ADDRESS PORT INTERVAL_S``, with the standard library only.
"""

from __future__ import annotations

import itertools
import socket
import sys
import time

QUESTION_BYTES, ANSWER_BYTES = 48, 160


def serve(port: int) -> None:
    """Answer every question, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", port))
        while True:
            question, asker = server.recvfrom(2048)
            server.sendto(question[:8].ljust(ANSWER_BYTES, b"\0"), asker)


def ask(address: str, port: int, interval_s: float) -> None:
    """Ask again and again, for ever; an answer that does not come is not missed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(interval_s)
        for number in itertools.count():
            started = time.monotonic()
            try:
                asker.sendto(number.to_bytes(8, "big").ljust(QUESTION_BYTES, b"\0"), (address, port))
                asker.recv(2048)
            except OSError:
                # No answer, or no network for the moment: part of life.
                pass
            time.sleep(max(0.0, started + interval_s - time.monotonic()))


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    if arguments[:1] == ["serve"]:
        serve(int(arguments[1]))
    else:
        ask(arguments[1], int(arguments[2]), float(arguments[3]))


if __name__ == "__main__":
    main(sys.argv[1:])
