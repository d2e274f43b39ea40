"""The forecast benchmark: what it writes, what it refuses, and that it never looks ahead."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STEP_S, N_DAY = 900, 96
#: A single array, not an archive of several.
NPY = (
    b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(127)
    + b"\n"
    + bytes(8)
)
NAMES = ("east", "west", "north")


def write(path: Path, changed_from: int | None = None, **parts: Any) -> Path:
    """Three days of three series in quarters of an hour, a gap among them; from a row on other traffic."""
    rng, n_steps = np.random.default_rng(0), 3 * N_DAY
    day = 2 + np.sin(2 * np.pi * np.arange(n_steps)[:, None] / N_DAY + np.arange(3))
    series = (day * rng.lognormal(0, 0.2, (n_steps, 3))).astype(np.float32)
    series[150, 1] = np.nan
    if changed_from is not None:
        series[changed_from:] = rng.lognormal(3, 3, series[changed_from:].shape)
    time = 1_700_000_100 + STEP_S * np.arange(n_steps, dtype=np.int64)
    columns: dict[str, Any] = {"series": series, "time": time, "names": np.array(NAMES), **parts}
    np.savez(path, **columns)
    return path


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run as its users do."""
    command = [sys.executable, "-m", "bench.forecast", *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def dumped(data: Path, folder: Path) -> dict[str, np.ndarray]:
    """What a run on the file dumps."""
    done = bench("--data", data, "--horizons", "900,3600", "--json", folder / "out.json", "--dump", folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "forecasts.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """One run: the dump and the JSON."""
    folder = tmp_path_factory.mktemp("bench")
    dump = dumped(write(folder / "file.npz"), folder)
    return dump, json.loads((folder / "out.json").read_text())


def test_the_dump_is_in_the_agreed_format(run: tuple[dict[str, np.ndarray], object]) -> None:
    """Quantiles, horizons, cutoffs on the file's grid, and a fan for each, finite and rising."""
    dump, _ = run
    c, h, s, k = dump["forecast"].shape
    assert dump["quantile"].shape == (k,)
    assert (np.diff(dump["quantile"]) > 0).all()
    assert dump["horizon_s"].tolist() == [900, 3600]
    assert (h, s, dump["names"].tolist()) == (2, 3, list(NAMES))
    assert dump["cutoff"].shape == (c,)
    assert set(np.diff(dump["cutoff"])) == {STEP_S}
    # The first 70 % are trained on.
    assert dump["cutoff"][0] == 1_700_000_100 + STEP_S * (int(0.7 * 3 * N_DAY) - 1)
    assert dump["forecast"].dtype == np.float32
    assert np.isfinite(dump["forecast"]).all()
    assert (dump["forecast"][..., 0] >= 0).all()
    assert (np.diff(dump["forecast"], axis=-1) >= 0).all()
    # In the file's unit, Mbit/s: medians are of the size of the traffic.
    assert 0.5 < np.median(dump["forecast"][..., k // 2]) < 5


def test_the_json_says_what_was_scored(run: tuple[object, dict[str, object]]) -> None:
    """Whose file, what it cost, and by horizon the figures of every method."""
    report = run[1]
    assert (report["data"], report["step_s"], report["series"]) == ("file.npz", 900, 3)
    assert {"fit_s", "trainings", "predict_ms_per_1000_series", "peak_rss_mb", "quantile"} <= report.keys()
    horizons = report["horizons"]
    assert isinstance(horizons, list)
    assert [one["horizon_s"] for one in horizons] == [900, 3600]
    for one in horizons:
        assert {"tidegate", "persistence", "auto_bandwidth", "heyp", "seasonal_naive"} <= one[
            "methods"
        ].keys()
        assert one["truths"] > 0
        assert sum(one["champions"].values()) == pytest.approx(1)
        figures = [value for method in one["methods"].values() for value in method.values()]
        assert np.isfinite([value for value in figures if isinstance(value, float)]).all()


def test_nothing_after_the_cutoff_matters(run: tuple[dict[str, np.ndarray], object], tmp_path: Path) -> None:
    """With other traffic from a row on, what was forecast before it is the same to the bit."""
    row = 250
    changed = dumped(write(tmp_path / "file.npz", changed_from=row), tmp_path)
    before = run[0]["cutoff"] < 1_700_000_100 + STEP_S * row
    assert before.any()
    assert np.array_equal(run[0]["forecast"][before], changed["forecast"][before])
    assert not np.array_equal(run[0]["forecast"][~before], changed["forecast"][~before])


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        ({"time": np.arange(7)}, "shapes must be"),
        ({"time": np.zeros(3 * N_DAY)}, "time must lie on a regular, rising grid"),
        ({"series": np.zeros(3 * N_DAY)}, "shapes must be"),
    ],
)
def test_a_file_that_is_none_is_named(parts: dict[str, Any], rule: str, tmp_path: Path) -> None:
    """Exit code 2, and one line with the path and the rule."""
    path = write(tmp_path / "bad.npz", **parts)
    done = bench("--data", path)
    assert done.returncode == 2
    assert f"{path}: {rule}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("body", [None, b"", b"no archive", b"PK\x03\x04cut off", NPY])
def test_what_cannot_be_read_is_named(body: bytes | None, tmp_path: Path) -> None:
    """Missing, empty, cut off or something else altogether."""
    path = tmp_path / "nothing.npz"
    if body is not None:
        path.write_bytes(body)
    done = bench("--data", path)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
