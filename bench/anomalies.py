"""How well labelled anomalies are found, next to two simple detectors on the same steps.

    python -m bench.anomalies FILE.csv ... --json OUT

A file has the columns timestamp, value, anomaly_window (1 inside a labelled window). The forecasts are
the product's own: the forecaster with its shipped defaults, trained anew as it goes on what lies behind. Values are
taken as kbit/s, which matters to no detector. The first part of each file teaches and is not scored.

ours        forecasting.anomalies at several budgets; as configured, 5 % of the ceiling is material
z_score     alarm where a value is more than three standard deviations from the mean of the first part
persistence alarm where the change from the last value is beyond what the first part ever showed

An alarm is the first of those that lie within half an hour. A window is found when an alarm lies in it;
alarms outside windows are false.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import write_figures
from forecasting.anomalies import Detector
from forecasting.anomaly import AnomalySettings, Change, plain_step
from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.settings import ForecastSettings
from forecasting.training import NotEnoughHistory, retrain
from planner.config_alarms import Alarms

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Share of each file that teaches, as in the Numenta Anomaly Benchmark.
TEACHING: Final = 0.15
#: Alarms closer than this are one.
TOGETHER_S: Final = 1800.0
#: A day of five minutes.
RETRAIN_STEPS: Final = 288
_SIGMAS: Final = 3.0
_KBIT: Final = 1e3


@dataclass(frozen=True)
class Labelled:
    """A series with labels; gaps of the grid are NaN."""

    name: str
    step_s: float
    #: shape (T,), epoch seconds.
    time: F64
    #: shape (T,)
    value: F64
    #: shape (T,); True inside a labelled window.
    labelled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """One detector on one file."""

    file: str
    method: str
    windows: int
    found: int
    #: Seconds from a window's start to its first alarm, median over those found; None without any.
    delay_s: float | None
    false_alarms: int
    false_per_day: float
    #: Of the alarms, the share that lies in a window.
    precision: float | None


def read(path: Path) -> Labelled:
    """A file on its regular grid: the first of duplicates counts, what is missing is NaN.

    Raises
    ------
    ValueError : when a column is missing or there are fewer than two rows.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"timestamp", "value", "anomaly_window"} - set(rows[0] if rows else ())
    if missing or len(rows) < 2:
        raise ValueError(f"{path} must have the columns timestamp, value, anomaly_window and two rows")
    time = np.array(
        [datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp() for row in rows]
    )
    step = float(np.median(np.diff(time)))
    at, first = np.unique(np.rint((time - time.min()) / step).astype(np.int64), return_index=True)
    value, labelled = np.full(at[-1] + 1, np.nan), np.zeros(at[-1] + 1, np.bool_)
    value[at] = np.array([float(row["value"]) for row in rows])[first]
    labelled[at] = np.array([row["anomaly_window"] == "1" for row in rows])[first]
    return Labelled(path.stem, step, time.min() + step * np.arange(len(value)), value, labelled)


def ours(series: Labelled, false_alarms_per_day: float, teaching: int) -> Ints:
    """Rows at which the product's detector opens an alarm."""
    settings = ForecastSettings(step_s=series.step_s, horizons_s=(series.step_s,))
    forecaster = Forecaster(settings)
    detector = Detector(AnomalySettings(step_s=series.step_s, false_alarms_per_day=false_alarms_per_day))
    demand = (series.value * _KBIT).astype(np.float32)[:, None]
    censored = np.zeros(demand.shape, np.bool_)
    none = np.full(1, np.nan)
    # The files name no ceiling: the highest value of the first part stands for it.
    material = np.array([Alarms().least_share * _KBIT * np.nanmax(series.value[:teaching])])
    issued = None
    alarms = []
    for row in range(len(demand)):
        end = float(series.time[row])
        past = History(demand[: row + 1], censored[: row + 1], series.step_s, end)
        if issued is not None:
            forecast = issued.demand_bps[:, 0].astype(np.float64)
            step = plain_step([0], demand[row].astype(np.float64), forecast, issued.quantile)
            step = replace(step, material_bps=material)
            if any(one.change is Change.OPENED for one in detector.step(end, step)):
                alarms.append(row)
        forecaster.observe(past.tail(settings.window_steps))
        if row and row % RETRAIN_STEPS == 0:
            try:
                trained, verdict = retrain(past, settings, forecaster.trained)
            except NotEnoughHistory:
                continue
            if verdict.promoted:
                forecaster.install(trained)
        issued = forecaster.forecast(past.tail(settings.window_steps), none)
    return np.array(alarms, np.int64)


def z_score(series: Labelled, teaching: int) -> Ints:
    """Rows beyond three standard deviations of the first part."""
    mean, sigma = np.nanmean(series.value[:teaching]), np.nanstd(series.value[:teaching])
    return np.flatnonzero(np.abs(series.value - mean) > _SIGMAS * sigma)


def persistence(series: Labelled, teaching: int) -> Ints:
    """Rows whose change from the row before is beyond all changes of the first part."""
    change = np.abs(np.diff(series.value, prepend=np.nan))
    return np.flatnonzero(change > np.nanmax(change[:teaching]))


def score(series: Labelled, method: str, rows: Ints, teaching: int) -> Score:
    """Hold alarms against the labels, from the row after the teaching part on."""
    rows = rows[rows >= teaching]
    apart = TOGETHER_S / series.step_s
    alarms = [int(row) for n, row in enumerate(rows) if n == 0 or row - rows[n - 1] > apart]
    edges = np.diff(np.concatenate([[0], series.labelled[teaching:].astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1) + teaching, np.flatnonzero(edges == -1) + teaching
    delays = []
    for start, end in zip(starts, ends, strict=True):
        # Rows, not alarms: one that began before the window and goes on inside it found it.
        inside = rows[(rows >= start) & (rows < end)]
        if len(inside):
            delays.append(float(inside[0] - start) * series.step_s)
    false = sum(not series.labelled[row] for row in alarms)
    days = np.count_nonzero(~series.labelled[teaching:]) * series.step_s / 86400.0
    return Score(
        file=series.name,
        method=method,
        windows=len(starts),
        found=len(delays),
        delay_s=float(np.median(delays)) if delays else None,
        false_alarms=false,
        false_per_day=round(false / days, 4) if days else 0.0,
        precision=round(1 - false / len(alarms), 3) if alarms else None,
    )


def run(path: Path, budgets: Sequence[float]) -> list[Score]:
    """All methods on one file."""
    series = read(path)
    teaching = int(TEACHING * len(series.value))
    found = {f"ours, {budget:g} a day": ours(series, budget, teaching) for budget in budgets}
    found["z_score"] = z_score(series, teaching)
    found["persistence"] = persistence(series, teaching)
    return [score(series, method, rows, teaching) for method, rows in found.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Score all files; the JSON goes where asked, progress to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.anomalies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.csv")
    parser.add_argument(
        "--json", required=True, metavar="OUT", help="file to write, or - for standard output"
    )
    parser.add_argument(
        "--budget", type=float, nargs="+", default=[0.001, 0.1], help="false alarms per series and day"
    )
    options = parser.parse_args(arguments)
    scores: list[Score] = []
    for path in options.files:
        for one in run(path, options.budget):
            scores.append(one)
            print(
                f"{one.file:32} {one.method:18} found {one.found} of {one.windows}, "
                f"{one.false_alarms} false ({one.false_per_day:g} a day), delay {one.delay_s}",
                file=sys.stderr,
            )
    write_figures({"teaching": TEACHING, "scores": [asdict(one) for one in scores]}, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
