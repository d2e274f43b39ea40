"""The file: closed to the wrong key, silent about the right one, whole after a kill."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import telemetry.encrypted
from telemetry.encrypted import StoreBusyError, StoreError
from telemetry.keys import StoreKey, StoreKeyError
from telemetry.rows import rows_of
from telemetry.samples import UP
from telemetry.store import Store

KEY = hashlib.sha256(b"right").digest()
WRONG = hashlib.sha256(b"wrong").digest()
ROOT = Path(__file__).parents[2]

#: Writes without end, telling after each commit how many there are.
ENDLESS = """
import sys
from pathlib import Path
from telemetry.rows import rows_of
from telemetry.store import Store
store = Store.open(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))
names = tuple(f"secret-user-{i}" for i in range(1000))
for k in range(1_000_000):
    store.append(rows_of(k, 0, names, [float(k)] * 1000, 1.0, False))
    store.put_state("count", str(k + 1).encode(), k)
    print(k + 1, flush=True)
"""


def fingerprint(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file below, its digest and the moment it was last written."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def everything_said(error: BaseException | None) -> Iterator[str]:
    """The text of an error and of all that it carries along."""
    while error is not None:
        yield from (str(error), repr(error), repr(error.__dict__), *getattr(error, "__notes__", ()))
        yield from everything_said(error.__cause__)
        error = error.__context__


def assert_silent(text: str, key: bytes) -> None:
    for notation in (key.hex(), b64encode(key).decode(), repr(key)):
        for start in range(len(notation) - 8):
            assert notation[start : start + 8] not in text


def start_endless(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path), KEY.hex()], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def killed_while_writing(path: Path, commits: int) -> int:
    """How many commits a process had told of when it was killed."""
    process = start_endless(path)
    assert process.stdout is not None
    told = 0
    while told < commits:
        told = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that holds something, closed."""
    path = tmp_path / "t.duckdb"
    store = Store.open(path, KEY)
    store.append(rows_of(30, UP, ["secret-user-1"], [5.0], 5.0, False))
    store.put_state("overrides", b"secret-state", 0)
    store.close()
    return path


@pytest.mark.parametrize("key", [WRONG, StoreKey(WRONG), WRONG.hex()])
def test_a_wrong_key_is_an_error_and_touches_nothing(path: Path, key: Any) -> None:
    """The message names the file and what to do; the bytes and times of all files stay."""
    before = fingerprint(path.parent)
    with pytest.raises(
        StoreKeyError, match=r"does not open store .*t\.duckdb: give the key that it was made with"
    ):
        Store.open(path, key)
    assert fingerprint(path.parent) == before


@pytest.mark.parametrize("key", [None, "", b"", "hunter2", b"short"])
def test_no_key_or_none_to_speak_of_touches_nothing(path: Path, key: Any) -> None:
    """The file is not even opened, and no new one is made beside it."""
    before = fingerprint(path.parent)
    with pytest.raises(StoreKeyError):
        Store.open(path, key)
    with pytest.raises(StoreKeyError):
        Store.open(path.with_name("new.duckdb"), key)
    assert fingerprint(path.parent) == before


def test_no_error_carries_the_key(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in its text, nor in the errors that it grew from, however DuckDB words them."""
    junk = tmp_path / "junk.duckdb"
    junk.write_bytes(b"not a database" * 1000)
    told: list[str] = []
    for file, key in ((path, WRONG), (junk, KEY), (tmp_path, KEY)):
        with pytest.raises((StoreKeyError, StoreError)) as caught:
            Store.open(file, key)
        told += everything_said(caught.value)
    # A statement that DuckDB cannot parse is quoted in its error, key and all.
    monkeypatch.setattr(telemetry.encrypted, "HOME", "1 bad name")
    for line in ("{}", "first line\n{}"):
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            Store.open(path, KEY)
        told += everything_said(caught.value)
        error = telemetry.encrypted._explained(
            duckdb.Error(line.format(b64encode(KEY).decode()[4:30])), path, StoreKey(KEY)
        )
        told.append(str(error))
    for text in told:
        assert_silent(text, KEY)
        assert_silent(text, WRONG)


def test_an_open_store_does_not_know_its_key(path: Path) -> None:
    """Nothing that an operator can query or print has it."""
    store = Store.open(path, KEY)
    tables = ("duckdb_databases()", "duckdb_settings()", "duckdb_secrets()")
    told = [str(store._connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]
    for text in (*told, repr(store), repr(vars(store))):
        assert_silent(text, KEY)
    store.close()


def test_the_file_shows_nothing(tmp_path: Path) -> None:
    """Neither the file nor its write-ahead log has a name or a value in clear."""
    path = tmp_path / "t.duckdb"
    killed_while_writing(path, 3)
    assert (tmp_path / "t.duckdb.wal").stat().st_size > 0
    for file in tmp_path.iterdir():
        assert b"secret-" not in file.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_writer_leaves_a_store_that_opens(tmp_path: Path) -> None:
    """Each commit told of is there, whole, and writing goes on."""
    path = tmp_path / "t.duckdb"
    told = 0
    for round_ in range(3):
        told = killed_while_writing(path, 5)
        if round_ == 0:
            before = fingerprint(tmp_path)
            with pytest.raises(StoreKeyError):
                Store.open(path, WRONG)
            assert fingerprint(tmp_path) == before
        store = Store.open(path, KEY)
        count = int(store.get_state("count") or b"0")
        assert count >= told
        rows = store._connection.execute("SELECT time, COUNT(*) FROM samples GROUP BY time").fetchall()
        assert {n % 1000 for _, n in rows} == {0}
        assert {k for k, _ in rows} >= set(range(told))
        store.close()


def test_a_process_killed_at_its_first_breath_leaves_no_broken_store(tmp_path: Path) -> None:
    """The file appears whole or not at all, whenever the kill comes."""
    path = tmp_path / "t.duckdb"
    for wait_s in np.linspace(0.0, 0.15, 6):
        process = start_endless(path)
        deadline = time.monotonic() + 20
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(wait_s)
        process.kill()
        process.communicate()
        Store.open(path, KEY).close()
        for file in tmp_path.iterdir():
            file.unlink()


def test_one_process_owns_the_file(tmp_path: Path) -> None:
    """A second planner is told so, in its own process or in this one."""
    path = tmp_path / "t.duckdb"
    process = start_endless(path)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with pytest.raises(StoreBusyError, match=r"t\.duckdb is in use: one process owns it"):
            Store.open(path, KEY)
    finally:
        process.kill()
        process.communicate()
    first = Store.open(path, KEY)
    with pytest.raises(StoreBusyError):
        Store.open(path, KEY)
    first.close()


def test_a_file_in_clear_is_refused(tmp_path: Path) -> None:
    """Nobody should believe it encrypted."""
    path = tmp_path / "t.duckdb"
    duckdb.connect(str(path)).close()
    before = fingerprint(tmp_path)
    with pytest.raises(StoreKeyError, match="is not encrypted"):
        Store.open(path, KEY)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 20_000])
def test_a_file_cut_short_is_an_error_with_its_name(path: Path, size: int) -> None:
    """And is left for whoever wants to save it."""
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StoreError, match=r"store .*t\.duckdb cannot be opened"):
        Store.open(path, KEY)
    assert path.stat().st_size == size


def test_a_log_without_its_file_is_not_swept_away(tmp_path: Path) -> None:
    """It may be all that is left of the last minutes."""
    (tmp_path / "t.duckdb.wal").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"is missing but .*t\.duckdb\.wal is there"):
        Store.open(tmp_path / "t.duckdb", KEY)
    assert [file.name for file in tmp_path.iterdir()] == ["t.duckdb.wal"]


def test_a_quote_in_the_path_is_a_quote(tmp_path: Path) -> None:
    """Paths are data, and directories are made."""
    path = tmp_path / "o'brien" / "t.duckdb"
    Store.open(path, KEY).close()
    Store.open(path, KEY).close()
    assert [file.name for file in path.parent.iterdir()] == ["t.duckdb"]


def test_nothing_is_fetched_and_nothing_goes_home(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The crypto comes from the installed package: no automatic download, no copy in the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    store = Store.open(path, KEY)
    settings = "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%known_extensions'"
    assert {value for _, value in store._connection.execute(settings).fetchall()} == {"false"}
    store.close()
    assert list(home.iterdir()) == []
