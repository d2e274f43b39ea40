"""``tidegate store`` on real stores: facts, damage, exports, and compaction."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pa_parquet
import pytest
from typer.testing import CliRunner

from northbound import cli_store_file
from northbound.cli import app
from northbound.cli_exit import Exit
from telemetry.encrypted import connect
from telemetry.keys import create_key_file, load_key
from telemetry.rows import SampleRows
from telemetry.store import Store

ROOT = Path(__file__).parents[2]
USERS = ("anna", "ben", "carl")
STEPS = 2000
runner = CliRunner()


def run(*words: str | Path) -> tuple[int, str, str]:
    result = runner.invoke(app, ["store", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of some hours, of which raw samples of all but the last have expired."""
    file = tmp_path / "s.duckdb"
    key = create_key_file(tmp_path / "s.duckdb.key")
    store = Store.open(file, key)
    now = float(int(time.time()))
    rate = np.random.default_rng(7).uniform(0, 1e7, (2, STEPS, len(USERS)))
    whole, uncensored = np.full(len(USERS), 5.0), np.zeros(len(USERS), np.bool_)
    store.append(
        *(
            SampleRows(
                now - 5 * (STEPS - 1 - step), direction, USERS, rate[direction, step], whole, uncensored
            )
            for step in range(STEPS)
            for direction in (0, 1)
        )
    )
    store.roll_up(now)
    store.expire(now, 1.0, 30)
    store.put_state("memory", b"what a successor needs", now)
    store.close()
    return file


def rows_of(path: Path, query: str) -> list[Any]:
    connection = connect(path, load_key(path.with_name(f"{path.name}.key"), {}))
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_info_tells_what_is_in_it(path: Path):
    """Rows, the span of time, how fast it grows, and how large the planner's state is."""
    status, told, _ = run("info", "--file", path, "--json")
    assert status == Exit.DONE
    found = json.loads(told)
    samples = found["tables"]["samples"]
    (counted,) = rows_of(path, "SELECT COUNT(*), MIN(time), MAX(time) FROM samples")
    assert (samples["rows"], samples["oldest"], samples["newest"]) == counted
    # Three users, two directions, every five seconds.
    assert samples["rows_per_hour"] == pytest.approx(3600 / 5 * 6, rel=0.01)
    assert (found["series"], found["size_bytes"]) == (3, path.stat().st_size)
    assert found["state"]["memory"] == len(b"what a successor needs")
    drawn = run("info", "--file", path)[1]
    assert f"{samples['rows']:,}" in drawn
    assert "\x1b" not in drawn


def test_configuration_names_the_store(path: Path, tmp_path: Path):
    """As it does for the planner."""
    file = tmp_path / "c.yaml"
    file.write_text(
        f"capacity_mbps: 10\nregions: {{a: {{dpids: [1], capacity_mbps: 10}}}}\nstore: {{path: {path}}}\n"
    )
    assert run("check", "--config", file) == (Exit.DONE, f"{path}: whole\n", "")


@pytest.mark.parametrize("command", ["info", "check", "compact"])
def test_store_that_is_not_there_is_not_made(tmp_path: Path, command: str):
    """Whoever mistypes a path gets no empty store, and no key."""
    status, _, told = run(command, "--file", tmp_path / "none.duckdb")
    assert (status, told.count("\n")) == (Exit.FAILED, 1)
    assert f"{tmp_path}/none.duckdb must be a file" in told
    assert not list(tmp_path.iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from telemetry.keys import load_key
from telemetry.store import Store
path = Path(sys.argv[1])
store = Store.open(path, load_key(path.with_name(path.name + ".key"), {}))
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(path: Path) -> Iterator[Path]:
    """The store while another process has it open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield path
        finally:
            process.kill()


@pytest.mark.parametrize("command", ["info", "check", "compact", "export"])
def test_store_of_a_running_planner_is_refused(held: Path, command: str, tmp_path: Path):
    """One line, a status of its own, and the file as it was."""
    before = held.read_bytes()
    more = [str(tmp_path / "out.csv")] if command == "export" else []
    status, _, told = run(command, *more, "--file", held)
    assert (status, told.count("\n")) == (Exit.REFUSED, 1)
    assert "is in use: one process owns it" in told
    assert held.read_bytes() == before
    assert not (tmp_path / "out.csv").exists()


def test_wrong_key_is_one_line_without_the_key(path: Path):
    """And nothing is touched."""
    key = path.with_name(f"{path.name}.key")
    before = path.read_bytes()
    key.write_text("ab" * 32)
    status, _, told = run("check", "--file", path)
    assert (status, told.count("\n")) == (Exit.FAILED, 1)
    assert "does not open store" in told
    assert "abab" not in told
    assert path.read_bytes() == before


def test_check_finds_what_cannot_be(path: Path):
    """Each kind is named and counted."""
    key = load_key(path.with_name(f"{path.name}.key"), {})
    connection = connect(path, key)
    connection.execute("INSERT INTO samples VALUES (1, 99, 0, 1.0, 5.0, false), (1, 0, 7, 1.0, 5.0, false)")
    connection.execute("INSERT INTO samples VALUES (1, 0, 0, -1.0, 5.0, false), (1, 0, 0, 'nan', 5.0, false)")
    connection.execute("INSERT INTO samples VALUES (1, 0, 0, 1.0, 0, false), (1, 0, 0, NULL, 5.0, false)")
    connection.execute("INSERT INTO rollups SELECT * FROM rollups WHERE series = 0 AND direction = 0")
    connection.execute("INSERT INTO rollups VALUES (61, 0, 0, 1.0, 60, false)")
    connection.execute("INSERT INTO series VALUES (0, 'dora')")
    connection.execute("INSERT INTO samples VALUES (99999999999, 0, 0, 1.0, 5.0, false)")
    (twice,) = connection.execute(
        "SELECT COUNT(*) - COUNT(DISTINCT (time, series, direction)) FROM rollups"
    ).fetchall()[0]
    connection.close()
    assert twice > 0
    status, told, _ = run("check", "--file", path, "--json")
    assert status == Exit.FAILED
    assert json.loads(told) == {
        "path": str(path),
        "ok": False,
        "faults": [
            "series: 1 ids that two series have",
            "samples: 1 rows of a series that is not known",
            "samples: 4 rows with a rate or an interval that cannot be",
            "samples: 1 rows of no direction",
            "rollups: 1 roll-ups that begin within a minute",
            f"rollups: {twice} roll-ups that are there twice",
            "samples: 1 rows of the future",
        ],
    }


def test_check_finds_changed_bytes(path: Path):
    """What was changed on the disk does not decrypt; told in a line."""
    body = bytearray(path.read_bytes())
    # Past the headers, all through the blocks.
    for at in range(16_384, len(body), 4096):
        body[at] ^= 0xFF
    path.write_bytes(body)
    status, _, told = run("check", "--file", path)
    assert (status, told.count("\n")) == (Exit.FAILED, 1)
    assert str(path) in told


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_export_has_the_rows_of_the_span(path: Path, tmp_path: Path, suffix: str):
    """With names and directions, oldest first, for its owner's eyes only."""
    (newest,) = rows_of(path, "SELECT MAX(time) FROM samples")[0]
    target = tmp_path / f"out.{suffix}"
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(newest - 600))
    status, told, _ = run("export", target, "--since", moment, "--file", path, "--json")
    assert status == Exit.DONE
    if suffix == "csv":
        with target.open() as file:
            rows = [(int(row["time"]), row["series"], row["direction"], float(row["rate_bps"]))
                    for row in csv.DictReader(file)]  # fmt: skip
    else:
        table = pa_parquet.read_table(target).to_pylist()
        rows = [(row["time"], row["series"], row["direction"], row["rate_bps"]) for row in table]
    wanted = rows_of(
        path,
        f"SELECT time, name, CASE direction WHEN 0 THEN 'up' ELSE 'down' END, rate_bps FROM samples "
        f"JOIN series ON id = series WHERE time >= {newest - 600}",
    )
    assert sorted(rows) == sorted(wanted)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert json.loads(told)["rows"] == len(wanted) == 121 * 6
    assert target.stat().st_mode & 0o777 == 0o600


def test_export_of_rollups_and_of_nothing(path: Path, tmp_path: Path):
    """Means of minutes go back farther; a span without rows is a table without rows."""
    assert run("export", tmp_path / "a.csv", "--table", "rollups", "--since", "1w", "--file", path)[0] == 0
    (count,) = rows_of(path, "SELECT COUNT(*) FROM rollups")[0]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == count + 1
    span = ("--since", "2001-01-01T00:00", "--until", "2001-01-02T00:00")
    assert run("export", tmp_path / "b.parquet", *span, "--file", path)[0] == 0
    assert pa_parquet.read_table(tmp_path / "b.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["out.txt"], 2, "must end in .parquet or .csv"),
        (["out.csv", "--since", "soon"], 2, "--since must be a date and time"),
        (["out.csv", "--since", "1h", "--until", "2h"], 2, "--since must be before --until"),
        (["there.csv"], 1, "must not be there yet"),
        (["no/such/place.csv"], 1, "No such file or directory"),
    ],
)
def test_export_that_cannot_be_writes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, said: str
):
    """One line says why."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    before = sorted(tmp_path.iterdir())
    ended, _, told = run("export", *words, "--file", path)
    assert (ended, told.count("\n")) == (status, 1)
    assert said in told
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.csv").read_text() == "mine"


def everything(path: Path) -> dict[str, list[Any]]:
    tables = ("samples", "rollups", "series", "state")
    return {table: sorted(rows_of(path, f"SELECT * FROM {table}"), key=repr) for table in tables}


def test_compact_keeps_every_row_and_gives_room_back(path: Path):
    """A planner takes up the smaller file as it was; its key and mode are the same."""
    key = load_key(path.with_name(f"{path.name}.key"), {})
    noise = np.random.default_rng(1)
    # What is written after a large value keeps the file as long when that goes.
    for name, size in (("big", 8_000_000), ("late", 300_000)):
        store = Store.open(path, key)
        store.put_state(name, noise.bytes(size), 0.0)
        store.close()
    store = Store.open(path, key)
    store.drop_state("big")
    store.close()
    before = everything(path)
    path.chmod(0o640)
    status, told, _ = run("compact", "--file", path, "--json")
    assert status == Exit.DONE
    sizes = json.loads(told)
    assert sizes["bytes_after"] == path.stat().st_size < sizes["bytes_before"] / 2
    assert path.stat().st_mode & 0o777 == 0o640
    assert everything(path) == before
    store = Store.open(path, key)
    assert store.get_state("memory") == b"what a successor needs"
    store.close()
    assert sorted(one.name for one in path.parent.iterdir()) == ["s.duckdb", "s.duckdb.key"]


def test_compact_that_fails_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that is full on the way costs nothing."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = everything(path)
    monkeypatch.setattr(cli_store_file, "_copy", full)
    status, _, told = run("compact", "--file", path)
    assert (status, told.count("\n")) == (Exit.FAILED, 1)
    assert "is as it was" in told
    assert "No space left" in told
    assert everything(path) == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["s.duckdb", "s.duckdb.key"]
