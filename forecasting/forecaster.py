"""The forecaster in the loop: walks each series down the ladder, never raises on what was measured.

Model, archetype, auto-bandwidth, last plan: a series gets the first that can
speak for it, and the forecast says which one did.
"""

from __future__ import annotations

import io
import json
from collections import deque
from dataclasses import asdict, dataclass
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from forecasting.archetypes import FRESH_STEPS, Archetypes, learn_archetypes
from forecasting.baselines import auto_bandwidth
from forecasting.calibration import Calibration
from forecasting.censoring import unconstrained
from forecasting.features import FeatureSpec, feature_rows
from forecasting.forecast import Forecast, Rung
from forecasting.history import Bools, Floats, History, Ints, clean
from forecasting.models import ModelFailed, QuantileModel
from forecasting.population import Population
from forecasting.settings import ForecastSettings
from forecasting.training import TrainedModel, answerable

#: What auto-bandwidth looks back over.
AUTO_BANDWIDTH_S: Final = 900.0
#: Series predicted at once: their windows and features stay in the CPU's cache.
CHUNK_SERIES: Final = 4096
#: Archetypes change slowly; they are learnt anew this often.
ARCHETYPE_EVERY_STEPS: Final = 10


@dataclass(frozen=True)
class _Issued:
    """Forecasts of a sample of series, kept until they come due."""

    end_time: float
    series_id: Ints
    level: Ints
    #: shape (n, H, K), as issued.
    demand_bps: Floats


class Forecaster:
    """Forecasts every series at every tick; learns its own calibration as it goes.

    A window of ``steps_wanted`` rows serves it fully; fewer rows are fine.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        self.settings = settings
        #: What made the ladder go down at the last forecast; None if nothing did.
        self.last_error: str | None = None
        self.trained: TrainedModel | None = None
        self._model: QuantileModel | None = None
        self._quantile = np.asarray(settings.quantiles, np.float64)
        self._horizon_s = np.asarray(settings.horizons_s, np.float64)
        self._ahead = settings.horizon_steps
        self._calibration = self._fresh_calibration()
        self._issued: deque[_Issued] = deque()
        self._observed_until = -np.inf
        #: The archetypes that users fall into; None before they were first learnt.
        self.population: Population | None = None
        self._archetypes: Archetypes | None = None
        self._archetypes_at = -np.inf
        self._rng = np.random.default_rng(settings.seed)

    @property
    def steps_wanted(self) -> int:
        """Rows of history that a forecast makes use of."""
        return max(self.settings.window_steps, self._auto_bandwidth_steps)

    @property
    def calibration_offset(self) -> npt.NDArray[np.float64]:
        """Shape (L, H, K): what calibration adds, in units of each forecast's spread."""
        return self._calibration.offset.copy()

    def install(self, trained: TrainedModel) -> None:
        """Use this model from the next forecast on; calibration starts afresh.

        Raises
        ------
        ModelFailed : when it was made for other settings or is damaged; the old one stays.
        """
        self._model = trained.load(self.settings)
        self.trained = trained
        self._calibration = self._fresh_calibration()
        self._issued.clear()

    def install_population(self, population: Population) -> None:
        """Forecast newcomers by these archetypes from now on. Names given meanwhile are kept.

        Raises
        ------
        ModelFailed : when it was learnt for other settings; the old one stays.
        """
        if not population.fits(self.settings):
            raise ModelFailed("population was learnt for other quantiles or horizons")
        self.population = population if self.population is None else population.with_names_of(self.population)

    def forecast(self, history: History, last_plan_bps: npt.NDArray[np.floating]) -> Forecast:
        """Demand of every series at every horizon, each from the best rung there is.

        Parameters
        ----------
        history :                      Any number of rows, 0 included; any values.
        last_plan_bps : shape (S,)     What the last plan assumed; NaN where there was none.

        Raises
        ------
        ValueError : when shapes or the step are not what the settings say.
        """
        if history.step_s != self.settings.step_s:
            raise ValueError(f"history.step_s must be {self.settings.step_s:g}, got {history.step_s!r}")
        if np.shape(last_plan_bps) != (history.n_series,):
            raise ValueError(
                f"last_plan_bps must have shape ({history.n_series},), got {np.shape(last_plan_bps)}"
            )
        self.last_error = None
        history = history.tail(self.steps_wanted)
        demand = unconstrained(clean(history.demand_bps, self.settings.max_rate_bps), history.censored)
        shape = (history.n_series, len(self._horizon_s), len(self._quantile))
        result = np.full(shape, np.nan, np.float32)
        rung = np.full(history.n_series, int(Rung.LAST_PLAN), np.uint8)

        self._from_model(history, demand, result, rung)
        self._from_archetypes(history, demand, last_plan_bps, result, rung)
        self._from_auto_bandwidth(demand, result, rung)
        self._from_last_plan(last_plan_bps, result, rung)
        self._remember(history, result, rung)
        return Forecast(self._quantile, self._horizon_s, result, rung, history.end_time)

    def observe(self, history: History) -> None:
        """Calibrate on what came of earlier forecasts; call once per tick, before ``forecast``.

        Gaps and censored samples are skipped. A clock that stepped back drops
        the forecasts made in what is now the future.
        """
        now, step_s = history.end_time, self.settings.step_s
        if now < self._observed_until or history.n_steps == 0:
            self._issued = deque(issued for issued in self._issued if issued.end_time < now)
            self._observed_until = min(now, self._observed_until)
            return
        order = np.argsort(history.series_id, kind="stable")
        for issued in self._issued:
            due = issued.end_time + self._horizon_s
            fresh = (due > self._observed_until + step_s / 2) & (due <= now + step_s / 2)
            for horizon in np.flatnonzero(fresh):
                row = history.n_steps - 1 - round((now - due[horizon]) / step_s)
                if 0 <= row < history.n_steps:
                    came = self._realised(history, order, int(row), issued)
                    self._calibration.update(int(horizon), issued.demand_bps[:, horizon], came, issued.level)
        self._observed_until = now
        while self._issued and self._issued[0].end_time + self._horizon_s[-1] <= now:
            self._issued.popleft()

    def state(self) -> bytes:
        """The model and its calibration, for ``restore`` after a restart."""
        trained = self.trained
        meta = None
        if trained is not None:
            meta = {name: value for name, value in asdict(trained).items() if name != "body"}
        stored = io.BytesIO()
        np.savez(
            stored,
            meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
            body=np.frombuffer(trained.body if trained else b"", np.uint8),
            quantile=self._quantile,
            horizon_s=self._horizon_s,
            offset=self._calibration.offset,
        )
        return stored.getvalue()

    def restore(self, body: bytes) -> None:
        """Become what ``state`` described.

        Raises
        ------
        ModelFailed : when the bytes are damaged or were made under other settings; nothing changes.
        """
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as stored:
                parts = {name: stored[name] for name in stored.files}
            meta = json.loads(parts["meta"].tobytes())
            offset = np.asarray(parts["offset"], np.float64)
            same = np.array_equal(parts["quantile"], self._quantile) and np.array_equal(
                parts["horizon_s"], self._horizon_s
            )
            trained = None if meta is None else _trained_from(meta, parts["body"].tobytes())
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise ModelFailed(f"bytes are not a forecaster's state: {error!r}") from None
        if not same or offset.shape[1:] != self._calibration.offset.shape[1:]:
            raise ModelFailed("state was made for other quantiles or horizons")
        if not np.isfinite(offset).all():
            raise ModelFailed("state holds offsets that are not finite")
        if trained is not None:
            self.install(trained)
        self._calibration.offset = offset

    def _from_model(
        self, history: History, demand: Floats, result: Floats, rung: npt.NDArray[np.uint8]
    ) -> None:
        """The top rung, for series with enough fresh history."""
        if self._model is None or self.trained is None:
            return
        window = self.settings.window_steps
        present = ~np.isnan(demand[-window:])
        able = np.flatnonzero(
            answerable(np.count_nonzero(present, axis=0), _since_sample(present), self.settings)
        )
        if able.size == 0:
            return
        everyone = able.size == history.n_series
        try:
            for start in range(0, able.size, CHUNK_SERIES):
                members = able[start : start + CHUNK_SERIES]
                part = slice(start, start + len(members)) if everyone else members
                rows = feature_rows(
                    demand[-window:, part],
                    history.censored[-window:, part],
                    history.end_time,
                    self._ahead,
                    self.trained.spec,
                )
                predicted = rows.from_target(self._model.predict(rows.x))
                calibrated = self._calibration.apply(predicted, history.level[part])
                result[part] = self._believable(calibrated)
        except Exception as error:  # noqa: BLE001 - whatever a model does, the network needs a forecast
            self.last_error = f"model failed: {error!r}"
            result[:] = np.nan
            return
        spoken = able[~np.isnan(result[able, 0, 0])]
        rung[spoken] = Rung.MODEL
        if spoken.size < able.size:
            self.last_error = f"model gave no finite forecast for {able.size - spoken.size} series"

    def _from_archetypes(
        self,
        history: History,
        demand: Floats,
        last_plan_bps: npt.NDArray[np.floating],
        result: Floats,
        rung: npt.NDArray[np.uint8],
    ) -> None:
        """The second rung: fresh samples, or a series that nobody has ever seen."""
        recent = ~np.isnan(demand[-FRESH_STEPS:])
        unseen = np.isnan(demand).all(axis=0) & ~np.isfinite(last_plan_bps)
        needy = np.flatnonzero((rung > Rung.ARCHETYPE) & (recent.any(axis=0) | unseen))
        if needy.size == 0:
            return
        level = history.level[needy]
        if self.population is None:
            guess = self._fresh_archetypes(history, demand).forecast(demand[:, needy], level)
        else:
            guess = self.population.archetypes.forecast(demand[:, needy], level)
            strange = np.isnan(guess[:, 0, 0])
            if strange.any():
                # A level that training has not met: one archetype of it may do.
                simple = self._fresh_archetypes(history, demand)
                guess[strange] = simple.forecast(demand[:, needy[strange]], level[strange])
        guess = np.sort(self._believable(guess), axis=-1)
        known = ~np.isnan(guess).any(axis=(1, 2))
        result[needy[known]] = guess[known]
        rung[needy[known]] = Rung.ARCHETYPE

    def _from_auto_bandwidth(self, demand: Floats, result: Floats, rung: npt.NDArray[np.uint8]) -> None:
        needy = np.flatnonzero(rung > Rung.AUTO_BANDWIDTH)
        if needy.size == 0 or demand.shape[0] == 0:
            return
        value = auto_bandwidth(
            demand[-self._auto_bandwidth_steps :, needy], self.settings.step_s, window_s=AUTO_BANDWIDTH_S
        )
        value = np.minimum(value, np.float32(self.settings.max_rate_bps))
        known = ~np.isnan(value)
        result[needy[known]] = value[known, None, None]
        rung[needy[known]] = Rung.AUTO_BANDWIDTH

    def _from_last_plan(
        self, last_plan_bps: npt.NDArray[np.floating], result: Floats, rung: npt.NDArray[np.uint8]
    ) -> None:
        needy = np.flatnonzero(rung == Rung.LAST_PLAN)
        plan = np.asarray(last_plan_bps, np.float64)[needy]
        plan = np.where(np.isfinite(plan) & (plan > 0), plan, 0)
        result[needy] = np.minimum(plan, self.settings.max_rate_bps)[:, None, None]

    def _fresh_archetypes(self, history: History, demand: Floats) -> Archetypes:
        age = (history.end_time - self._archetypes_at) / self.settings.step_s
        if self._archetypes is None or not 0 <= age < ARCHETYPE_EVERY_STEPS:
            peers = np.count_nonzero(~np.isnan(demand), axis=0) >= self.settings.min_history_steps
            self._archetypes = learn_archetypes(
                demand, history.level, peers, self._ahead, self._quantile, self._rng
            )
            # Without a population there is nothing to keep: look again next time.
            if not self._archetypes.empty:
                self._archetypes_at = history.end_time
        return self._archetypes

    def _believable(self, demand_bps: Floats) -> Floats:
        """Finite values within the bound; NaN for a series in which one is not finite."""
        broken = ~np.isfinite(demand_bps).all(axis=(1, 2))
        bounded = np.minimum(demand_bps, np.float32(self.settings.max_rate_bps))
        if broken.any():
            bounded[broken] = np.nan
        return bounded

    def _remember(self, history: History, result: Floats, rung: npt.NDArray[np.uint8]) -> None:
        """Keep a sample of each level's model forecasts until they come due."""
        spoken = np.flatnonzero(rung == Rung.MODEL)
        if spoken.size == 0 or self.settings.calibration_rate == 0:
            return
        if self._issued and self._issued[-1].end_time >= history.end_time:
            return
        kept = []
        for level in np.unique(history.level[spoken]):
            members = spoken[history.level[spoken] == level]
            at_most = self.settings.calibration_series
            many = len(members) > at_most
            # With replacement is far cheaper and as good for a mean.
            kept.append(members[self._rng.integers(0, len(members), at_most)] if many else members)
        chosen = np.concatenate(kept)
        self._issued.append(
            _Issued(history.end_time, history.series_id[chosen], history.level[chosen], result[chosen])
        )

    def _realised(self, history: History, order: Ints, row: int, issued: _Issued) -> Floats:
        """What came for the issued series in one row; NaN where that is unknown."""
        ids = history.series_id[order]
        if ids.size == 0:
            return np.full(len(issued.series_id), np.nan, np.float32)
        place = np.minimum(np.searchsorted(ids, issued.series_id), ids.size - 1)
        column = order[place]
        came = clean(history.demand_bps[row, column], self.settings.max_rate_bps)
        known = (ids[place] == issued.series_id) & ~history.censored[row, column]
        return np.where(known, came, np.float32(np.nan))

    def _fresh_calibration(self) -> Calibration:
        return Calibration(self._quantile, len(self._horizon_s), self.settings.calibration_rate)

    @property
    def _auto_bandwidth_steps(self) -> int:
        return max(round(AUTO_BANDWIDTH_S / self.settings.step_s), 1)


def _since_sample(present: Bools) -> Ints:
    """Rows since the latest sample, shape (S,); the number of rows where there is none."""
    n_steps = present.shape[0]
    if n_steps == 0:
        return np.zeros(present.shape[1], np.int64)
    since: Ints = np.where(present.any(axis=0), present[::-1].argmax(axis=0), n_steps)
    return since


def _trained_from(meta: dict[str, object], body: bytes) -> TrainedModel:
    spec = dict(meta["spec"])  # type: ignore[call-overload]
    spec["periods"] = tuple(spec["periods"])
    quantiles = tuple(meta["quantiles"])  # type: ignore[arg-type, var-annotated]
    return TrainedModel(**{**meta, "body": body, "spec": FeatureSpec(**spec), "quantiles": quantiles})  # type: ignore[arg-type]
