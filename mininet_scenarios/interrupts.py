"""Ctrl-C, SIGTERM and a closed terminal, turned into one exception that clean-up survives."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody asked the run to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.signum = signum


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    # Ignored from here on, so a second Ctrl-C reaches neither the clean-up nor
    # the commands that it runs (they inherit what is ignored).
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(signum)


@contextmanager
def raising() -> Iterator[None]:
    """Raise ``Interrupted`` at the first signal; let later ones pass unheard.

    Inside another ``raising``, and outside the main thread, it does nothing.
    """
    nested = signal.getsignal(signal.SIGTERM) is _interrupt
    if nested or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _interrupt) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold signals back while the block runs; they arrive when it is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
