"""The anomaly benchmark scores what it says it scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import anomalies


def write(path: Path, values: np.ndarray, window: slice, skip: int | None = None) -> Path:
    """A file of five-minute values with one labelled window; row ``skip`` is missing."""
    lines = ["timestamp,value,anomaly_window"]
    for row, value in enumerate(values):
        if row != skip:
            day, minute = divmod(5 * row, 1440)
            inside = int(window.start <= row < window.stop)
            lines.append(f"2026-01-{1 + day:02d} {minute // 60:02d}:{minute % 60:02d}:00,{value},{inside}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_is_missing_is_a_gap(tmp_path: Path) -> None:
    """The grid is regular; a row that is not there is NaN, and no other row moves."""
    series = anomalies.read(write(tmp_path / "a.csv", np.arange(20.0), slice(10, 12), skip=5))
    assert (series.step_s, len(series.value)) == (300.0, 20)
    assert np.isnan(series.value[5])
    assert np.flatnonzero(series.labelled).tolist() == [10, 11]
    (tmp_path / "b.csv").write_text("time,value\n1,2\n")
    with pytest.raises(ValueError, match="anomaly_window"):
        anomalies.read(tmp_path / "b.csv")


def test_alarms_are_held_against_windows(tmp_path: Path) -> None:
    """One alarm in the window finds it; one outside is false; one in the teaching part is neither."""
    series = anomalies.read(write(tmp_path / "a.csv", np.zeros(400), slice(200, 220)))
    one = anomalies.score(series, "any", np.array([10, 204, 205, 300]), teaching=60)
    assert (one.windows, one.found, one.delay_s, one.false_alarms, one.precision) == (1, 1, 1200.0, 1, 0.5)
    none = anomalies.score(series, "any", np.array([], np.int64), teaching=60)
    assert (none.found, none.delay_s, none.precision) == (0, None, None)


def test_a_burst_is_found_by_all(tmp_path: Path) -> None:
    """One file through every method, and the JSON that others read."""
    rng = np.random.default_rng(0)
    values = 100 + 5 * rng.standard_normal(500)
    values[450] = 2000
    path = write(tmp_path / "burst.csv", values, slice(445, 455))
    out = tmp_path / "out.json"
    assert anomalies.main([str(path), "--json", str(out), "--budget", "0.1"]) == 0
    scores = json.loads(out.read_text())["scores"]
    assert [one["method"] for one in scores] == ["ours, 0.1 a day", "z_score", "persistence"]
    assert all(one["found"] == one["windows"] == 1 for one in scores)
