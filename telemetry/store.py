"""What outlives a restart: samples, their one-minute roll-ups, and the planner's state.

The statements keep to what DuckDB files, PostgreSQL and DuckLake all take:
time is a BIGINT of epoch seconds, there are no keys or indexes, and "replace"
is a delete and an insert in one transaction. Where the data lives is the one
ATTACH behind ``encrypted.connect``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.encrypted import StoreError, connect, transaction
from telemetry.keys import StoreKey, StoreKeyError
from telemetry.ring import Window
from telemetry.rows import SampleRows

I32 = npt.NDArray[np.int32]

#: Seconds of a roll-up.
ROLLUP_S: Final = 60
#: Roll-ups this old are made once more, so that a late sample still counts.
LATE_S: Final = 120
#: No sample is looked for that covers more than twice this.
LONGEST_S: Final = 3600
#: Raised when a table changes shape.
_SCHEMA_VERSION: Final = b"1"

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS series (id INTEGER, name VARCHAR)",
    """CREATE TABLE IF NOT EXISTS samples (time BIGINT, series INTEGER, direction SMALLINT,
       rate_bps DOUBLE, interval_s DOUBLE, censored BOOLEAN)""",
    """CREATE TABLE IF NOT EXISTS rollups (time BIGINT, series INTEGER, direction SMALLINT,
       rate_bps DOUBLE, seen_s DOUBLE, censored BOOLEAN)""",
    "CREATE TABLE IF NOT EXISTS state (name VARCHAR, value BLOB, time BIGINT)",
)

# A sample tells of the seconds before its time, so it belongs where their middle lies.
_ROLL_UP: Final = """
    INSERT INTO rollups
    SELECT minute * $rollup_s, series, direction,
           SUM(rate_bps * interval_s) / SUM(interval_s), SUM(interval_s), MAX(CAST(censored AS INTEGER)) = 1
    FROM (SELECT CAST(FLOOR((time - interval_s / 2) / $rollup_s) AS BIGINT) AS minute,
                 series, direction, rate_bps, interval_s, censored
          FROM samples WHERE time >= $since) AS placed
    WHERE minute * $rollup_s >= $since AND minute * $rollup_s < $until
    GROUP BY minute, series, direction
"""

# Raw samples from a moment on, the roll-ups before it. The bounds on time alone follow from the
# others, but only they spare the engine from reading all that was ever measured.
_LOAD: Final = """
    SELECT step, col, SUM(rate_bps * weight_s) / SUM(weight_s) AS rate_bps,
           MAX(CAST(censored AS INTEGER)) = 1 AS censored
    FROM (SELECT CAST(FLOOR((time - interval_s / 2) / $step_s) AS BIGINT) AS step,
                 series, direction, rate_bps, interval_s AS weight_s, censored
          FROM samples WHERE time - interval_s / 2 >= $raw_since
          AND time >= $raw_since AND time < $raw_until
          UNION ALL
          SELECT CAST(FLOOR(time / $step_s) AS BIGINT), series, direction, rate_bps, seen_s, censored
          FROM rollups WHERE time >= $since AND time < $raw_since) AS placed
    JOIN wanted ON wanted.id = placed.series
    WHERE direction = $direction AND step >= $first AND step < $last
    GROUP BY step, col
"""


class Store:
    """The open store. Methods may be called from several threads, one works at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Takes over an attached connection; use ``Store.open``."""
        self._connection = connection
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._last_names: tuple[str, ...]
        self._last_ids: I32
        self._prepare()
        newest = self._value("SELECT MAX(time) FROM rollups")
        self._rolled_until: int | None = None if newest is None else newest + ROLLUP_S

    @classmethod
    def open(cls, path: Path, key: StoreKey | bytes | str | None) -> Store:
        """The store in the encrypted file at ``path``, made where there is none.

        Raises
        ------
        StoreKeyError : if the key is missing, malformed or not the file's;
            the file is left as it is.
        StoreBusyError : if another process owns the file.
        StoreError : if the file is no store, or of a newer version.
        """
        connection = connect(path, _as_key(key, path))
        problem: str
        try:
            return cls(connection)
        except (duckdb.Error, StoreError) as error:
            problem = str(error).split("\n", 1)[0]
        connection.close()
        raise StoreError(f"store {path} cannot be used: {problem}")

    def append(self, *batches: SampleRows) -> int:
        """Keep these samples, all or none; gives how many rows that were.

        Gaps (a rate of NaN) and rates or intervals that cannot be are left out.
        """
        if not batches:
            return 0
        with self._lock:
            try:
                with transaction(self._connection):
                    table = pa.concat_tables([self._arrow(rows) for rows in batches])
                    self._insert("INSERT INTO samples SELECT * FROM arriving", table)
            except BaseException:
                # Names that were new in this batch did not get into the file.
                self._read_ids()
                raise
            return int(table.num_rows)

    def load_window(
        self, since: float, until: float, step_s: int, names: Sequence[str], direction: int
    ) -> Window:
        """Demand of these series in the steps that lie whole in [since, until).

        Column i is ``names[i]``, all gaps if the name is unknown. Where raw
        samples have expired, or steps are whole minutes, the roll-ups answer; with
        steps shorter than a minute those leave gaps.

        Raises
        ------
        ValueError : if ``step_s`` is not a whole number >= 1.
        """
        if step_s < 1 or step_s != int(step_s):
            raise ValueError(f"step_s must be a whole number >= 1, got {step_s}")
        first, last = math.ceil(since / step_s), math.floor(until / step_s)
        shape = (max(last - first, 0), len(names))
        demand = np.full(shape, np.nan, dtype=np.float32)
        censored = np.zeros(shape, dtype=np.bool_)
        with self._lock:
            found = self._load(first, last, int(step_s), names, direction)
        at = (found["step"] - first, found["col"])
        demand[at] = found["rate_bps"]
        censored[at] = found["censored"]
        return Window(step_s, last * step_s, demand, censored)

    def roll_up(self, now: float) -> None:
        """Bring the one-minute roll-ups up to the last complete minute at ``now``."""
        until = math.floor(now / ROLLUP_S) * ROLLUP_S
        with self._lock, transaction(self._connection):
            oldest = self._value("SELECT MIN(time) FROM samples")
            if oldest is None:
                return
            since = math.floor(oldest / ROLLUP_S) * ROLLUP_S
            if self._rolled_until is None:
                # The first sample of all may tell of the minute before its own.
                since -= ROLLUP_S
            else:
                # From ``oldest`` on, as a minute whose raw samples have expired cannot be remade.
                since = max(since, min(self._rolled_until, until) - LATE_S)
            if since >= until:
                return
            span = {"since": since, "until": until}
            self._connection.execute("DELETE FROM rollups WHERE time >= $since AND time < $until", span)
            self._connection.execute(_ROLL_UP, {**span, "rollup_s": ROLLUP_S})
        self._rolled_until = until

    def expire(self, now: float, raw_hours: float, rollup_days: float) -> None:
        """Forget raw samples and roll-ups past their keep; raw ones only once rolled up."""
        raw_before = math.floor((now - raw_hours * 3600) / ROLLUP_S) * ROLLUP_S
        rolled_before = math.floor(now - rollup_days * 86400)
        with self._lock, transaction(self._connection):
            if self._rolled_until is not None:
                before = min(raw_before, self._rolled_until - LATE_S)
                self._connection.execute("DELETE FROM samples WHERE time < $before", {"before": before})
            self._connection.execute("DELETE FROM rollups WHERE time < $before", {"before": rolled_before})

    def put_state(self, name: str, value: bytes, now: float) -> None:
        """Remember ``value`` under ``name``, in place of what was there."""
        row = {"name": name, "value": value, "time": math.floor(now)}
        with self._lock, transaction(self._connection):
            self._connection.execute("DELETE FROM state WHERE name = $name", {"name": name})
            self._connection.execute("INSERT INTO state VALUES ($name, $value, $time)", row)

    def get_state(self, name: str) -> bytes | None:
        """What was last put under ``name``; None if nothing was."""
        with self._lock:
            return self._state(name)

    def drop_state(self, name: str) -> None:
        """Forget what is under ``name``, if anything is."""
        with self._lock:
            self._connection.execute("DELETE FROM state WHERE name = $name", {"name": name})

    def close(self) -> None:
        """Write everything to the file and let go of it. Closing twice is fine."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with transaction(self._connection):
            for statement in _TABLES:
                self._connection.execute(statement)
            version = self._state("schema_version")
            if version is None:
                self._connection.execute(
                    "INSERT INTO state VALUES ('schema_version', $version, 0)", {"version": _SCHEMA_VERSION}
                )
            elif version != _SCHEMA_VERSION:
                raise StoreError(
                    f"its tables have version {version!r}, this program knows {_SCHEMA_VERSION!r}"
                )
        self._read_ids()

    def _read_ids(self) -> None:
        self._last_names = ()
        self._last_ids = np.empty(0, np.int32)
        known = self._connection.execute("SELECT id, name FROM series").fetchall()
        self._ids = {name: number for number, name in known}

    def _state(self, name: str) -> bytes | None:
        value = self._value("SELECT value FROM state WHERE name = $name", {"name": name})
        return None if value is None else bytes(value)

    def _value(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        row = self._connection.execute(query, parameters or {}).fetchone()
        return None if row is None else row[0]

    def _insert(self, statement: str, table: Any) -> None:
        # Row by row would be a thousand times slower than reading Arrow's memory.
        self._connection.register("arriving", table)
        try:
            self._connection.execute(statement)
        finally:
            self._connection.unregister("arriving")

    def _arrow(self, rows: SampleRows) -> Any:
        rate, interval = rows.rate_bps, rows.interval_s
        kept = np.flatnonzero((rate >= 0) & np.isfinite(rate) & (interval > 0) & np.isfinite(interval))
        count = len(kept)
        return pa.table(
            {
                "time": np.full(count, math.floor(rows.time), np.int64),
                "series": self._series_ids(rows.names)[kept],
                "direction": np.full(count, rows.direction, np.int16),
                "rate_bps": rate[kept],
                "interval_s": interval[kept],
                "censored": pa.array(rows.censored[kept]),
            }
        )

    def _series_ids(self, names: tuple[str, ...]) -> I32:
        if names is self._last_names:
            return self._last_ids
        new = [name for name in dict.fromkeys(names) if name not in self._ids]
        if new:
            numbers = range(len(self._ids), len(self._ids) + len(new))
            table = pa.table({"id": pa.array(numbers, pa.int32()), "name": new})
            self._insert("INSERT INTO series SELECT * FROM arriving", table)
            self._ids.update(zip(new, numbers, strict=True))
        self._last_ids = np.fromiter((self._ids[name] for name in names), np.int32, len(names))
        self._last_names = names
        return self._last_ids

    def _load(
        self, first: int, last: int, step_s: int, names: Sequence[str], direction: int
    ) -> dict[str, npt.NDArray[Any]]:
        wanted = [(self._ids[name], column) for column, name in enumerate(names) if name in self._ids]
        pairs = np.array(wanted, dtype=np.int64).reshape(-1, 2)
        since = first * step_s
        raw_since = self._raw_since(since, last * step_s, step_s)
        self._connection.register("wanted", pa.table({"id": pairs[:, 0], "col": pairs[:, 1]}))
        try:
            span = {"since": since, "raw_since": raw_since, "first": first, "last": last}
            span["raw_until"] = last * step_s + LONGEST_S if raw_since < last * step_s else raw_since
            return self._connection.execute(
                _LOAD, {**span, "step_s": step_s, "direction": direction}
            ).fetchnumpy()
        finally:
            self._connection.unregister("wanted")

    def _raw_since(self, since: int, until: int, step_s: int) -> int:
        """Where in [since, until] the raw samples take over from the roll-ups."""
        if self._rolled_until is None:
            return since
        if step_s % ROLLUP_S == 0:
            # Whole minutes say the same in a twelfth of the rows.
            return min(max(since, self._rolled_until - LATE_S), until)
        oldest = self._value("SELECT MIN(time) FROM samples")
        if oldest is None:
            return until
        # Raw samples expire by whole minutes.
        return max(since, math.floor(float(oldest) / ROLLUP_S) * ROLLUP_S)


def _as_key(key: StoreKey | bytes | str | None, path: Path) -> StoreKey:
    if isinstance(key, StoreKey):
        return key
    if isinstance(key, bytes):
        return StoreKey(key)
    if isinstance(key, str):
        return StoreKey.parse(key, f"the key for store {path}")
    raise StoreKeyError(f"store {path} needs a key, got none")
