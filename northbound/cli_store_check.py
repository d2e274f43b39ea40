"""Whether the store's file is whole: all of it is read, and must agree with itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from northbound.cli_store_file import BATCH_ROWS, MEASURED, Progress, opened, row, tables
from telemetry.keys import StoreKey
from telemetry.store import ROLLUP_S

#: BETWEEN is false for NaN and infinity, and null for null.
_IMPOSSIBLE: Final = (
    "SELECT COUNT(*) FROM {table} WHERE NOT COALESCE("
    "rate_bps BETWEEN 0 AND 1e300 AND {seconds} BETWEEN 1e-9 AND 1e300, FALSE)"
)
#: What must not be found, and what it then is.
_CHECKS: Final = (
    ("series", "SELECT COUNT(*) - COUNT(DISTINCT id) FROM series", "ids that two series have"),
    ("series", "SELECT COUNT(*) - COUNT(DISTINCT name) FROM series", "names that two series have"),
    ("state", "SELECT COUNT(*) - COUNT(DISTINCT name) FROM state", "names that two states have"),
    *(
        check
        for table, seconds in MEASURED.items()
        for check in (
            (
                table,
                f"SELECT COUNT(*) FROM {table} WHERE series NOT IN (SELECT id FROM series)",  # noqa: S608
                "rows of a series that is not known",
            ),
            (
                table,
                _IMPOSSIBLE.format(table=table, seconds=seconds),
                "rows with a rate or an interval that cannot be",
            ),
            (
                table,
                f"SELECT COUNT(*) FROM {table} WHERE direction NOT IN (0, 1) OR direction IS NULL",  # noqa: S608
                "rows of no direction",
            ),
        )
    ),
    (
        "rollups",
        f"SELECT COUNT(*) FROM rollups WHERE time % {ROLLUP_S} <> 0",  # noqa: S608
        "roll-ups that begin within a minute",
    ),
    (
        "rollups",
        "SELECT COUNT(*) - COUNT(DISTINCT (time, series, direction)) FROM rollups",
        "roll-ups that are there twice",
    ),
)


def check(path: Path, key: StoreKey, now: float, progress: Progress) -> list[str]:
    """What is wrong in a store, a line each; nothing if it is whole. Each block is read, and so authenticated.

    Raises
    ------
    StoreKeyError, StoreBusyError, StoreError : as ``opened``; damage that lets nothing be read is one of them.
    """
    faults = []
    with opened(path, key) as connection:
        names = tables(connection)
        total = len(names) + len(_CHECKS) + len(MEASURED)
        for at, table in enumerate(names, 1):
            # Every column of every row: what was changed on the disk does not decrypt.
            for _ in connection.execute(f'SELECT * FROM "{table}"').to_arrow_reader(BATCH_ROWS):  # noqa: S608
                pass
            progress(at, total)
        for at, (table, query, what) in enumerate(_CHECKS, len(names) + 1):
            (found,) = row(connection, query)
            if found:
                faults.append(f"{table}: {found} {what}")
            progress(at, total)
        for table in MEASURED:
            # An hour: clocks of hosts that share a store need not agree.
            query = f"SELECT COUNT(*) FROM {table} WHERE time > $now"  # noqa: S608
            (found,) = row(connection, query, {"now": int(now) + 3600})
            if found:
                faults.append(f"{table}: {found} rows of the future")
        progress(total, total)
    return faults
