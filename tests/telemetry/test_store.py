"""The store on real encrypted files: what it keeps, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.encrypted import StoreError
from telemetry.ring import SeriesRing
from telemetry.rows import SampleRows, rows_of
from telemetry.samples import DOWN, UP
from telemetry.store import Store

KEY = bytes(range(32))
NAN = math.nan


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "t.duckdb", KEY)
    yield opened
    opened.close()


def polls(store: Store, times: range, rate_bps: float, *names: str, interval_s: float = 5.0) -> None:
    for time in times:
        store.append(rows_of(time, UP, names, [rate_bps] * len(names), interval_s, False))


def test_samples_come_back_as_steps(store: Store) -> None:
    """Means by the second, columns in the order asked for, unknown names all gaps."""
    store.append(rows_of(30, UP, ["a", "b"], [100.0, 8.0], [10.0, 5.0], [False, True]))
    store.append(rows_of(40, UP, ["a"], [400.0], [5.0], [False]))
    window = store.load_window(0, 120, 60, ["b", "nobody", "a"], UP)
    np.testing.assert_array_equal(window.demand_bps, [[8.0, NAN, 200.0], [NAN, NAN, NAN]])
    np.testing.assert_array_equal(window.censored, [[True, False, False], [False] * 3])
    assert (window.step_s, window.end_time) == (60, 120)


def test_directions_are_separate_series(store: Store) -> None:
    """What a user sends says nothing of what it receives."""
    store.append(
        rows_of(30, UP, ["a"], [1.0], 5.0, False),
        rows_of(30, DOWN, ["a"], [2.0], 5.0, True),
    )
    up, down = (store.load_window(0, 60, 60, ["a"], direction) for direction in (UP, DOWN))
    assert (up.demand_bps.item(), up.censored.item()) == (1.0, False)
    assert (down.demand_bps.item(), down.censored.item()) == (2.0, True)


def test_missing_is_not_stored_as_zero(store: Store) -> None:
    """Gaps and impossible rates leave no row; a true zero does."""
    rates = [NAN, math.inf, -1.0, 0.0, 5.0, 5.0]
    kept = store.append(rows_of(30, UP, list("abcdef"), rates, [5.0] * 5 + [NAN], False))
    assert kept == 2
    window = store.load_window(0, 60, 60, list("abcdef"), UP)
    np.testing.assert_array_equal(window.demand_bps, [[NAN, NAN, NAN, 0.0, 5.0, NAN]])


def test_only_whole_steps_are_given(store: Store) -> None:
    """A step that began before ``since`` or goes on at ``until`` would be told in part."""
    polls(store, range(5, 300, 5), 7.0, "a")
    window = store.load_window(30, 299, 60, ["a"], UP)
    assert window.demand_bps.shape == (3, 1)
    assert window.end_time == 240
    assert store.load_window(30, 50, 60, ["a"], UP).demand_bps.shape == (0, 1)


def test_appending_nothing_is_fine(store: Store) -> None:
    """A quiet network writes nothing."""
    assert store.append() == 0
    assert store.append(rows_of(1, UP, (), [], 5.0, False)) == 0
    assert store.append(rows_of(1, UP, ("a",), [NAN], 5.0, False)) == 0


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_ring_refilled_from_the_store_is_the_ring(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A restart changes no complete step, roll-ups or not, expired or not."""
    names, now = ("a", "b", "c"), 1_700_000_040
    rate = st.one_of(st.just(NAN), st.floats(0, 1e10))
    ring, refilled = SeriesRing(60, 10, 3), SeriesRing(60, 10, 3)
    store = Store.open(tmp_path_factory.mktemp("refill") / "t.duckdb", KEY)
    for time in range(now - 600, now + 1, 20):
        rates = data.draw(st.lists(rate, min_size=3, max_size=3))
        flags = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))
        ring.add(time, [0, 1, 2], rates, 20.0, flags, now=time)
        store.append(rows_of(time, UP, names, rates, 20.0, flags))
        if data.draw(st.sampled_from([True] + [False] * 9)):
            store.roll_up(time)
            store.expire(time, raw_hours=data.draw(st.sampled_from([0, 0.05])), rollup_days=1)
    refilled.restore(store.load_window(now - 600, now, 60, names, UP))
    one, other = ring.view(now), refilled.view(now)
    # The store's clock is whole seconds and a sample belongs to one minute, so polls here keep the minute.
    np.testing.assert_allclose(other.demand_bps, one.demand_bps, rtol=1e-6)
    np.testing.assert_array_equal(other.censored, one.censored)
    store.close()


def test_roll_ups_answer_when_raw_samples_have_expired(store: Store) -> None:
    """An hour kept raw and a day rolled up still give the whole morning."""
    polls(store, range(5, 3601, 5), 7.0, "a", "b")
    before = store.load_window(0, 3600, 60, ["a", "b"], UP)
    store.roll_up(3600)
    store.expire(3600, raw_hours=0.5, rollup_days=1)
    after = store.load_window(0, 3600, 60, ["a", "b"], UP)
    np.testing.assert_array_equal(after.demand_bps, before.demand_bps)
    # A minute says nothing of its second half alone.
    halves = store.load_window(0, 1200, 30, ["a"], UP).demand_bps[:, 0]
    np.testing.assert_array_equal(halves, [7.0, NAN] * 20)


def test_rolling_up_twice_changes_nothing(store: Store) -> None:
    """A minute is replaced, not added to."""
    polls(store, range(5, 601, 5), 7.0, "a")
    for _ in range(3):
        store.roll_up(600)
    rows = store._connection.execute(
        "SELECT time, rate_bps, seen_s, censored FROM rollups ORDER BY time"
    ).fetchall()
    assert rows == [(minute * 60, 7.0, 60.0, False) for minute in range(10)]


def test_a_late_sample_still_counts_in_its_roll_up(store: Store) -> None:
    """For two minutes; a switch may answer late."""
    polls(store, range(5, 601, 5), 10.0, "a")
    store.roll_up(600)
    store.append(rows_of(570, UP, ["a"], [130.0], 5.0, True))
    store.roll_up(660)
    query = "SELECT rate_bps, censored FROM rollups WHERE time = 540"
    assert store._connection.execute(query).fetchall() == [(pytest.approx((12 * 10 + 130) / 13), True)]


def test_raw_samples_wait_for_their_roll_up(store: Store) -> None:
    """Expiry without a roll-up before it deletes nothing raw."""
    polls(store, range(5, 121, 5), 7.0, "a")
    store.expire(10 * 86400, raw_hours=1, rollup_days=1)
    assert store.load_window(0, 120, 60, ["a"], UP).demand_bps[:, 0].tolist() == [7.0, 7.0]


def test_roll_ups_expire_in_their_turn(store: Store) -> None:
    """In the end all is forgotten, and what is gone is a gap."""
    polls(store, range(5, 601, 5), 7.0, "a")
    store.roll_up(86400)
    store.expire(10 * 86400, raw_hours=1, rollup_days=1)
    assert np.isnan(store.load_window(0, 600, 60, ["a"], UP).demand_bps).all()


def test_nothing_to_roll_up_is_fine(store: Store) -> None:
    """An empty store, a minute not over, a clock set back."""
    store.roll_up(600)
    polls(store, range(605, 901, 5), 7.0, "a")
    store.roll_up(601)
    store.roll_up(900)
    store.roll_up(300)
    assert store._connection.execute("SELECT COUNT(*) FROM rollups").fetchall() == [(5,)]


def test_a_roll_up_under_a_leaping_clock_does_not_stop_the_next(store: Store) -> None:
    """An hour of wrong time must not cost an hour of roll-ups."""
    polls(store, range(5, 301, 5), 7.0, "a")
    store.roll_up(1e9)
    polls(store, range(305, 361, 5), 9.0, "a")
    store.roll_up(360)
    assert store._connection.execute("SELECT MAX(time) FROM rollups").fetchall() == [(300,)]


def test_state_survives_a_restart(tmp_path: Path) -> None:
    """Overrides and meter ids are there again, the newest value of each, to the byte."""
    path = tmp_path / "t.duckdb"
    store = Store.open(path, KEY)
    for value in (b"old", bytes(range(256)) * 4000):
        store.put_state("model", value, 1.5)
    store.put_state("empty", b"", 2.0)
    store.put_state("gone", b"x", 2.0)
    store.drop_state("gone")
    polls(store, range(5, 61, 5), 7.0, "a", "b")
    store.close()
    store.close()
    again = Store.open(path, KEY)
    assert again.get_state("model") == bytes(range(256)) * 4000
    assert again.get_state("empty") == b""
    assert again.get_state("gone") is None
    again.append(rows_of(90, UP, ["b", "new"], [1.0, 2.0], 5.0, False))
    window = again.load_window(0, 120, 60, ["a", "b", "new"], UP)
    np.testing.assert_array_equal(window.demand_bps, [[7.0, 7.0, NAN], [NAN, 1.0, 2.0]])
    again.close()


def test_a_failed_append_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first half of it, and not the names that it brought."""
    insert = store._insert

    def full_disk(statement: str, table: object) -> None:
        if "samples" in statement:
            raise duckdb.IOException("no space left on device")
        insert(statement, table)

    rows = rows_of(30, UP, ("a",), [5.0], 5.0, False)
    monkeypatch.setattr(store, "_insert", full_disk)
    with pytest.raises(duckdb.IOException):
        store.append(rows)
    monkeypatch.undo()
    assert store._connection.execute("SELECT * FROM series").fetchall() == []
    store.append(rows)
    assert store.load_window(0, 60, 60, ["a"], UP).demand_bps.item() == 5.0


def test_a_newer_version_of_the_tables_is_refused(tmp_path: Path) -> None:
    """Better no store than one misread."""
    path = tmp_path / "t.duckdb"
    store = Store.open(path, KEY)
    store.put_state("schema_version", b"2", 0)
    store.close()
    with pytest.raises(StoreError, match=r"t\.duckdb cannot be used: its tables have version b'2'"):
        Store.open(path, KEY)


@pytest.mark.parametrize("step_s", [0, -60, 0.5])
def test_a_step_is_whole_seconds(store: Store, step_s: float) -> None:
    """Times in the store are."""
    with pytest.raises(ValueError, match="step_s must be a whole number >= 1"):
        store.load_window(0, 60, step_s, ["a"], UP)  # type: ignore[arg-type]


def test_rows_check_themselves() -> None:
    """A wrong shape or time is the caller's mistake, told at once."""
    with pytest.raises(ValueError, match=r"columns must have shape \(2,\) like names"):
        rows_of(1, UP, ["a", "b"], [1.0], 5.0, False)
    with pytest.raises(ValueError, match="time must be finite, got nan"):
        SampleRows(NAN, UP, (), *(np.empty(0),) * 2, np.empty(0, np.bool_))
    assert len(rows_of(1, UP, ["a", "b"], [1.0, 2.0], 5.0, False)) == 2


@pytest.mark.parametrize("rolled_at", [None, 900, 1500, 1800])
def test_steps_of_whole_minutes_are_the_same_from_roll_ups(store: Store, rolled_at: int | None) -> None:
    """However far roll-ups have come: what they say and what the raw samples say is one thing."""
    for time in range(20, 1801, 20):
        store.append(rows_of(time, UP, ["a", "b"], [float(time), 5.0], 20.0, [time == 1500, False]))
        if time == rolled_at:
            store.roll_up(time)
    window = store.load_window(0, 1800, 900, ["b", "a"], UP)
    np.testing.assert_allclose(window.demand_bps, [[5.0, 460.0], [5.0, 1360.0]])
    np.testing.assert_array_equal(window.censored, [[False, False], [False, True]])


def test_long_samples_are_found_by_their_middle(store: Store) -> None:
    """A poll of half an hour tells of the quarter in which its middle lies, though it ended after."""
    store.append(rows_of(2000, UP, ["a"], [8.0], 1800.0, False))
    window = store.load_window(900, 1800, 900, ["a"], UP)
    assert window.demand_bps.tolist() == [[8.0]]
