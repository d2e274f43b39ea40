"""Every forecasting model on the same rows of a file: how well, how fast to fit and to ask.

    python -m bench.models FILE.npz [--json OUT] [--models catboost,lstm,ets] [--horizons-s 300,900]

FILE.npz holds ``series`` (T, S) in Mbit/s and ``time`` (T,) on a regular grid. The models of all
series learn from windows drawn from the first 70 %; all are asked at the same cutoffs in the rest.
A model whose extra is not installed is named and left out. Nothing calibrates and nothing falls
back here, so that the models stand alone; ``bench.forecast`` scores the whole forecaster.

pinball         mean over quantiles and series, in units of each series' level
pinball_ratio   the same over that of persistence with the quantiles of past residuals
..._first       the ratio over the cutoffs that ETS and ARIMA are asked, the first ``--cutoffs``
wape            sum of |median - truth| over the sum of truths
coverage        share of truths at or below each quantile
predict_ms      per 1,000 series, at all horizons
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.figures import write_figures
from forecasting.baselines import auto_bandwidth, heyp, last_value, persistence_quantiles, seasonal_naive
from forecasting.features import FeatureRows, FeatureSpec, feature_rows
from forecasting.history import Floats, Ints
from forecasting.models import ModelFailed, new_model
from forecasting.scoring import coverage, pinball_loss
from forecasting.settings import MODELS, ForecastSettings
from forecasting.statistical import Arima, Ets, SeriesModel
from forecasting.training import TARGET_BOUND

TRAIN_SHARE: Final = 0.7
#: What ETS and ARIMA fit, in steps; the global models read the settings' window.
SERIES_WINDOW: Final = 256
#: Longest window drawn, in steps: bounds memory. Seasonal naive needs a day of it.
LONGEST_WINDOW: Final = 2048
DAY_S: Final = 86_400.0
SERIES_MODELS: Final[dict[str, Callable[[], SeriesModel]]] = {"ets": Ets, "arima": Arima}
BASELINES: Final = ("seasonal_naive", "auto_bandwidth", "heyp")
MEGA: Final = 1e6


@dataclass(frozen=True)
class Cases:
    """Windows of some series at some cutoffs, with what came after."""

    #: shape (W, n), bit/s.
    window_bps: Floats
    #: shape (n, H), bit/s.
    truth_bps: Floats
    rows: FeatureRows

    @property
    def last_bps(self) -> Floats:
        """The latest measurement of each window, shape (n,)."""
        return last_value(self.window_bps)

    def x(self, sequence_steps: int) -> Floats:
        """The model's rows, ending in as much of the window as it reads."""
        if sequence_steps == 0:
            return self.rows.x
        window = (self.window_bps[-sequence_steps:] / self.rows.scale_bps).T
        n_horizons = self.truth_bps.shape[1]
        return np.concatenate([self.rows.x, np.repeat(window, n_horizons, axis=0)], axis=1)


def draw_cases(
    demand_bps: Floats,
    epoch: npt.NDArray[np.float64],
    settings: ForecastSettings,
    n: int,
    *,
    window_steps: int,
    seed: int,
) -> Cases:
    """Up to n windows, none twice, whose targets lie inside the rows given, less those that no model would serve."""
    ahead = settings.horizon_steps
    rng = np.random.default_rng(seed)
    n_cutoffs, n_series = len(demand_bps) - int(ahead[-1]) - (window_steps - 1), demand_bps.shape[1]
    total = n_cutoffs * n_series
    chosen = rng.choice(total, min(n, total), replace=False)
    cutoff, series = window_steps - 1 + chosen // n_series, chosen % n_series
    window = demand_bps[cutoff + np.arange(1 - window_steps, 1)[:, None], series]
    truth = demand_bps[cutoff[:, None] + ahead, series[:, None]]
    recent = np.isfinite(window[-settings.window_steps :])
    served = recent[-1] & (recent.sum(axis=0) >= settings.min_history_steps) & np.isfinite(truth).all(axis=1)
    window, truth = np.ascontiguousarray(window[:, served]), truth[served]
    span_s = len(demand_bps) * settings.step_s
    spec = FeatureSpec(settings.step_s, settings.window_steps, use_day=span_s >= 2 * DAY_S)
    calm = np.zeros(window.shape, np.bool_)
    return Cases(window, truth, feature_rows(window, calm, epoch[cutoff[served]], ahead, spec))


def measure_global(
    kind: str, learnt: Cases, asked: Cases, settings: ForecastSettings, at_most: int
) -> dict[str, Any]:
    """Fit one model of all series and ask it."""
    model = new_model(replace(settings, model=kind))
    y = np.clip(learnt.rows.to_target(learnt.truth_bps).reshape(-1), -TARGET_BOUND, TARGET_BOUND)
    x = learnt.x(model.sequence_steps)
    fit_s, _ = _timed(lambda: model.fit(x, y))
    question = asked.x(model.sequence_steps)
    model.predict(question[:1])
    predict_s, answer = _timed(lambda: model.predict(question))
    n = len(asked.truth_bps)
    forecast = asked.rows.from_target(answer)
    return {
        "fit_s": round(fit_s, 2),
        "predict_ms": round(predict_s / n * 1e6, 2),
        "model_bytes": len(model.to_bytes()),
        **_scores(forecast, asked, settings),
        "pinball_first": _scores(forecast[:at_most], _first(asked, at_most), settings)["pinball"],
    }


def measure_series(kind: str, asked: Cases, settings: ForecastSettings, at_most: int) -> dict[str, Any]:
    """Fit one model to each of the first windows; there is no training apart from the asking."""
    model = SERIES_MODELS[kind]()
    part = _first(asked, at_most)
    quantile = np.asarray(settings.quantiles)
    ahead: Ints = settings.horizon_steps
    window = part.window_bps[-SERIES_WINDOW:]
    model.forecast(window[:, :1], ahead, quantile)  # compiles
    predict_s, answer = _timed(lambda: model.forecast(window, ahead, quantile))
    return {
        "predict_ms": round(predict_s / len(part.truth_bps) * 1e6, 2),
        "answered": round(float(np.isfinite(answer).all(axis=(1, 2)).mean()), 4),
        **(scores := _scores(answer, part, settings)),
        "pinball_first": scores["pinball"],
    }


def measure_persistence(learnt: Cases, asked: Cases, settings: ForecastSettings) -> dict[str, Any]:
    """Last value with the quantiles of past residuals."""
    residual = learnt.rows.to_target(learnt.truth_bps)
    quantile = np.asarray(settings.quantiles)
    answer = persistence_quantiles(asked.last_bps, asked.rows.scale_bps, residual, quantile)
    return _scores(answer, asked, settings)


def measure_point(kind: str, asked: Cases, settings: ForecastSettings) -> dict[str, Any]:
    """A baseline that is one figure: it stands for every quantile."""
    window, ahead = asked.window_bps, settings.horizon_steps
    if kind == "seasonal_naive":
        period = round(DAY_S / settings.step_s)
        if period > len(window):
            raise ModelFailed(f"a day of {period} steps is longer than the {len(window)} steps drawn")
        point = seasonal_naive(window, ahead, period)
    else:
        estimate = auto_bandwidth if kind == "auto_bandwidth" else heyp
        point = np.repeat(estimate(window, settings.step_s)[:, None], len(ahead), axis=1)
    return _scores(np.repeat(point[:, :, None], len(settings.quantiles), axis=2), asked, settings)


def measure(path: Path, wanted: Sequence[str], horizons_s: Sequence[float] | None, n: int) -> dict[str, Any]:
    """All models side by side on one file."""
    with np.load(path, allow_pickle=False) as stored:
        demand = stored["series"].astype(np.float32) * np.float32(MEGA)
        epoch = stored["time"].astype(np.float64)
    step_s = float(epoch[1] - epoch[0])
    horizons = tuple(horizons_s or (step_s, 3 * step_s))
    settings = ForecastSettings(step_s=step_s, horizons_s=horizons)
    split = int(len(demand) * TRAIN_SHARE)
    n_windows = settings.train_rows // len(horizons)
    drawn = settings.window_steps
    learnt = draw_cases(demand[:split], epoch[:split], settings, n_windows, window_steps=drawn, seed=0)
    longest = max(SERIES_WINDOW, min(round(DAY_S / step_s), LONGEST_WINDOW))
    asked = draw_cases(demand[split:], epoch[split:], settings, 10_000, window_steps=longest, seed=1)
    naive = measure_persistence(learnt, asked, settings)
    naive["pinball_first"] = measure_persistence(learnt, _first(asked, n), settings)["pinball"]
    found: dict[str, Any] = {"persistence": naive}
    for kind in wanted:
        try:
            if kind in SERIES_MODELS:
                found[kind] = measure_series(kind, asked, settings, n)
            elif kind in BASELINES:
                found[kind] = measure_point(kind, asked, settings)
            else:
                found[kind] = measure_global(kind, learnt, asked, settings, n)
        except ModelFailed as error:
            found[kind] = {"left_out": str(error)}
            continue
        if kind not in SERIES_MODELS:
            found[kind]["pinball_ratio"] = _ratio(found[kind], naive, "pinball")
        if kind not in BASELINES:
            found[kind]["pinball_ratio_first"] = _ratio(found[kind], naive, "pinball_first")
    return {
        "file": path.name,
        "step_s": step_s,
        "horizons_s": horizons,
        "quantiles": settings.quantiles,
        "trained_on_rows": learnt.truth_bps.size,
        "asked": len(asked.truth_bps),
        "asked_of_series_models": min(n, len(asked.truth_bps)),
        "models": found,
    }


def _first(cases: Cases, n: int) -> Cases:
    rows = cases.rows
    n_horizons = cases.truth_bps.shape[1]
    part = replace(
        rows,
        x=rows.x[: n * n_horizons],
        scale_bps=rows.scale_bps[:n],
        origin_bps=rows.origin_bps[:n],
        n_present=rows.n_present[:n],
        since_sample=rows.since_sample[:n],
    )
    return Cases(cases.window_bps[:, :n], cases.truth_bps[:n], part)


def _ratio(scores: dict[str, Any], compared: dict[str, Any], name: str) -> list[float]:
    ratio: list[float] = (np.asarray(scores[name]) / np.asarray(compared[name])).round(4).tolist()
    return ratio


def _scores(forecast_bps: Floats, cases: Cases, settings: ForecastSettings) -> dict[str, Any]:
    quantile = np.asarray(settings.quantiles)
    answered = np.isfinite(forecast_bps).all(axis=(1, 2))
    forecast, truth = forecast_bps[answered], cases.truth_bps[answered].astype(np.float64)
    loss = pinball_loss(forecast, truth.astype(np.float32), quantile)
    error = np.abs(forecast[:, :, int(np.argmin(np.abs(quantile - 0.5)))] - truth)
    return {
        "pinball": (loss / cases.rows.scale_bps[answered, None]).mean(axis=0).round(5).tolist(),
        "wape": (error.sum(axis=0) / truth.sum(axis=0)).round(4).tolist(),
        "coverage": coverage(forecast, truth.astype(np.float32)).round(3).tolist(),
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    known = (*MODELS, *SERIES_MODELS, *BASELINES)
    parser = argparse.ArgumentParser(
        prog="python -m bench.models", description="models side by side on one file"
    )
    parser.add_argument("file", type=Path, help=".npz with series (T, S) in Mbit/s and time (T,)")
    parser.add_argument("--json", type=Path, help="where the result goes; standard output without it")
    parser.add_argument("--models", default=",".join(known), help=f"some of {','.join(known)}")
    parser.add_argument("--horizons-s", help="seconds ahead, multiples of the step; 1 and 3 steps without it")
    parser.add_argument("--cutoffs", type=int, default=300, help="how many windows ETS and ARIMA are asked")
    args = parser.parse_args(argv)
    wanted = args.models.split(",")
    if unknown := set(wanted) - set(known):
        parser.error(f"--models must be some of {','.join(known)}, got {','.join(sorted(unknown))}")
    horizons = [float(part) for part in args.horizons_s.split(",")] if args.horizons_s else None
    write_figures(measure(args.file, wanted, horizons, args.cutoffs), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
