"""Writes to the store in a thread of its own, so that no tick waits for a disk.

What arrives faster than the disk takes it waits in a bounded queue. When that
is full the oldest samples give way, counted and logged: the planner's window
does not need them, and the newest are worth more. State is never dropped,
only replaced by a newer value of the same name.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from telemetry.rows import SampleRows

_log = logging.getLogger(__name__)

#: Rows joined into one transaction; beyond, the gain is small and the wait for a read long.
_ROWS_PER_WRITE: Final = 200_000
#: Characters kept of an error.
_FAULT: Final = 200


class Sink(Protocol):
    """The part of ``Store`` that the writer uses."""

    def append(self, *batches: SampleRows) -> int:
        """See ``Store.append``."""

    def put_state(self, name: str, value: bytes, now: float) -> None:
        """See ``Store.put_state``."""

    def roll_up(self, now: float) -> None:
        """See ``Store.roll_up``."""

    def expire(self, now: float, raw_hours: float, rollup_days: float) -> None:
        """See ``Store.expire``."""

    def close(self) -> None:
        """See ``Store.close``."""


@dataclass(frozen=True)
class _Upkeep:
    now: float
    raw_hours: float
    rollup_days: float


class StoreWriter:
    """The one thread that writes; closes the store when it is closed itself.

    Parameters
    ----------
    store :      What to write to.
    max_rows :   Rows that may wait, >= 1; a single batch above it waits all the same.
    """

    def __init__(self, store: Sink, max_rows: int = 2_000_000) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be >= 1, got {max_rows}")
        self._store = store
        self._max_rows = max_rows
        self._changed = threading.Condition()
        self._waiting: deque[SampleRows] = deque()
        self._states: dict[str, tuple[bytes, float]] = {}
        self._upkeep: _Upkeep | None = None
        self._closing = False
        #: Rows now in the queue.
        self.pending_rows = 0
        #: Rows that reached the store.
        self.written_rows = 0
        #: Rows that gave way to newer ones in a full queue.
        self.dropped_rows = 0
        #: Writes that failed; the rows of a failed write are lost.
        self.errors = 0
        #: What is not written now, by kind (rows, state NAME, roll-up, ...), with its error; gone once it is.
        self.faults: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works; false only after ``close``."""
        return self._thread.is_alive()

    def submit(self, rows: SampleRows) -> None:
        """Queue samples; returns at once, also when the disk does not keep up.

        Raises
        ------
        RuntimeError : after ``close``.
        """
        dropped = 0
        with self._changed:
            self._refuse_closed()
            while self._waiting and self.pending_rows + len(rows) > self._max_rows:
                oldest = len(self._waiting.popleft())
                self.pending_rows -= oldest
                dropped += oldest
            self._waiting.append(rows)
            self.pending_rows += len(rows)
            self.dropped_rows += dropped
            self._changed.notify_all()
        if dropped:
            _log.warning("store writer: queue full, %d oldest rows dropped", dropped)

    def put_state(self, name: str, value: bytes, now: float) -> None:
        """Queue a piece of the planner's state; see ``Store.put_state``."""
        with self._changed:
            self._refuse_closed()
            self._states[name] = (value, now)
            self._changed.notify_all()

    def maintain(self, now: float, raw_hours: float, rollup_days: float) -> None:
        """Queue the roll-ups and expiry that are due at ``now``."""
        with self._changed:
            self._refuse_closed()
            self._upkeep = _Upkeep(now, raw_hours, rollup_days)
            self._changed.notify_all()

    def close(self, timeout_s: float = 30.0) -> bool:
        """Write what waits, then close the store; true if all was done in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.error("store writer: %d rows still unwritten after %.0f s", self.pending_rows, timeout_s)
        return not self._thread.is_alive()

    def _refuse_closed(self) -> None:
        if self._closing:
            raise RuntimeError("the store writer is closed")

    def _run(self) -> None:
        while self._await_work():
            self._write_states()
            self._write_rows()
            self._do_upkeep()
        self._attempt("close", self._store.close)

    def _await_work(self) -> bool:
        """Blocks until there is work; false when there is none left and there will be none."""
        with self._changed:
            while not (self._waiting or self._states or self._upkeep or self._closing):
                self._changed.wait()
            return bool(self._waiting or self._states or self._upkeep)

    def _write_states(self) -> None:
        with self._changed:
            states, self._states = self._states, {}
        for name, (value, now) in states.items():
            self._attempt(f"state {name}", partial(self._store.put_state, name, value, now))

    def _write_rows(self) -> None:
        batches: list[SampleRows] = []
        rows = 0
        with self._changed:
            while self._waiting and rows < _ROWS_PER_WRITE:
                batches.append(self._waiting.popleft())
                rows += len(batches[-1])
            self.pending_rows -= rows
        if batches and self._attempt("rows", lambda: self._store.append(*batches), f"{rows} rows"):
            self.written_rows += rows

    def _do_upkeep(self) -> None:
        with self._changed:
            due, self._upkeep = self._upkeep, None
        if due is None:
            return
        # Expiry trusts that what it deletes has been rolled up.
        if self._attempt("roll-up", lambda: self._store.roll_up(due.now)):
            self._attempt("expiry", lambda: self._store.expire(due.now, due.raw_hours, due.rollup_days))

    def _attempt(self, kind: str, write: Callable[[], object], what: str = "") -> bool:
        """Whether the write worked; a failure is logged, counted and kept, and the thread goes on."""
        try:
            write()
        except Exception as error:  # noqa: BLE001 - a dead writer would look like a quiet network
            self.errors += 1
            # Replaced as a whole: others read it without a lock.
            self.faults = {
                **self.faults,
                kind: (str(error).splitlines() or [type(error).__name__])[0][:_FAULT],
            }
            _log.exception("store writer: %s not written", what or kind)
            return False
        if kind in self.faults:
            self.faults = {name: fault for name, fault in self.faults.items() if name != kind}
            _log.info("store writer: %s written again", kind)
        return True
