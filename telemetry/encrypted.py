"""Opens the encrypted DuckDB file, offline, and lets no key out.

Everything that is particular to the encrypted file is here; the statements of
the store itself run on any home that DuckDB can attach.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import duckdb

from telemetry.keys import StoreKey, StoreKeyError

#: The name under which the home of the data is attached, whatever it is.
HOME: Final = "home"


class StoreError(Exception):
    """The store cannot be opened or used; says which file and why."""


class StoreBusyError(StoreError):
    """Another process owns the file."""


def connect(path: Path, key: StoreKey) -> duckdb.DuckDBPyConnection:
    """A connection whose current database is the encrypted file at ``path``.

    The file is made where there is none. One that the key does not open is
    left as it is, to the byte.

    Raises
    ------
    StoreKeyError : if the key is not the file's, or the file is not encrypted.
    StoreBusyError : if another process has the file open.
    StoreError : if it is not a store, or cannot be read.
    """
    if not path.exists():
        _create(path, key)
    return _attach(path, path, key)


def _create(path: Path, key: StoreKey) -> None:
    """Build the empty file aside and move it into place.

    A process killed while DuckDB writes its first headers leaves a file that
    opens with no key; under another name that is only litter.
    """
    wal = _wal_of(path)
    if wal.exists():
        raise StoreError(f"store {path} is missing but {wal} is there: restore the one or remove the other")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    for left_over in (draft, _wal_of(draft)):
        left_over.unlink(missing_ok=True)
    connection = _attach(path, draft, key)
    try:
        # The headers are written with the first table; the store makes its own later.
        connection.execute("CREATE TABLE first_light (time BIGINT)")
        connection.execute("DROP TABLE first_light")
        connection.execute(f"CHECKPOINT {HOME}")
    finally:
        connection.close()
    draft.chmod(0o600)
    draft.replace(path)


def _attach(path: Path, file: Path, key: StoreKey) -> duckdb.DuckDBPyConnection:
    connection = _engine(path)
    location = str(file).replace("'", "''")
    problem = None
    try:
        connection.execute(
            f"ATTACH '{location}' AS {HOME} (ENCRYPTION_KEY '{key.as_base64()}', ENCRYPTION_CIPHER 'GCM')"
        )
        connection.execute(f"USE {HOME}")
    except duckdb.Error as error:
        problem = _explained(error, path, key)
    # Raised outside of the handler: DuckDB's error quotes the statement, and with it the key, and
    # would travel along as the context of ours.
    if problem is not None:
        connection.close()
        raise problem
    return connection


def _explained(error: duckdb.Error, path: Path, key: StoreKey) -> Exception:
    text = str(error)
    for said, meaning in _KNOWN_REFUSALS:
        if said in text:
            return meaning(path)
    # The first line only: what follows is the statement. DuckDB may quote a part of it there too.
    reason = text.splitlines()[0]
    secret = key.as_base64()
    if any(secret[at : at + 8] in reason for at in range(len(secret) - 7)):
        reason = type(error).__name__
    return StoreError(f"store {path} cannot be opened: {reason}")


def _wrong_key(path: Path) -> Exception:
    return StoreKeyError(
        f"the key given does not open store {path}: give the key that it was made with, "
        "or move the file away to begin a new one"
    )


def _not_encrypted(path: Path) -> Exception:
    return StoreKeyError(f"store {path} is not encrypted: move the file away to begin a new, encrypted one")


def _busy(path: Path) -> Exception:
    return StoreBusyError(f"store {path} is in use: one process owns it, stop the other planner first")


_KNOWN_REFUSALS: Final = (
    ("Wrong encryption key", _wrong_key),
    ("is not encrypted", _not_encrypted),
    ("Could not set lock", _busy),
    ("Unique file handle conflict", _busy),
)


def _engine(path: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB with the crypto that may write, and nothing that reaches out."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            # A query too large for memory spills to disk: beside the file, and encrypted like it.
            "temp_directory": f"{path}.tmp",
            "temp_file_encryption": "true",
            # A Python variable must not be able to pose as a table.
            "python_enable_replacements": "false",
            "memory_limit": "1GB",
            # The planner's loop needs the other cores more than the store does.
            "threads": "1",
        },
    )
    extension = files("duckdb_extension_httpfs") / "extensions" / f"v{duckdb.__version__}"
    location = str(extension / "httpfs.duckdb_extension").replace("'", "''")
    # By path, not INSTALL: that would copy 20 MB into the home directory of whoever runs this.
    connection.execute(f"LOAD '{location}'")
    return connection


def _wal_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of the statements inside, or none."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        # The failure may have ended the transaction already; what matters is the first error.
        with contextlib.suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
