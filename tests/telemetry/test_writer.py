"""The writer thread, over a store that can be made slow or broken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.rows import SampleRows, rows_of
from telemetry.store import Store
from telemetry.writer import StoreWriter


class FakeStore:
    """Remembers what it was told, in order; waits and fails on demand."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.rows: list[float] = []
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.failing: set[str] = set()

    def _enter(self, what: str) -> None:
        self.reached.set()
        assert self.open.wait(10)
        if what in self.failing:
            raise OSError(f"{what}: no space left on device")

    def append(self, *batches: SampleRows) -> int:
        self._enter("append")
        self.rows += [batch.time for batch in batches]
        self.told.append(("append", len(batches)))
        return sum(map(len, batches))

    def put_state(self, name: str, value: bytes, now: float) -> None:
        self._enter("put_state")
        self.told.append(("put_state", name, value, now))

    def roll_up(self, now: float) -> None:
        self._enter("roll_up")
        self.told.append(("roll_up", now))

    def expire(self, now: float, raw_hours: float, rollup_days: float) -> None:
        self._enter("expire")
        self.told.append(("expire", now, raw_hours, rollup_days))

    def close(self) -> None:
        self.told.append(("close",))


def batch(at: float, n: int = 2) -> SampleRows:
    return rows_of(at, 0, tuple(f"user-{i}" for i in range(n)), [1.0] * n, 5.0, False)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def blocked_writer(max_rows: int = 1000) -> tuple[FakeStore, StoreWriter]:
    """A writer whose thread is held inside a first write."""
    store = FakeStore()
    store.open.clear()
    writer = StoreWriter(store, max_rows)
    writer.submit(batch(0.0))
    assert store.reached.wait(10)
    return store, writer


def test_close_writes_what_waits_and_closes_the_store() -> None:
    """Nothing that was submitted is lost by an orderly end."""
    store, writer = blocked_writer()
    for at in (1.0, 2.0):
        writer.submit(batch(at))
    writer.put_state("overrides", b"x", 3.0)
    store.open.set()
    assert writer.close()
    assert store.rows == [0.0, 1.0, 2.0]
    assert store.told[-1] == ("close",)
    assert ("put_state", "overrides", b"x", 3.0) in store.told
    assert (writer.written_rows, writer.pending_rows, writer.dropped_rows, writer.errors) == (6, 0, 0, 0)
    assert not writer.alive


def test_batches_that_waited_go_in_one_transaction() -> None:
    """A slow disk is not made slower by many small writes."""
    store, writer = blocked_writer()
    for at in range(1, 6):
        writer.submit(batch(at))
    store.open.set()
    writer.close()
    assert [told for told in store.told if told[0] == "append"] == [("append", 1), ("append", 5)]


def test_a_full_queue_drops_the_oldest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The loop never waits, memory is bounded, and the loss is counted."""
    store, writer = blocked_writer(max_rows=4)
    with caplog.at_level(logging.WARNING):
        for at in (1.0, 2.0, 3.0):
            writer.submit(batch(at))
    assert writer.pending_rows == 4
    assert "queue full, 2 oldest rows dropped" in caplog.text
    store.open.set()
    writer.close()
    assert store.rows == [0.0, 2.0, 3.0]
    assert writer.dropped_rows == 2


def test_only_the_newest_state_of_a_name_is_written() -> None:
    """An older one is already wrong."""
    store, writer = blocked_writer()
    for value in (b"1", b"2", b"3"):
        writer.put_state("meter_ids", value, 5.0)
    store.open.set()
    writer.close()
    assert [told[2] for told in store.told if told[0] == "put_state"] == [b"3"]


def test_a_failed_write_is_counted_logged_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk costs samples; when there is room again, writing goes on."""
    store = FakeStore()
    store.failing = {"append", "put_state"}
    writer = StoreWriter(store)
    writer.put_state("overrides", b"x", 0.0)
    writer.submit(batch(1.0))
    until(lambda: writer.errors == 2)
    assert writer.faults == {
        "state overrides": "put_state: no space left on device",
        "rows": "append: no space left on device",
    }
    store.failing = set()
    writer.submit(batch(2.0))
    until(lambda: writer.written_rows == 2)
    # The state is not on the disk until its next value is.
    assert list(writer.faults) == ["state overrides"]
    writer.put_state("overrides", b"y", 1.0)
    assert writer.close()
    assert writer.faults == {}
    assert store.rows == [2.0]
    assert writer.written_rows == 2
    assert "2 rows not written" in caplog.text
    assert "Traceback" in caplog.text


def test_nothing_expires_that_was_not_rolled_up() -> None:
    """If the roll-up fails, expiry waits for the next time."""
    store = FakeStore()
    store.failing = {"roll_up"}
    writer = StoreWriter(store)
    writer.maintain(100.0, 48, 90)
    until(lambda: writer.errors == 1)
    store.failing = set()
    writer.maintain(200.0, 48, 90)
    writer.close()
    assert store.told == [("roll_up", 200.0), ("expire", 200.0, 48, 90), ("close",)]


def test_a_closed_writer_refuses_work() -> None:
    """Silence would look like success."""
    writer = StoreWriter(FakeStore())
    assert writer.close()
    assert writer.close()
    for late in (
        lambda: writer.submit(batch(1.0)),
        lambda: writer.put_state("a", b"", 0.0),
        lambda: writer.maintain(0.0, 1, 1),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            late()


def test_a_close_that_takes_too_long_gives_up_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A hung disk must not hang the end of the program."""
    store, writer = blocked_writer()
    writer.submit(batch(1.0))
    assert not writer.close(timeout_s=0.01)
    assert "2 rows still unwritten" in caplog.text
    store.open.set()
    assert writer.close()


def test_the_queue_needs_room() -> None:
    """At least one row."""
    with pytest.raises(ValueError, match="max_rows must be >= 1, got 0"):
        StoreWriter(FakeStore(), 0)


def test_the_real_store_can_be_written_from_the_thread(tmp_path: Path) -> None:
    """DuckDB's connection is used by the writer while another thread reads."""
    path = tmp_path / "t.duckdb"
    store = Store.open(path, bytes(32))
    writer = StoreWriter(store)
    for at in range(1, 61):
        writer.submit(batch(at))
        store.load_window(0, 60, 60, ["user-0"], 0)
    writer.put_state("overrides", b"\x00x", 60.0)
    writer.maintain(200.0, 1, 1)
    assert writer.close()
    assert writer.errors == 0
    again = Store.open(path, bytes(32))
    assert again.get_state("overrides") == b"\x00x"
    assert again.load_window(0, 60, 60, ["user-1"], 0).demand_bps.tolist() == [[1.0]]
    again.close()
