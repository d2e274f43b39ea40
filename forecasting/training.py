"""From history to a model, and the contest that lets it replace the one before.

Pure functions over picklable values, so that they run in a worker process
(`ProcessPoolExecutor`, spawned) or on another machine. Nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.baselines import last_value, mean_present, persistence_quantiles
from forecasting.censoring import unconstrained
from forecasting.context import CHANNELS, CONTEXT_STEPS, channels_known
from forecasting.features import LEVEL_FLOOR_BPS, FeatureRows, FeatureSpec, feature_rows, recurring_periods
from forecasting.history import Floats, History, Ints, clean
from forecasting.models import ModelFailed, QuantileModel, new_model
from forecasting.scoring import pinball_loss
from forecasting.seasonal import DAY_S, WEEK_S, blocks_of, recalled
from forecasting.settings import ForecastSettings

#: What counts in a network is bit/s, so busier series are drawn more often: by their mean rate to this
#: power. All alike lost up to 9 % of WAPE on bursty machines; by volume alone, small series forecast badly.
BUSY_POWER: Final = 0.35
#: Fewer rows than this teach nothing worth having.
MIN_ROWS: Final = 100
#: Rows that a contest scores; its error is then well below the gaps it judges.
CONTEST_ROWS: Final = 30_000
#: Targets beyond this many levels count as this: one burst of an idle series must
#: not outweigh everybody else. Quantiles inside the bound do not move.
TARGET_BOUND: Final = 20.0
#: Series that are asked for their period.
PERIOD_SERIES: Final = 512
#: Without a champion the model may trail last value by this much: calibration
#: improves it from then on, and flat traffic leaves nothing to win.
FIRST_MODEL_MARGIN: Final = 0.05


class NotEnoughHistory(Exception):
    """There is too little to learn from; use the rungs below the model until there is more."""


@dataclass(frozen=True)
class TrainedModel:
    """A model as a value: it can be pickled, stored and sent."""

    kind: str
    #: What ``QuantileModel.from_bytes`` reads.
    body: bytes
    spec: FeatureSpec
    quantiles: tuple[float, ...]
    #: Epoch seconds; nothing after it was seen in training.
    trained_until: float
    n_rows: int

    def load(self, settings: ForecastSettings) -> QuantileModel:
        """The model, ready to predict.

        Raises
        ------
        ModelFailed : when it was made for other settings or its bytes are damaged.
        """
        for name, own, wanted in (
            ("model", self.kind, settings.model),
            ("quantiles", self.quantiles, settings.quantiles),
            ("step_s", self.spec.step_s, settings.step_s),
        ):
            if own != wanted:
                raise ModelFailed(f"model was trained for {name} {own!r}, settings say {wanted!r}")
        unknown = [name for name in self.spec.context if name not in CHANNELS]
        if unknown:
            raise ModelFailed(
                f"model was trained with features {', '.join(unknown)}, which are not known here"
            )
        model = new_model(settings)
        model.from_bytes(self.body)
        return model


@dataclass(frozen=True)
class Verdict:
    """Outcome of a contest on steps that no contestant was trained on.

    Scores are mean pinball loss in units of each series' level; smaller is better.
    """

    promoted: bool
    challenger_score: float
    #: NaN where there was no champion, or it could not be read.
    champion_score: float
    #: Last value with the quantiles of its past residuals.
    persistence_score: float
    n_rows: int
    reason: str


@dataclass(frozen=True)
class Drawn:
    """Sampled windows with what came after them."""

    rows: FeatureRows
    #: shape (n, H), bit/s; NaN where unknown or outside the steps asked for.
    target_bps: Floats
    #: shape (n,), bit/s.
    last_bps: Floats


def sample_series(history: History, settings: ForecastSettings, at_most: int = 2000) -> History:
    """A smaller history with every level still in it, to send to a worker.

    Each level keeps all its series or an even share of ``at_most``, drawn by
    the settings' seed.
    """
    history = history.tail(settings.train_steps)
    if history.n_series <= at_most:
        return history
    return history.pick(choose_series(history.level, at_most, settings.seed))


def choose_series(level: Ints, at_most: int, seed: int = 0) -> Ints:
    """Rows of some series of every level, rising; all where there are no more than ``at_most``.

    ``level`` has shape (S,). Each level keeps all its series or an even share of ``at_most``.
    """
    if len(level) <= at_most:
        return np.arange(len(level))
    rng = np.random.default_rng(seed)
    levels = np.unique(level)
    share = max(at_most // len(levels), 1)
    kept = []
    for one in levels:
        members = np.flatnonzero(level == one)
        kept.append(members if len(members) <= share else rng.choice(members, share, replace=False))
    return np.sort(np.concatenate(kept))


def train(history: History, settings: ForecastSettings) -> TrainedModel:
    """A model of all series together, blind to the latest steps.

    The latest ``settings.holdout_share`` of the rows is left for ``challenge``.

    Raises
    ------
    NotEnoughHistory : when fewer than ``MIN_ROWS`` training rows can be made, or all say the same.
    """
    history = history.tail(settings.train_steps)
    history = history.until(_split(history, settings))
    demand = _demand(history, settings)
    model = new_model(settings)
    spec = replace(
        _choose_features(demand, settings),
        context=channels_known(history.context),
        sequence_steps=model.sequence_steps,
    )
    rng = np.random.default_rng(settings.seed)
    n_windows = max(settings.train_rows // len(settings.horizons_s), 1)
    drawn = draw(history, demand, settings, spec, n_windows, rng, favour=_favour(demand))
    y = drawn.rows.to_target(drawn.target_bps).reshape(-1)
    known = np.isfinite(y)
    n_rows = int(np.count_nonzero(known))
    if n_rows < MIN_ROWS:
        raise NotEnoughHistory(f"training rows must be >= {MIN_ROWS}, got {n_rows}")
    target = np.clip(y[known], -TARGET_BOUND, TARGET_BOUND)
    if target.min() == target.max():
        raise NotEnoughHistory(f"training targets must differ, all are {target[0]:g}: traffic never changed")
    model.fit(drawn.rows.x[known], target)
    return TrainedModel(
        kind=settings.model,
        body=model.to_bytes(),
        spec=spec,
        quantiles=settings.quantiles,
        trained_until=history.end_time,
        n_rows=n_rows,
    )


def challenge(
    champion: TrainedModel | None, challenger: TrainedModel, history: History, settings: ForecastSettings
) -> Verdict:
    """Whether the challenger scores better on the latest steps, unseen by either.

    Raises
    ------
    NotEnoughHistory : when there is no known step after both were trained.
    """
    history = history.tail(settings.train_steps)
    seen_until = max(model.trained_until for model in (champion, challenger) if model is not None)
    n_unseen = int(np.floor((history.end_time - seen_until) / history.step_s + 1e-6))
    n_seen = max(history.n_steps - n_unseen, 0)
    demand = _demand(history, settings)
    # Made once for all drawings below, which read at each cutoff only blocks that had ended by then.
    history = replace(history, blocks=history.blocks or blocks_of(demand, history.step_s, history.end_time))
    quantile = np.asarray(settings.quantiles)

    def drawn_from(spec: FeatureSpec, first_target: int, until: int) -> Drawn:
        rng = np.random.default_rng(settings.seed)
        n_windows = CONTEST_ROWS // len(settings.horizons_s)
        part = history.until(until)
        return draw(part, demand[:until], settings, spec, n_windows, rng, first_target)

    def score(drawn: Drawn, forecast: Floats) -> float:
        loss = pinball_loss(forecast, drawn.target_bps, quantile) / drawn.rows.scale_bps[:, None]
        return float(np.nanmean(loss))

    held_out = drawn_from(challenger.spec, n_seen, history.n_steps)
    n_rows = int(np.count_nonzero(np.isfinite(held_out.target_bps)))
    if n_rows == 0:
        raise NotEnoughHistory("a contest needs known steps after both models were trained, got 0")
    challenger_score = score(held_out, _predict(challenger, held_out, settings))

    past = drawn_from(challenger.spec, 0, n_seen)
    residual = (past.target_bps - past.last_bps[:, None]) / past.rows.scale_bps[:, None]
    naive = persistence_quantiles(held_out.last_bps, held_out.rows.scale_bps, residual, quantile)
    persistence_score = score(held_out, naive)

    champion_score = float("nan")
    if champion is not None:
        try:
            # Same seed and steps, so the same windows; only the champion's features differ.
            own = drawn_from(champion.spec, n_seen, history.n_steps)
            champion_score = score(own, _predict(champion, own, settings))
        except ModelFailed as error:
            promoted, reason = True, f"champion is unusable: {error}"
        else:
            promoted = challenger_score < champion_score
            reason = f"champion scores {champion_score:.4f}"
    else:
        promoted = challenger_score <= persistence_score * (1 + FIRST_MODEL_MARGIN)
        reason = f"no champion; persistence scores {persistence_score:.4f}"
    return Verdict(promoted, challenger_score, champion_score, persistence_score, n_rows, reason)


def retrain(
    history: History, settings: ForecastSettings, champion: TrainedModel | None
) -> tuple[TrainedModel, Verdict]:
    """Train and contest in one go: the task for a worker process.

    Raises
    ------
    NotEnoughHistory : as ``train`` and ``challenge`` do.
    """
    challenger = train(history, settings)
    return challenger, challenge(champion, challenger, history, settings)


def draw(
    history: History,
    demand_bps: Floats,
    settings: ForecastSettings,
    spec: FeatureSpec,
    n_windows: int,
    rng: np.random.Generator,
    first_target: int = 0,
    favour: npt.NDArray[np.float64] | None = None,
) -> Drawn:
    """Windows at random series and cutoffs whose targets lie at ``first_target`` or later.

    ``favour`` of shape (S,) says how often each series is drawn, as shares of one; without it
    all alike. Where there are no more windows than asked for, all are taken.
    Only windows from which the model would be asked to forecast: enough
    samples, none of them stale.

    Raises
    ------
    NotEnoughHistory : when there is no such window.
    """
    n_steps, n_series = demand_bps.shape
    ahead = settings.horizon_steps
    first = max(settings.min_history_steps - 1, first_target - int(ahead[-1]))
    n_cutoffs = n_steps - int(ahead[0]) - first
    if n_cutoffs <= 0 or n_series == 0:
        raise NotEnoughHistory(
            f"history must have at least {first + int(ahead[0]) + 1} steps of some series, "
            f"got {n_steps} of {n_series}"
        )
    total = n_cutoffs * n_series
    if total > n_windows and favour is not None:
        series = rng.choice(n_series, n_windows, p=favour)
        cutoff = first + rng.integers(0, n_cutoffs, n_windows)
    else:
        chosen = np.arange(total) if total <= n_windows else rng.choice(total, n_windows, replace=False)
        cutoff, series = first + chosen // n_series, chosen % n_series
    rows = cutoff + np.arange(1 - spec.window_steps, 1)[:, None]
    window = np.where(rows >= 0, demand_bps[np.maximum(rows, 0), series], np.float32(np.nan))
    censored = history.censored[np.maximum(rows, 0), series] & (rows >= 0)
    ends = history.end_time - (n_steps - 1 - cutoff) * history.step_s
    target_row = cutoff[:, None] + ahead
    inside = (target_row < n_steps) & (target_row >= first_target)
    target = demand_bps[np.minimum(target_row, n_steps - 1), series[:, None]]
    # Serving reads the blocks that are kept apart, so training does. Those of a day ago ended long
    # before the cutoff: nothing of the future leaks in.
    blocks = history.blocks or blocks_of(demand_bps, history.step_s, history.end_time)
    ago = recalled(blocks, ends, ahead, history.step_s, series)
    around = history.context_at(rows[-CONTEXT_STEPS:], series) if spec.context else None
    features = feature_rows(window, censored, ends, ahead, spec, ago, around)
    usable = answerable(features.n_present, features.since_sample, settings)
    return Drawn(
        rows=features,
        target_bps=np.where(inside & usable[:, None], target, np.float32(np.nan)),
        last_bps=last_value(window),
    )


def answerable(n_present: Ints, since_sample: Ints, settings: ForecastSettings) -> npt.NDArray[np.bool_]:
    """Whether a window holds what the model needs: enough samples, the latest not stale."""
    return (n_present >= settings.min_history_steps) & (since_sample <= settings.stale_steps)


def _favour(demand_bps: Floats) -> npt.NDArray[np.float64]:
    """How often each series is drawn for training, shape (S,), shares of one."""
    mean = np.nan_to_num(mean_present(demand_bps).astype(np.float64))
    busy = np.maximum(mean, LEVEL_FLOOR_BPS) ** BUSY_POWER
    return np.asarray(busy / busy.sum())


def _predict(trained: TrainedModel, drawn: Drawn, settings: ForecastSettings) -> Floats:
    return drawn.rows.from_target(trained.load(settings).predict(drawn.rows.x))


def _split(history: History, settings: ForecastSettings) -> int:
    return history.n_steps - max(round(history.n_steps * settings.holdout_share), 1)


def _demand(history: History, settings: ForecastSettings) -> Floats:
    return unconstrained(clean(history.demand_bps, settings.max_rate_bps), history.censored)


def _choose_features(demand: Floats, settings: ForecastSettings) -> FeatureSpec:
    span_s = demand.shape[0] * settings.step_s
    stride = max(demand.shape[1] // PERIOD_SERIES, 1)
    # Longer than a few windows teaches nothing about periods that must fit in one.
    recent = demand[-8 * settings.window_steps :, ::stride]
    return FeatureSpec(
        step_s=settings.step_s,
        window_steps=settings.window_steps,
        periods=recurring_periods(recent, settings.window_steps),
        use_day=span_s >= 2 * DAY_S,
        use_week=span_s >= 2 * WEEK_S,
    )
