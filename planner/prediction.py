"""The forecasting half of the planner: a forecast at every completed step, for the loop and for the record."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.contest import Change
from forecasting.context import CONTEXT_STEPS
from forecasting.coverage import Coverage
from forecasting.forecast import Forecast, Rung
from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.reconcile import point_forecast
from forecasting.segments import class_of, level_of
from forecasting.settings import ForecastSettings
from planner.class_prediction import ClassPrediction
from planner.config import Config
from planner.forecast_figures import CONFIDENCE_BAND, coverage_of
from planner.history import DemandHistory
from planner.issued import IssuedForecasts
from planner.pool_names import row_of
from planner.retraining import Retraining
from planner.snapshot import ForecastQuality, Level, NotThere, PoolForecast
from planner.structure import Structure

LOG = logging.getLogger("tidegate.planner")

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Standing:
    """A forecast in force, with whose it is. Rows: all pools upload, then all download."""

    structure: Structure
    #: shape (2 x n_pools,): columns as ``DemandHistory`` numbers them.
    columns: I64
    forecast: Forecast
    #: Which model in turn made it.
    generation: int
    #: How often what came lay below each quantile, by level and horizon, as it stood then.
    coverage: tuple[Coverage, ...] = ()

    @cached_property
    def point_bps(self) -> F64:
        """Medians that add up the tree, shape (2 x n_pools, H): one tree an upload, one a download.

        Of all pools at once, so made when first asked for and then kept.
        """
        parent = self.structure.parent
        both = np.concatenate([parent, np.where(parent < 0, -1, parent + len(parent))])
        return point_forecast(self.forecast, both)


@dataclass(frozen=True)
class Arrived:
    """What came of a step, beside what had been forecast of it at the shortest horizon.

    Rows as in ``Standing``; shapes (2 x n_pools,). NaN: a gap, or nothing had been forecast.
    """

    structure: Structure
    columns: I64
    #: Epoch seconds, end of the step.
    end_time: float
    demand_bps: F32
    censored: Bool
    #: shape (K,)
    quantile: F64
    #: shape (2 x n_pools, K), as issued: calibrated and adjusted.
    forecast_bps: F32
    #: shape (2 x n_pools,): the ``forecasting.forecast.Rung`` that made it; the last where nothing was.
    rung: npt.NDArray[np.uint8]
    #: As it stood after the step, by level and horizon.
    coverage: tuple[Coverage, ...] = ()


#: Changes a forecast before anybody sees it: given (structure, forecast, now).
Adjustment = Callable[[Structure, Forecast, float], Forecast]
Listener = Callable[[Arrived], None]
#: Tells which series have a scheduled event on, shape (2 x n_pools,): given (structure, now, lead_s, tail_s).
Scheduled = Callable[[Structure, float, float, float], Bool]


class Prediction:
    """State of the forecasting half. ``step`` belongs to the loop; other threads hold the planner's lock.

    ``adjustments`` and ``listeners`` are where others join: the first change what is issued, the
    second hear what came. One that raises costs itself and is told in ``problems``.
    """

    def __init__(
        self, config: Config, history: DemandHistory, executor: Executor, trainer: Executor | None = None
    ) -> None:
        self.settings = forecast_settings(config)
        self.history = history
        self.models = Retraining(config.forecasting, self.settings, trainer or executor)
        self.issued = IssuedForecasts(self.settings.step_s)
        self.adjustments: list[Adjustment] = []
        self.listeners: list[Listener] = []
        self.classes = ClassPrediction(config, self.settings)
        #: Who knows what is announced; None: nobody.
        self.scheduled: Scheduled | None = None
        #: Swapped by reference: readers take it without the lock.
        self.standing: Standing | None = None
        #: Forecasts whose shortest horizon has not come yet.
        self._awaited: deque[Standing] = deque(maxlen=int(self.settings.horizon_steps[0]))
        #: Faults of those who joined, by their name.
        self._joined_errors: dict[str, str] = {}

    @property
    def forecaster(self) -> Forecaster:
        """What makes the forecasts."""
        return self.models.forecaster

    # The loop's.

    def step(self, now: float, structure: Structure | None, columns: I64, grant_bps: F64) -> Forecast | None:
        """The forecast in force: a new one when a step was completed, or the structure or model is new.

        ``columns`` has shape (2 x n_pools,), ``grant_bps`` (2, n_pools): what the last plan gave.
        """
        self.models.collect(now)
        self._joined(self.classes.traffic.gather, now)
        if structure is None:
            return None
        # A sample is a long copy: none is made while it would be turned down.
        if self.models.due(now) and self.history.ring.steps_held >= 2 * self.settings.min_history_steps:
            sample = self.history.sample(structure, columns, now, self.settings.train_steps)
            self.models.train(now, self._joined(self.classes.with_classes, sample, now) or sample)
        standing = self.standing
        if (
            standing is None
            or standing.structure is not structure
            or standing.generation != self.models.generation
            or standing.forecast.end_time != self.history.ring.last_end(now)
        ):
            standing = self._renewed(now, structure, columns, grant_bps)
            self._joined(self.classes.advance, False)
        else:
            self._joined(self.classes.advance, True)
        return standing.forecast

    def adopt(self, old: Structure, new: Structure) -> None:
        """Go on with a structure of the same pools in the same rows: what was forecast of them stands."""
        if self.standing is not None and self.standing.structure is old:
            self.standing = replace(self.standing, structure=new)

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands in the way of the best forecast, one line each."""
        return (*self.models.problems, *self._joined_errors.values())

    def _renewed(self, now: float, structure: Structure, columns: I64, grant_bps: F64) -> Standing:
        history = self.history.recent(structure, columns, now, self.forecaster.steps_wanted)
        self._joined(self.classes.completed, now, structure, history, self.forecaster.trained)
        trained = self.forecaster.trained
        if trained is not None and trained.spec.context:
            around = self._joined(self.classes.around, history, CONTEXT_STEPS)
            history = replace(history, context=around)
        for change in self.forecaster.observe(self._without_events(structure, history)):
            LOG.info("forecast: %s", _told(change, self.settings))
        coverage = self.forecaster.coverage()
        self._tell(structure, history, coverage)
        self.models.review(now)
        last_plan = grant_bps.reshape(-1)
        forecast = self.forecaster.forecast(history, last_plan)
        if self.models.gave_way(now):
            forecast = self.forecaster.forecast(history, last_plan)
        for adjust in self.adjustments:
            forecast = self._joined(adjust, structure, forecast, now) or forecast
        self.issued.add(structure.series, columns, history, forecast)
        self.standing = Standing(structure, columns, forecast, self.models.generation, coverage)
        if not self._awaited or self._awaited[-1].forecast.end_time < forecast.end_time:
            self._awaited.append(self.standing)
        else:
            # The same step again, or one before it: the clock was set back.
            self._awaited[-1] = self.standing
        return self.standing

    def _without_events(self, structure: Structure, history: History) -> History:
        """The history to learn from: what an event did is no fault of the forecast without it.

        Its effects are learnt elsewhere; calibration and the contest would take them for errors.
        """
        # A tail of one step: the event was on during a part of the step that ended now.
        active = self.announced(structure, history.end_time, 0.0, history.step_s)
        return replace(history, censored=history.censored | active) if active.any() else history

    def announced(self, structure: Structure, now: float, lead_s: float, tail_s: float) -> Bool:
        """Which series have a scheduled event on, shape (2 x n_pools,); none where nobody knows of any."""
        asked = (structure, now, lead_s, tail_s)
        active = None if self.scheduled is None else self._joined(self.scheduled, *asked)
        return np.zeros(2 * len(structure.path), np.bool_) if active is None else active

    def _tell(self, structure: Structure, history: History, coverage: tuple[Coverage, ...]) -> None:
        """Let those who listen know what came of the step that was completed."""
        if not self.listeners or not history.n_steps:
            return
        due = history.end_time - self.settings.horizons_s[0]
        made = next((one for one in self._awaited if one.forecast.end_time == due), None)
        # The same step is told once, although a new structure makes a new forecast of it.
        if made is None or (self.standing and self.standing.forecast.end_time >= history.end_time):
            return
        arrived = Arrived(
            structure, history.series_id, history.end_time, history.demand_bps[-1], history.censored[-1],
            made.forecast.quantile, *_rows_of(made, history.series_id), coverage,
        )  # fmt: skip
        for listener in self.listeners:
            self._joined(listener, arrived)

    def _joined(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Let somebody else do their part; their fault is not the forecast's."""
        name = getattr(work, "__qualname__", repr(work))
        try:
            done = work(*arguments)
        except Exception as error:
            if name not in self._joined_errors:
                LOG.exception("forecast: %s failed", name)
            self._joined_errors[name] = f"forecast goes on without {name}: {error!r}"
            return None
        self._joined_errors.pop(name, None)
        return done

    # What readers ask, from any thread.

    def of_pool(self, pool: str, since: float, application: str | None = None) -> PoolForecast:
        """The forecast in force of one pool, and what was issued since then beside what came.

        ``application`` : of a user, only this class.

        Raises
        ------
        NotThere : if no path is ``pool``, and not exactly one ends with it; nothing was forecast yet; or
            there is no such class, or no forecast of it.
        """
        standing = self.standing
        if standing is None:
            raise NotThere(f"pool must be one that is forecast, got {pool!r} before the first forecast")
        s, forecast = standing.structure, standing.forecast
        row, n = row_of(s.path, pool), len(s.path)
        rows = [row, n + row]
        point = standing.point_bps[rows]
        classes: tuple[PoolForecast, ...] = ()
        if s.level[row] == Level.USER:
            classes = self.classes.of_user(s.users[row - s.first_user], s.path[row], point, since)
        if application is not None:
            return self._of_application(s.path[row], classes, application)
        return PoolForecast(
            path=s.path[row],
            end_time=forecast.end_time,
            horizon_s=forecast.horizon_s,
            quantile=forecast.quantile,
            demand_bps=forecast.demand_bps[rows],
            rung=(int(forecast.rung[row]), int(forecast.rung[n + row])),
            issued=(
                self.issued.history(s.series[row], 0, since),
                self.issued.history(s.series[row], 1, since),
            ),
            coverage=coverage_of(standing.coverage, 2 * int(s.level[row]), forecast),
            point_bps=point,
            confidence=forecast.confidence(CONFIDENCE_BAND, 0.0, rows),
            applications=classes,
        )

    def _of_application(self, path: str, found: tuple[PoolForecast, ...], wanted: str) -> PoolForecast:
        names = self.classes.applications
        if wanted not in names:
            raise NotThere(f"application must be one of {', '.join(names)}, got {wanted!r}")
        for one in found:
            if one.application == wanted:
                return one
        own = ", ".join(str(one.application) for one in found) or "none"
        raise NotThere(f"application must be one that is forecast of {path} ({own}), got {wanted!r}")

    def quality(self) -> ForecastQuality:
        """How good forecasts have been, by level and by segment. Hold the planner's lock."""
        own, standing = self.forecaster, self.standing
        return ForecastQuality(
            end_time=np.nan if standing is None else standing.forecast.end_time,
            horizon_s=np.asarray(self.settings.horizons_s, np.float64),
            quantile=np.asarray(self.settings.quantiles, np.float64),
            coverage=_once(own.coverage() + self.classes.coverage()),
            champion=own.record.contest.champion.copy(),
            loss=own.record.contest.scores(),
            changes=tuple(own.record.contest.changes),
            live_score=own.live_score(),
        )


def _once(coverage: tuple[Coverage, ...]) -> tuple[Coverage, ...]:
    """One figure a level and horizon: of classes that are pools, rather than of those that are only accounted for."""
    found: dict[tuple[int, float], Coverage] = {}
    for one in coverage:
        found.setdefault((one.level, one.horizon_s), one)
    return tuple(found.values())


def _told(change: Change, settings: ForecastSettings) -> str:
    return (
        f"{segment_name(change.segment)} {settings.horizons_s[change.horizon]:g} s ahead: "
        f"{change.before.name.lower()} -> {change.after.name.lower()} "
        f"(loss {change.before_loss:.4g} -> {change.after_loss:.4g})"
    )


def segment_name(segment: int) -> str:
    """What people call a segment: its level, direction and kind of traffic."""
    level, direction = divmod(level_of(segment), 2)
    return f"{Level(level).name.lower()} {('up', 'down')[direction]} {class_of(segment)}"


def _rows_of(made: Standing, columns: I64) -> tuple[F32, npt.NDArray[np.uint8]]:
    """The shortest horizon by other columns: quantiles of shape (n, K), NaN for series without, and rungs."""
    forecast_bps, rung = made.forecast.demand_bps[:, 0], made.forecast.rung
    if np.array_equal(made.columns, columns):
        return forecast_bps, rung
    order = np.argsort(made.columns)
    place = np.minimum(np.searchsorted(made.columns, columns, sorter=order), len(order) - 1)
    row = order[place]
    known = made.columns[row] == columns
    return (
        np.where(known[:, None], forecast_bps[row], np.float32(np.nan)),
        np.where(known, rung[row], np.uint8(Rung.LAST_PLAN)),
    )


def forecast_settings(config: Config) -> ForecastSettings:
    """The forecaster's settings that this configuration means."""
    f = config.forecasting
    return ForecastSettings(
        step_s=f.step_s,
        horizons_s=f.horizons_s,
        quantiles=f.quantiles,
        model=f.model,
        window_steps=f.window_steps,
        min_history_steps=f.min_history_steps,
        train_steps=f.train_steps,
    )
