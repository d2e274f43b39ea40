"""The store's file on its own, without a planner: what is in it, and copies of it.

Everything opens the file as a planner would, and so only one that no planner holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from telemetry.encrypted import StoreError, connect
from telemetry.keys import StoreKey

#: The tables of measurements, and how their column of seconds is called.
MEASURED: Final = {"samples": "interval_s", "rollups": "seen_s"}
BATCH_ROWS: Final = 100_000
#: Told how much was done and how much there is to do.
Progress = Callable[[int, int], None]

_NAMED_ROWS: Final = """
    SELECT measured.time, series.name AS series,
           CASE measured.direction WHEN 0 THEN 'up' ELSE 'down' END AS direction,
           measured.rate_bps, measured.{seconds}, measured.censored
    FROM {table} AS measured JOIN series ON series.id = measured.series
    WHERE measured.time >= $since AND measured.time < $until
    ORDER BY measured.time
"""


@dataclass(frozen=True)
class TableFacts:
    """One table of measurements; times are epoch seconds, None where there are no rows."""

    rows: int
    oldest: int | None
    newest: int | None
    #: Rows of the last hour that it has, per hour.
    rows_per_hour: float | None


@dataclass(frozen=True)
class Facts:
    """What is in a store."""

    path: Path
    size_bytes: int
    wal_bytes: int
    #: Of the file: what ``compact`` could give back, at least.
    free_bytes: int
    series: int
    tables: dict[str, TableFacts]
    #: Bytes that the planner keeps for its successor, by name.
    state: dict[str, int]


@contextmanager
def opened(path: Path, key: StoreKey) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a store that is there and has its tables.

    Raises
    ------
    StoreKeyError, StoreBusyError, StoreError : as ``connect`` does, and if there is no such file.
    """
    if not path.is_file():
        raise StoreError(f"store {path} does not exist: name another with --config or --file")
    # The engine's log of changes gets no mode of its own.
    mask = os.umask(0o077)
    try:
        connection = connect(path, key)
    except BaseException:
        os.umask(mask)
        raise
    try:
        missing = {"series", "state", *MEASURED} - set(tables(connection))
        if missing:
            raise StoreError(f"store {path} has no table {', '.join(sorted(missing))}: it is not a planner's")
        yield connection
    except duckdb.Error as error:
        fault = str(error).splitlines()[0]
        raise StoreError(f"store {path} cannot be read: {fault}") from None
    finally:
        connection.close()
        os.umask(mask)


def facts(path: Path, key: StoreKey) -> Facts:
    """What is in a store. Raises as ``opened``."""
    wal = path.with_name(f"{path.name}.wal")
    size, wal_bytes = path.stat().st_size if path.is_file() else 0, wal.stat().st_size if wal.exists() else 0
    with opened(path, key) as connection:
        (free,) = row(
            connection,
            "SELECT COALESCE(MAX(free_blocks * block_size), 0) FROM pragma_database_size() "
            "WHERE database_name = current_database()",
        )
        (series,) = row(connection, "SELECT COUNT(*) FROM series")
        state = connection.execute("SELECT name, OCTET_LENGTH(value) FROM state ORDER BY name").fetchall()
        measured = {table: _table_facts(connection, table) for table in MEASURED}
    return Facts(path, size, wal_bytes, int(free), series, measured, {name: int(n) for name, n in state})


def _table_facts(connection: duckdb.DuckDBPyConnection, table: str) -> TableFacts:
    # The names are of MEASURED; none comes from outside.
    rows, oldest, newest = row(connection, f"SELECT COUNT(*), MIN(time), MAX(time) FROM {table}")  # noqa: S608
    if not rows:
        return TableFacts(0, None, None, None)
    recent, first = row(
        connection,
        f"SELECT COUNT(*), MIN(time) FROM {table} WHERE time > $since",  # noqa: S608
        {"since": newest - 3600},
    )
    return TableFacts(rows, oldest, newest, recent * 3600 / (newest - first) if newest > first else None)


def export(
    path: Path,
    key: StoreKey,
    table: str,
    span: tuple[int, int],
    target: Path,
    form: str,
    progress: Progress,
) -> int:
    """Write a table's rows of [since, until) into ``target``, as parquet or csv; gives their number.

    The file is its owner's alone and appears when it is whole. It is not encrypted.

    Raises
    ------
    StoreKeyError, StoreError : as ``opened``.
    OSError : if the file cannot be written.
    """
    bounds = {"since": span[0], "until": span[1]}
    query = _NAMED_ROWS.format(table=table, seconds=MEASURED[table])
    draft = target.with_name(f"{target.name}.{os.getpid()}.new")
    with opened(path, key) as connection:
        (total,) = row(
            connection,
            f"SELECT COUNT(*) FROM {table} WHERE time >= $since AND time < $until",  # noqa: S608
            bounds,
        )
        try:
            # Made first, so that it never was anybody else's.
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            done = 0
            reader = connection.execute(query, bounds).to_arrow_reader(BATCH_ROWS)
            with _writer(draft, form, reader.schema) as writer:
                for batch in reader:
                    writer.write(batch)
                    done += batch.num_rows
                    progress(done, total)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    return done


def _writer(file: Path, form: str, schema: pa.Schema) -> Any:
    if form == "csv":
        return pa_csv.CSVWriter(file, schema)
    return pa_parquet.ParquetWriter(file, schema, compression="zstd")


def compact(path: Path, key: StoreKey, progress: Progress) -> tuple[int, int]:
    """Write a store anew without the room that deleted rows left; gives its size before and after, in bytes.

    The new file is built aside, compared, and put in place of the old one, which no planner can take meanwhile.
    Whatever goes wrong, the old one stays.

    Raises
    ------
    StoreKeyError, StoreBusyError, StoreError : as ``opened``, and if there is no room or the copy differs.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.compact")
    try:
        with opened(path, key) as source:
            # What waits in the log belongs into the file that is copied and measured.
            source.execute("CHECKPOINT")
            before = path.stat().st_size
            counts = {table: row(source, f'SELECT COUNT(*) FROM "{table}"')[0] for table in tables(source)}  # noqa: S608
            _rebuild(source, draft, key, counts, progress)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            old = path.stat()
            draft.chmod(old.st_mode & 0o777)
            os.chown(draft, old.st_uid, old.st_gid)
            after = draft.stat().st_size
            # While the old file is still locked: a planner that starts now finds one or the other.
            draft.replace(path)
    except (duckdb.Error, OSError) as error:
        raise StoreError(
            f"store {path} not compacted, it is as it was: {str(error).splitlines()[0]}"
        ) from None
    finally:
        for left_over in (draft, draft.with_name(f"{draft.name}.wal")):
            left_over.unlink(missing_ok=True)
    return before, after


def _rebuild(
    source: duckdb.DuckDBPyConnection,
    draft: Path,
    key: StoreKey,
    counts: dict[str, int],
    progress: Progress,
) -> None:
    target = connect(draft, key)
    try:
        _copy(source, target, counts, progress)
    except duckdb.Error as error:
        raise StoreError(
            f"{draft} not written, the store is as it was: {str(error).splitlines()[0]}"
        ) from None
    finally:
        target.close()


def _copy(
    source: duckdb.DuckDBPyConnection,
    target: duckdb.DuckDBPyConnection,
    counts: dict[str, int],
    progress: Progress,
) -> None:
    done, total = 0, sum(counts.values())
    for table, count in counts.items():
        (made,) = row(
            source,
            "SELECT sql FROM duckdb_tables() WHERE database_name = current_database() AND table_name = $t",
            {"t": table},
        )
        target.execute(made)
        for batch in source.execute(f'SELECT * FROM "{table}"').to_arrow_reader(BATCH_ROWS):  # noqa: S608
            target.register("arriving", pa.Table.from_batches([batch]))
            target.execute(f'INSERT INTO "{table}" SELECT * FROM arriving')  # noqa: S608
            target.unregister("arriving")
            done += batch.num_rows
            progress(done, total)
        (copied,) = row(target, f'SELECT COUNT(*) FROM "{table}"')  # noqa: S608
        if copied != count:
            raise StoreError(f"the copy of {table} must have {count} rows, got {copied}")
    target.execute("CHECKPOINT")


def tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The names of all tables."""
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() ORDER BY 1"
    return [name for (name,) in connection.execute(query).fetchall()]


def row(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    """The one row that a question has."""
    found = connection.execute(query, parameters or {}).fetchone()
    assert found is not None
    return found
