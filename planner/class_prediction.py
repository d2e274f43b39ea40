"""Forecasts of users' application classes, by the pools' model, beside the pools' own.

They have a forecaster of their own, with the same trained model: its calibration, contest and coverage are
those of classes. No plan waits for them, so they are not made all at once: each tick makes a slice,
those first whose forecast is oldest, and whoever is asked for is made anew.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from forecasting.context import CHANNELS, CONTEXT_STEPS
from forecasting.coverage import Coverage
from forecasting.forecast import Forecast, Rung
from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.reconcile import shared_out
from forecasting.settings import ForecastSettings
from forecasting.training import TrainedModel, choose_series
from planner.applications import ApplicationTraffic, shares
from planner.class_series import Changed, ClassSeries, columns_of
from planner.config import Config
from planner.context import ContextRing
from planner.forecast_figures import CONFIDENCE_BAND, coverage_of
from planner.issued import IssuedForecasts
from planner.snapshot import Level, PoolForecast
from planner.structure import Structure

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)

#: The forecaster's levels of classes, upload and download: those of the classes that are pools.
CLASS_LEVEL: Final = 2 * Level.APPLICATION
#: Classes forecast in a tick that forecasts the pools too, and in any other: some 10 and 40 ms.
SLICE: Final = 256
SLICE_OF_A_QUIET_TICK: Final = 1024
#: Figures issued that are kept, at 4 bytes: 40 steps of 20,000 series, days of a hundred.
_ISSUED_CELLS: Final = 6_000_000
#: Classes that carry this share of the user's traffic are all of it.
_ALL: Final = 0.98
#: Rows in which forecasts that came due are looked up.
_DUE_STEPS: Final = 5
#: A training sees at most one series of a class for so many of pools.
_POOLS_TO_CLASSES: Final = 4


class ClassPrediction:
    """What is known of classes and forecast of them. The loop writes; readers may come from any thread."""

    def __init__(self, config: Config, settings: ForecastSettings) -> None:
        users, self.applications = tuple(config.users), config.application_names
        self._user = {name: number for number, name in enumerate(users)}
        self.settings = settings
        self.traffic = ApplicationTraffic(users, len(self.applications), settings.step_s)
        self.series = ClassSeries(config.forecasting, len(users), len(self.applications))
        self.context = ContextRing(config.forecasting, len(users))
        self.issued = IssuedForecasts(settings.step_s, _ISSUED_CELLS)
        self.forecaster = Forecaster(settings)
        self._names = users
        self._lock = threading.RLock()
        self._now = self._end_time = -np.inf
        self._structure: Structure | None = None
        #: Numbers of the structure's users.
        self._present: I64 = np.empty(0, np.int64)
        #: The columns of context by the columns of pools; -1 where a pool is no user's.
        self._context_of: I64 = np.full(1, -1, np.int64)
        shape = (0, 2, len(settings.horizons_s), len(settings.quantiles))
        #: By slot: shape (slots, 2, H, K), bit/s; its rungs; and when it was made, epoch seconds.
        self._demand_bps: F32 = np.empty(shape, np.float32)
        self._rung: npt.NDArray[np.uint8] = np.empty((0, 2), np.uint8)
        self._made_at: F64 = np.empty(0)
        self._name_of_slot: list[str] = []

    # The loop's.

    def completed(
        self, now: float, structure: Structure, pools: History, trained: TrainedModel | None
    ) -> None:
        """Note a completed step; ``pools`` is its history, all upload, then all download."""
        if pools.end_time == self._end_time or not pools.n_steps:
            return
        with self._lock:
            split = self.traffic.take(pools.end_time)
            demand, censored = self._of_users(structure, pools)
            self.context.put(pools.end_time, split, demand)
            share = shares(split, demand)
            changed = self.series.add(now, pools.end_time, demand, share, censored)
            self._now, self._end_time = now, pools.end_time
            self._change_slots(changed)
            self._follow(trained)
            slots = self.series.slots
            if len(slots):
                history = self._history(slots, _DUE_STEPS)
                self.forecaster.observe(history)
                self.issued.came(self._names_of(slots), columns_of(slots), history)

    def advance(self, quiet: bool) -> None:
        """Forecast those whose forecast is oldest: as many as a tick may. ``quiet``: it has little else to do."""
        with self._lock:
            slots = self.series.slots
            slots = slots[self._made_at[slots] != self._end_time]
            most = SLICE_OF_A_QUIET_TICK if quiet else SLICE
            if len(slots) > most:
                slots = slots[np.argpartition(self._made_at[slots], most)[:most]]
            self._forecast(slots)

    def around(self, pools: History, steps: int) -> F32:
        """The context of pools, whose ids are their columns, as ``History`` has it. Only that of users is known."""
        with self._lock:
            known = pools.series_id < len(self._context_of)
            columns = np.where(known, self._context_of[np.where(known, pools.series_id, 0)], -1)
            return self.context.window(pools.end_time, min(steps, pools.n_steps), columns)

    def with_classes(self, pools: History, now: float) -> History:
        """A training's sample of pools, with one of classes beside it, and with context."""
        around = self.around(pools, pools.n_steps)
        with self._lock:
            columns = columns_of(self.series.slots)
            chosen = choose_series(_levels(columns), max(2, pools.n_series // _POOLS_TO_CLASSES))
            columns = columns[chosen]
            window, share = self.series.window(now, pools.n_steps, columns)
            own = self._context(columns, share, window.end_time, around.shape[1])
        missing = np.full((pools.n_steps - len(share), len(columns)), np.nan, np.float32)
        blocks = pools.blocks
        if blocks is not None:
            unknown = np.full((len(blocks.mean_bps), len(columns)), np.nan, np.float32)
            blocks = replace(blocks, mean_bps=_beside(blocks.mean_bps, unknown))
        return replace(
            pools,
            demand_bps=_beside(pools.demand_bps, np.concatenate([missing, window.demand_bps])),
            censored=_beside(pools.censored, np.concatenate([~np.isnan(missing), window.censored])),
            level=_beside(pools.level, _levels(columns)),
            # No pool's columns.
            series_id=_beside(pools.series_id, -1 - columns),
            blocks=blocks,
            context=_beside(around, own),
        )

    def coverage(self) -> tuple[Coverage, ...]:
        """How often what came lay below each quantile, by level and horizon."""
        with self._lock:
            return self.forecaster.coverage()

    # What readers ask, from any thread.

    def of_user(self, user: str, path: str, total_bps: F64, since: float) -> tuple[PoolForecast, ...]:
        """The forecasts of one user's classes, in the classes' order, made of the newest step.

        Their points add up to ``total_bps``, the user's own of shape (2, H); to no more where classes that are
        not kept carry some of it.
        """
        number = self._user.get(user)
        if number is None:
            return ()
        with self._lock:
            slots = self.series.slots_of(number)
            if not len(slots):
                return ()
            self._forecast(slots[self._made_at[slots] != self._end_time])
            parts = [self._standing(slots, d) for d in range(2)]
            complete = self.series.kept_share(number) >= _ALL
            coverage, names = self.forecaster.coverage(), self._names_of(slots)
        point = [shared_out(total_bps[d], parts[d], bool(complete[d])) for d in range(2)]
        sure = [part.confidence(CONFIDENCE_BAND, 0.0) for part in parts]
        found = []
        for at, name in enumerate(names):
            up, down = (self.issued.history(name, d, since) for d in range(2))
            found.append(
                PoolForecast(
                    path=path,
                    end_time=parts[0].end_time,
                    horizon_s=parts[0].horizon_s,
                    quantile=parts[0].quantile,
                    demand_bps=np.stack([part.demand_bps[at] for part in parts]),
                    rung=(int(parts[0].rung[at]), int(parts[1].rung[at])),
                    issued=(up, down),
                    coverage=coverage_of(coverage, CLASS_LEVEL, parts[0]),
                    point_bps=np.stack([points[at] for points in point]),
                    confidence=np.stack([one[at] for one in sure]),
                    application=name.rpartition("/")[2],
                )
            )
        return tuple(found)

    # Inside.

    def _forecast(self, slots: I64) -> None:
        if not len(slots):
            return
        history = self._history(slots, self.forecaster.steps_wanted)
        forecast = self.forecaster.forecast(history, np.full(history.n_series, np.nan))
        for d, mine in enumerate((slice(len(slots)), slice(len(slots), None))):
            self._demand_bps[slots, d], self._rung[slots, d] = forecast.demand_bps[mine], forecast.rung[mine]
        self._made_at[slots] = forecast.end_time
        self.issued.add(self._names_of(slots), columns_of(slots), history, forecast)

    def _standing(self, slots: I64, direction: int) -> Forecast:
        """What stands of these slots in one direction, a copy."""
        return Forecast(
            np.asarray(self.settings.quantiles, np.float64),
            np.asarray(self.settings.horizons_s, np.float64),
            self._demand_bps[slots, direction],
            self._rung[slots, direction],
            self._end_time,
        )

    def _history(self, slots: I64, steps: int) -> History:
        columns = columns_of(slots)
        window, share = self.series.window(self._now, steps, columns)
        trained = self.forecaster.trained
        own = None
        if trained is not None and trained.spec.context:
            own = self._context(columns, share, window.end_time, min(CONTEXT_STEPS, len(share)))
        # A column is given to one after the other; what was forecast of one does not come of the next.
        ids = 2 * self.series.serial[columns // 2] + columns % 2
        return History(
            window.demand_bps,
            window.censored,
            window.step_s,
            window.end_time,
            _levels(columns),
            ids,
            context=own,
        )

    def _context(self, columns: I64, share: F32, end_time: float, steps: int) -> F32:
        """The context of classes: their user's, and their own share of its demand, of shape (T, n)."""
        user = self.series.pair[columns // 2] // len(self.applications)
        found = self.context.window(end_time, steps, user + (columns % 2) * len(self._names))
        rows = min(found.shape[1], len(share))
        found[CHANNELS.index("own_share"), found.shape[1] - rows :] = share[len(share) - rows :]
        return found

    def _follow(self, trained: TrainedModel | None) -> None:
        """Use the model that pools use."""
        if trained is self.forecaster.trained:
            return
        if trained is None:
            self.forecaster = Forecaster(self.settings)
        else:
            self.forecaster.install(trained)

    def _change_slots(self, changed: Changed) -> None:
        """Forget those that lost their slots, and know those that have them now."""
        self.issued.forget(self._names_of(changed.left))
        short = len(self.series.pair) - len(self._made_at)
        if short > 0:
            shape = (short, *self._demand_bps.shape[1:])
            self._demand_bps = np.concatenate([self._demand_bps, np.zeros(shape, np.float32)])
            self._rung = np.concatenate([self._rung, np.full((short, 2), Rung.LAST_PLAN, np.uint8)])
            self._made_at = np.concatenate([self._made_at, np.full(short, -np.inf)])
            self._name_of_slot += [""] * short
        self._made_at[changed.given] = -np.inf
        for slot, pair in zip(changed.given.tolist(), self.series.pair[changed.given].tolist(), strict=True):
            user, application = divmod(pair, len(self.applications))
            self._name_of_slot[slot] = f"{self._names[user]}/{self.applications[application]}"

    def _of_users(self, structure: Structure, pools: History) -> tuple[F32, Bool]:
        """The last step's demand of all users and whether it is censored, shapes (2, n_users)."""
        if self._structure is not structure:
            self._structure = structure
            self._present = np.array([self._user[name] for name in structure.users], np.int64)
        rows = structure.first_user + np.arange(len(structure.users))
        demand = np.full((2, len(self._names)), np.nan, np.float32)
        censored = np.zeros(demand.shape, np.bool_)
        of = np.full(int(pools.series_id.max(initial=-1)) + 1, -1, np.int64)
        for d in range(2):
            mine = rows + d * len(structure.path)
            demand[d, self._present] = pools.demand_bps[-1, mine]
            censored[d, self._present] = pools.censored[-1, mine]
            of[pools.series_id[mine]] = self._present + d * len(self._names)
        self._context_of = of
        return demand, censored

    def _names_of(self, slots: I64) -> tuple[str, ...]:
        """What the series of these slots are called in the record: USER/CLASS."""
        return tuple(self._name_of_slot[slot] for slot in slots.tolist())


def _levels(columns: I64) -> I64:
    """The forecaster's level of each column."""
    return CLASS_LEVEL + columns % 2


def _beside(one: npt.NDArray[_Kind], other: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
    """Both, series after series."""
    return np.concatenate([one, other], axis=-1)
