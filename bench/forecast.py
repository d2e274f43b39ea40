"""Forecasts of recorded traffic with the shipped defaults, scored beside every baseline.

Trains on the first part of a file and rolls through the rest: at each step the
forecaster learns from what came, then forecasts. Nothing after a cutoff is used for it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from bench.figures import write_figures
from forecasting.baselines import auto_bandwidth, heyp, last_value, seasonal_naive, window_quantiles
from forecasting.contest import Contestant
from forecasting.forecast import Rung
from forecasting.forecaster import Forecaster
from forecasting.history import Floats, History
from forecasting.quantiles import nearest
from forecasting.scoring import pinball_loss
from forecasting.seasonal import DAY_S, Blocks, blocks_of, recalled
from forecasting.settings import ForecastSettings
from forecasting.training import NotEnoughHistory, sample_series, train

Doubles = npt.NDArray[np.float64]

MEGA: Final = 1e6
#: Share of a file that is trained on, unless ``--train-until`` says otherwise.
TRAIN_SHARE: Final = 0.7
#: Share of demand that may go unserved where grants are compared.
UNSERVED: Final = 0.01
#: Series that a picture shows.
PLOTTED: Final = 4
#: Levels of the central 80 % band.
BAND: Final = (0.1, 0.9)
_CONSOLE: Final = Console(stderr=True)


@dataclass(frozen=True)
class Series:
    """A file in the series format, in bit/s."""

    #: shape (T, S), NaN is a gap.
    demand_bps: Floats
    #: shape (T,), epoch seconds: when each row's step ended.
    time: Doubles
    names: npt.NDArray[np.str_]
    step_s: float

    @classmethod
    def load(cls, path: Path) -> Series:
        """Read ``series`` (T, S) in Mbit/s, ``time`` (T,) on a regular grid, ``names`` (S,).

        Raises
        ------
        ValueError : naming the path, the rule and the value.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                series, epoch, names = (stored[name] for name in ("series", "time", "names"))
        except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: must be an .npz with series, time and names: {error}") from None
        if series.ndim != 2 or len(epoch) != len(series) or len(names) != series.shape[1]:
            shapes = f"{series.shape}, {epoch.shape}, {names.shape}"
            raise ValueError(f"{path}: shapes must be (T, S), (T,), (S,), got {shapes}")
        steps = np.unique(np.diff(epoch))
        if len(steps) != 1 or steps[0] <= 0:
            raise ValueError(f"{path}: time must lie on a regular, rising grid, got steps {steps[:5]}")
        demand = series.astype(np.float32) * np.float32(MEGA)
        return cls(demand, epoch.astype(np.float64), names.astype(str), float(steps[0]))

    def until(self, row: int, rows: int | None = None) -> History:
        """History as it stood when a row had ended; only the latest ``rows`` of it."""
        start = 0 if rows is None else max(row + 1 - rows, 0)
        demand = self.demand_bps[start : row + 1]
        return History(demand, np.zeros(demand.shape, np.bool_), self.step_s, float(self.time[row]))


@dataclass
class Rolled:
    """Everybody's forecasts over the test period, by method: shape (C, H, S, K)."""

    #: shape (C,), rows of the file.
    cutoff: npt.NDArray[np.int64]
    made: dict[str, Floats]
    #: shape (C, H, S), bit/s; NaN where unknown.
    came: Floats
    #: shape (C, S), last value at the cutoff.
    last: Floats
    #: shape (C, H, S), who spoke; 255 below the model's rung.
    spoken: npt.NDArray[np.uint8]
    fit_s: float = 0.0
    trainings: int = 0
    forecast_ms: list[float] = field(default_factory=list)


def settings_for(series: Series, horizons_s: list[float]) -> ForecastSettings:
    """The shipped defaults, for the file's step and the horizons asked for.

    A horizon that is no multiple of the step is asked of the next one; said on the error output.
    """
    steps = [max(round(h / series.step_s + 0.499), 1) for h in horizons_s]
    used = tuple(sorted({step * series.step_s for step in steps}))
    if list(used) != sorted(horizons_s):
        _CONSOLE.print(
            f"horizons must be multiples of the file's step {series.step_s:g} s, "
            f"got {', '.join(f'{h:g}' for h in horizons_s)}: using {', '.join(f'{h:g}' for h in used)}"
        )
    return ForecastSettings(step_s=series.step_s, horizons_s=used, threads=2)


def roll(
    series: Series, settings: ForecastSettings, first: int, stride: int, retrain_every_s: float
) -> Rolled:
    """Train on the rows before ``first``, then forecast at every ``stride``-th row to the end."""
    ahead = settings.horizon_steps
    n_steps, n_series = series.demand_bps.shape
    quantile = np.asarray(settings.quantiles)
    cutoffs = np.arange(first - 1, n_steps - int(ahead[0]))
    scored = cutoffs[::stride]
    shape = (len(scored), len(ahead), n_series, len(quantile))
    rolled = Rolled(
        cutoff=scored,
        made={name: np.full(shape, np.nan, np.float32) for name in ("tidegate", "model")},
        came=np.full(shape[:3], np.nan, np.float32),
        last=np.full((len(scored), n_series), np.nan, np.float32),
        spoken=np.full(shape[:3], 255, np.uint8),
    )
    forecaster = Forecaster(settings)
    blocks = blocks_of(series.demand_bps, series.step_s, float(series.time[-1]))
    trained_at = -np.inf
    position = {int(cutoff): row for row, cutoff in enumerate(scored)}
    no_plan = np.full(n_series, np.nan)
    for cutoff in track(cutoffs, f"forecasting {len(cutoffs)} steps", console=_CONSOLE):
        now = float(series.time[cutoff])
        if now - trained_at >= retrain_every_s:
            _train(series, settings, forecaster, int(cutoff), rolled)
            trained_at = now
        history = series.until(int(cutoff), forecaster.steps_wanted)
        # A day ago and a week ago only: what it reads had ended long before the cutoff.
        history = replace(history, recalled_bps=_known(blocks, now, settings))
        started = time.perf_counter()
        forecaster.observe(history)
        forecast = forecaster.forecast(history, no_plan)
        rolled.forecast_ms.append((time.perf_counter() - started) * 1e3)
        row = position.get(int(cutoff))
        if row is None:
            continue
        rolled.made["tidegate"][row] = forecast.demand_bps.transpose(1, 0, 2)
        champion = (
            forecast.champion if forecast.champion is not None else np.zeros(shape[1:3][::-1], np.uint8)
        )
        rolled.spoken[row] = np.where(forecast.rung[:, None] == Rung.MODEL, champion, 255).T
        rolled.last[row] = last_value(history.demand_bps[-settings.stale_steps - 1 :])
        target = cutoff + ahead
        inside = target < n_steps
        rolled.came[row, inside] = series.demand_bps[target[inside]]
    return rolled


def _known(blocks: Blocks, now: float, settings: ForecastSettings) -> Floats:
    return recalled(blocks, now, settings.horizon_steps, settings.step_s)


def _train(
    series: Series, settings: ForecastSettings, forecaster: Forecaster, cutoff: int, rolled: Rolled
) -> None:
    started = time.perf_counter()
    history = sample_series(series.until(cutoff), settings)
    try:
        forecaster.install(train(history, settings))
    except NotEnoughHistory as error:
        _CONSOLE.print(f"not trained: {error}")
        return
    rolled.fit_s += time.perf_counter() - started
    rolled.trainings += 1


def add_baselines(series: Series, settings: ForecastSettings, first: int, rolled: Rolled) -> None:
    """The simpler methods' forecasts at the same cutoffs, as quantiles.

    Point forecasts get the quantiles of their own past errors, series by series, from the training
    part: additive ones for those that aim at the middle.
    """
    quantile = np.asarray(settings.quantiles)
    ahead = settings.horizon_steps
    step_s = series.step_s
    day = max(round(DAY_S / step_s), 1)
    rows = max(round(900 / step_s), 1)
    demand = series.demand_bps
    past = np.unique(np.linspace(max(first - 4032, day), first - int(ahead[-1]) - 1, 1500).astype(int))
    past = past[past >= 0]
    window = settings.window_steps

    def points(cutoff: int) -> dict[str, Floats]:
        seen = demand[max(cutoff + 1 - max(day, window), 0) : cutoff + 1]
        flat = {
            "persistence": last_value(seen[-settings.stale_steps - 1 :]),
            "auto_bandwidth": auto_bandwidth(seen[-rows:], step_s),
            "heyp": heyp(seen[-rows:], step_s),
        }
        made = {name: np.repeat(value[:, None], len(ahead), axis=1) for name, value in flat.items()}
        made["seasonal_naive"] = seasonal_naive(seen[-day:], ahead, day)
        return made

    names = ("persistence", "auto_bandwidth", "heyp", "seasonal_naive")
    errors: dict[str, Floats] = {
        name: np.full((len(past), demand.shape[1], len(ahead)), np.nan, np.float32) for name in names
    }
    for index, cutoff in enumerate(past):
        made = points(int(cutoff))
        for name in names:
            errors[name][index] = demand[cutoff + ahead].T - made[name]
    with np.errstate(all="ignore"):
        curve = {
            name: np.nan_to_num(_nanquantile(error, quantile)).transpose(1, 2, 0)
            for name, error in errors.items()
        }
    shape = rolled.made["tidegate"].shape
    for name in (*names, "recent_hour_quantiles", "recent_day_quantiles"):
        rolled.made[name] = np.full(shape, np.nan, np.float32)
    hour = max(round(3600 / step_s), 8)
    for row, cutoff in enumerate(track(rolled.cutoff, "baselines", console=_CONSOLE)):
        for name, point in points(int(cutoff)).items():
            fan = np.maximum(point[..., None] + curve[name], 0)
            rolled.made[name][row] = fan.transpose(1, 0, 2)
        for name, span in (("recent_hour_quantiles", hour), ("recent_day_quantiles", day)):
            seen = demand[max(cutoff + 1 - span, 0) : cutoff + 1]
            rolled.made[name][row] = window_quantiles(seen, quantile)[None]


def _nanquantile(values: Floats, quantile: Doubles) -> Doubles:
    """Quantiles over the first axis, shape (K, ...); NaN where nothing is known."""
    flat = values.reshape(len(values), -1)
    return window_quantiles(flat, quantile).T.reshape(len(quantile), *values.shape[1:]).astype(np.float64)


def score(
    rolled: Rolled, method: str, quantile: Doubles, common: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """One method's figures per horizon, over the truths that all methods forecast."""
    made = rolled.made[method]
    middle, low, high = (nearest(quantile, level) for level in (0.5, *BAND))
    result = []
    for horizon in range(made.shape[1]):
        known = common[:, horizon]
        came, fan = rolled.came[:, horizon][known], made[:, horizon][known]
        below_low, below_high = (
            ((came < fan[:, level]).mean(), (came == fan[:, level]).mean()) for level in (low, high)
        )
        result.append(
            {
                "wape": float(np.abs(fan[:, middle] - came).sum() / max(came.sum(), 1e-9)),
                "pinball": float(pinball_loss(fan, came, quantile).mean() / MEGA),
                # A band holds its edges. Idle series lie on them, so the same with edges half in it.
                "coverage_80": float(below_high[0] + below_high[1] - below_low[0]),
                "coverage_90_upper": float(below_high[0] + below_high[1]),
                "coverage_80_edges_half": float(
                    below_high[0] + below_high[1] / 2 - below_low[0] - below_low[1] / 2
                ),
                "coverage_90_upper_edges_half": float(below_high[0] + below_high[1] / 2),
            }
        )
    return result


def granted_at_unserved(
    rolled: Rolled, quantile: Doubles, common: npt.NDArray[np.bool_]
) -> list[dict[str, float]]:
    """Granted / demand at the same unserved share: quantile grants beside scaled auto-bandwidth, per horizon.

    The forecast's grant is one quantile level for all; auto-bandwidth's its figure times one factor.
    """
    fans = rolled.made["tidegate"]
    auto = rolled.made["auto_bandwidth_point"][..., 0]
    result = []
    for horizon in range(fans.shape[1]):
        known = common[:, horizon]
        came = rolled.came[:, horizon][known].astype(np.float64)
        fan, point = fans[:, horizon][known].astype(np.float64), auto[:, horizon][known].astype(np.float64)
        ours = _least_grant(lambda share, fan=fan: _level(fan, quantile, share), came)
        theirs = _least_grant(lambda share, point=point: point * 16**share / 4, came)
        result.append({"tidegate": ours, "auto_bandwidth": theirs, "ratio": ours / theirs})
    return result


def _level(fan: Doubles, quantile: Doubles, share: float) -> Doubles:
    """The fan at a level between its quantiles; beyond the last one, further by the same slope."""
    level = 0.05 + share * 1.95
    if level >= quantile[-1]:
        beyond = (level - quantile[-1]) / (1 - quantile[-1])
        return np.asarray(fan[:, -1] + beyond * 0.2 * np.maximum(fan[:, -1] - fan[:, nearest(quantile)], 0))
    place = np.interp(level, quantile, np.arange(len(quantile)))
    low = int(place)
    high = min(low + 1, len(quantile) - 1)
    return np.asarray(fan[:, low] + (fan[:, high] - fan[:, low]) * (place - low))


def _least_grant(grant_at: Any, came: Doubles) -> float:
    """Granted / demand where unserved / demand just reaches ``UNSERVED``; ``grant_at`` rises over 0 .. 1."""
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        short = np.maximum(came - grant_at(middle), 0).sum() / came.sum()
        low, high = (middle, high) if short > UNSERVED else (low, middle)
    return float(grant_at(high).sum() / came.sum())


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark; gives what goes to the JSON file."""
    series = Series.load(arguments.data)
    settings = settings_for(series, arguments.horizons)
    first = _first_test_row(series, arguments.train_until)
    rolled = roll(series, settings, first, arguments.stride, arguments.retrain_every_s)
    quantile = np.asarray(settings.quantiles)
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del rolled.made["model"]
    add_baselines(series, settings, first, rolled)
    common = np.isfinite(rolled.came)
    for made in rolled.made.values():
        common &= np.isfinite(made[..., 0])
    _add_auto_bandwidth_points(series, settings, rolled)
    scores = {
        name: score(rolled, name, quantile, common) for name in rolled.made if not name.endswith("_point")
    }
    grants = granted_at_unserved(rolled, quantile, common)
    n_series = len(series.names)
    report = {
        "data": arguments.data.name,
        "step_s": series.step_s,
        "series": n_series,
        "train_rows": first,
        "test_cutoffs": len(rolled.cutoff),
        "quantile": list(settings.quantiles),
        "fit_s": rolled.fit_s / max(rolled.trainings, 1),
        "trainings": rolled.trainings,
        "predict_ms_per_1000_series": float(np.median(rolled.forecast_ms)) / n_series * 1000,
        "peak_rss_mb": rss_mb,
        "horizons": [
            {
                "horizon_s": horizon_s,
                **scores["tidegate"][index],
                "truths": int(common[:, index].sum()),
                "champions": _champions(rolled.spoken[:, index][common[:, index]]),
                "granted_over_demand_at_1_percent_unserved": grants[index],
                "methods": {name: one[index] for name, one in scores.items()},
            }
            for index, horizon_s in enumerate(settings.horizons_s)
        ],
    }
    if arguments.dump:
        arguments.dump.mkdir(parents=True, exist_ok=True)
        np.savez(
            arguments.dump / "forecasts.npz",
            quantile=quantile,
            horizon_s=np.asarray(settings.horizons_s),
            cutoff=series.time[rolled.cutoff].astype(np.int64),
            forecast=rolled.made["tidegate"] / np.float32(MEGA),
            names=series.names,
        )
    if arguments.plot:
        _plot(arguments.plot, series, settings, rolled)
    return report


def _plot(file: Path, series: Series, settings: ForecastSettings, rolled: Rolled) -> None:
    """The latest day of the first few series, at the longest horizon."""
    from bench.forecast_plot import save_fans

    shown = min(len(series.names), PLOTTED)
    horizon = len(settings.horizons_s) - 1
    steps = max(round(DAY_S / series.step_s / max(int(np.diff(rolled.cutoff[:2])[0]), 1)), 8)
    rows = slice(-steps, None)
    save_fans(
        file,
        [str(name) for name in series.names[:shown]],
        series.time[rolled.cutoff[rows]] + settings.horizons_s[horizon],
        rolled.came[rows, horizon, :shown],
        rolled.made["tidegate"][rows, horizon, :shown],
        np.asarray(settings.quantiles),
        settings.horizons_s[horizon],
    )


def _add_auto_bandwidth_points(series: Series, settings: ForecastSettings, rolled: Rolled) -> None:
    rows = max(round(900 / series.step_s), 1)
    points = np.stack(
        [
            auto_bandwidth(series.demand_bps[max(c + 1 - rows, 0) : c + 1], series.step_s)
            for c in rolled.cutoff
        ]
    )
    shape = (*rolled.came.shape, 1)
    rolled.made["auto_bandwidth_point"] = np.broadcast_to(np.nan_to_num(points)[:, None, :, None], shape)


def _champions(spoken: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Share of forecasts that each contestant made."""
    names = {int(one): one.name.lower() for one in Contestant} | {255: "lower_rung"}
    return {
        name: float((spoken == number).mean()) for number, name in names.items() if (spoken == number).any()
    }


def _first_test_row(series: Series, train_until: float | None) -> int:
    if train_until is None:
        return int(len(series.time) * TRAIN_SHARE)
    first = int(np.searchsorted(series.time, train_until, side="right"))
    if not 0 < first < len(series.time):
        raise ValueError(
            f"--train-until must lie inside the file, {series.time[0]:.0f} .. {series.time[-1]:.0f}, got {train_until:.0f}"
        )
    return first


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {text}")
    return value


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.forecast", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a .npz with series, time and names")
    parser.add_argument(
        "--horizons",
        type=lambda text: [_positive(part) for part in text.split(",")],
        default=[300.0, 900.0],
        help="seconds ahead, separated by commas (default 300,900)",
    )
    parser.add_argument("--json", type=Path, help="where the figures go (default: the screen)")
    parser.add_argument("--dump", type=Path, help="folder for forecasts.npz")
    parser.add_argument("--plot", type=Path, help="picture of the latest day, fans against what came")
    parser.add_argument("--train-until", type=float, help="epoch seconds (default: the first 70 %%)")
    parser.add_argument("--stride", type=int, default=1, help="score every so many-th cutoff (default 1)")
    parser.add_argument(
        "--retrain-every-s",
        type=_positive,
        default=604_800.0,
        help="train again so often, seconds (default: a week; the planner does every 15 minutes)",
    )
    arguments = parser.parse_args()
    try:
        report = run(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    write_figures(report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
