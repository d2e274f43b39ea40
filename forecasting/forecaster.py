"""The forecaster in the loop: walks each series down the ladder, never raises on what was measured.

Model, archetype, auto-bandwidth, last plan: a series gets the first that can
speak for it, and the forecast says which one did.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from forecasting.archetypes import FRESH_STEPS, Archetypes, learn_archetypes
from forecasting.baselines import auto_bandwidth, window_quantiles
from forecasting.burstiness import VARYING
from forecasting.censoring import unconstrained
from forecasting.contest import CONTESTANTS, Change, Contest, Contestant
from forecasting.coverage import Coverage
from forecasting.features import FeatureSpec, feature_rows
from forecasting.forecast import Forecast, Rung
from forecasting.history import Bools, Floats, History, Ints, clean
from forecasting.models import ModelFailed, QuantileModel
from forecasting.population import Population
from forecasting.residuals import ResidualCurves, learn_residuals
from forecasting.segments import N_CLASSES, segments
from forecasting.settings import ForecastSettings
from forecasting.track_record import Issued, TrackRecord
from forecasting.training import TrainedModel, answerable

#: What auto-bandwidth looks back over.
AUTO_BANDWIDTH_S: Final = 900.0
#: Series predicted at once: their windows and features stay in the CPU's cache.
CHUNK_SERIES: Final = 4096
#: Archetypes change slowly; they are learnt anew this often.
ARCHETYPE_EVERY_STEPS: Final = 10


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
        #: Calibration, contest and coverage.
        self.record = TrackRecord(settings)
        #: The archetypes that users fall into; None before they were first learnt.
        self.population: Population | None = None
        self._archetypes: Archetypes | None = None
        self._archetypes_at = -np.inf
        self._residuals: ResidualCurves | None = None
        self._residuals_at = -np.inf
        self._rng = np.random.default_rng(settings.seed)

    @property
    def steps_wanted(self) -> int:
        """Rows of history that a forecast makes use of."""
        return max(self.settings.window_steps, self._auto_bandwidth_steps)

    @property
    def calibration_offset(self) -> npt.NDArray[np.float64]:
        """Shape (G, H, K): what calibration adds to the model, in units of each forecast's spread."""
        return self.record.calibrations[Contestant.MODEL].offset.copy()

    def coverage(self) -> tuple[Coverage, ...]:
        """Share of truths below each quantile over the last hour and day, by level and horizon."""
        return self.record.live_coverage()

    def live_score(self) -> tuple[float, float] | None:
        """Mean pinball loss of the model and of persistence on what came lately; None without enough of it.

        In units of each series' level, over all horizons.
        """
        return self.record.contest.live_score()

    def install(self, trained: TrainedModel) -> None:
        """Use this model from the next forecast on; its calibration goes on, the contest starts anew.

        Raises
        ------
        ModelFailed : when it was made for other settings or is damaged; the old one stays.
        """
        self._model = trained.load(self.settings)
        self.trained = trained
        self.record.start_anew()

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
        kind = np.full(history.n_series, VARYING, np.uint8)

        champion = self._from_model(history, demand, result, rung, kind)
        self._from_archetypes(history, demand, last_plan_bps, result, rung)
        self._from_auto_bandwidth(demand, result, rung)
        self._from_last_plan(last_plan_bps, result, rung)
        return Forecast(self._quantile, self._horizon_s, result, rung, history.end_time, champion, kind)

    def observe(self, history: History) -> tuple[Change, ...]:
        """Learn from what came of earlier forecasts; call once per step, before ``forecast``.

        Gives the segments that got another champion. Gaps and censored samples are skipped. A
        clock that stepped back drops the forecasts made in what is now the future.
        """
        return self.record.observe(history)

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
            offsets=self._offsets(),
            champion=self.record.contest.champion,
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
            offsets = np.asarray(parts["offsets"], np.float64)
            champion = np.asarray(parts["champion"], np.uint8)
            same = np.array_equal(parts["quantile"], self._quantile) and np.array_equal(
                parts["horizon_s"], self._horizon_s
            )
            trained = None if meta is None else _trained_from(meta, parts["body"].tobytes())
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise ModelFailed(f"bytes are not a forecaster's state: {error!r}") from None
        wanted = (len(CONTESTANTS), len(self._horizon_s), len(self._quantile))
        if not same or offsets.ndim != 4 or (offsets.shape[0], *offsets.shape[2:]) != wanted:
            raise ModelFailed("state was made for other quantiles or horizons")
        if not np.isfinite(offsets).all():
            raise ModelFailed("state holds offsets that are not finite")
        contest = Contest(len(self._horizon_s))
        try:
            contest.restore_champions(champion)
        except ValueError as error:
            raise ModelFailed(f"state holds no champions: {error}") from None
        if trained is not None:
            self.install(trained)
        self.record.contest = contest
        for calibration, offset in zip(self.record.calibrations, offsets, strict=True):
            calibration.offset = offset

    def _offsets(self) -> npt.NDArray[np.float64]:
        """All contestants' calibration, shape (C, G, H, K)."""
        offsets = [calibration.offset for calibration in self.record.calibrations]
        most = max(len(offset) for offset in offsets)
        return np.stack([np.pad(offset, ((0, most - len(offset)), (0, 0), (0, 0))) for offset in offsets])

    def _from_model(
        self,
        history: History,
        demand: Floats,
        result: Floats,
        rung: npt.NDArray[np.uint8],
        kind: npt.NDArray[np.uint8],
    ) -> npt.NDArray[np.uint8]:
        """The top rung, for series with enough fresh history: the champion of each one's segment.

        Gives who that was, shape (S, H); all zero for series on lower rungs.
        """
        champion = np.zeros(result.shape[:2], np.uint8)
        if self._model is None or self.trained is None:
            return champion
        window = self.settings.window_steps
        demand = demand[-window:]
        present = ~np.isnan(demand)
        able = np.flatnonzero(
            answerable(np.count_nonzero(present, axis=0), _since_sample(present), self.settings)
        )
        if able.size == 0:
            return champion
        everyone = able.size == history.n_series
        segment = segments(demand if everyone else demand[:, able], history.level[able])
        kind[able] = segment % N_CLASSES
        scale, last = np.empty((2, able.size), np.float32)
        modelled = np.empty((able.size, *result.shape[1:]), np.float32)
        try:
            for start in range(0, able.size, CHUNK_SERIES):
                chunk = slice(start, start + CHUNK_SERIES)
                part = chunk if everyone else able[chunk]
                recalled = None if history.recalled_bps is None else history.recalled_bps[:, :, part]
                rows = feature_rows(
                    demand[:, part],
                    history.censored[-window:, part],
                    history.end_time,
                    self._ahead,
                    self.trained.spec,
                    recalled,
                    None if history.context is None else history.context[:, :, part],
                )
                scale[chunk], last[chunk] = rows.scale_bps, rows.origin_bps
                predicted = rows.from_target(self._model.predict(rows.x))
                modelled[chunk] = self.record.calibrate(Contestant.MODEL, predicted, segment[chunk])
        except Exception as error:  # noqa: BLE001 - whatever a model does, the network needs a forecast
            self.last_error = f"model failed: {error!r}"
            return champion
        modelled = self._believable(modelled)
        simple = _Simple(
            demand, able, segment, last, scale, self._fresh_residuals(history, demand, able, segment, scale)
        )
        champion[able] = self.record.contest.champions(segment)
        given = modelled.copy() if champion.any() or self.record.narrow_levels else modelled
        self._put_simpler(simple, champion[able], given)
        self.record.widen(given, history.level[able])
        self._follow(history, able, simple, modelled, given)
        result[able] = given
        # At all horizons: a simpler contestant may have filled some of a series that the model broke on.
        spoken = able[~np.isnan(given[:, :, 0]).any(axis=1)]
        rung[spoken] = Rung.MODEL
        if spoken.size < able.size:
            self.last_error = f"model gave no finite forecast for {able.size - spoken.size} series"
        return champion

    def _put_simpler(self, simple: _Simple, champion: npt.NDArray[np.uint8], given: Floats) -> None:
        """Replace the model's forecast where a simpler contestant is champion."""
        for contestant in (Contestant.PERSISTENCE, Contestant.RECENT):
            rows = np.flatnonzero((champion == contestant).any(axis=1))
            if rows.size:
                made = self._contestant(contestant, simple, rows)
                row, horizon = np.nonzero(champion[rows] == contestant)
                given[rows[row], horizon] = made[row, horizon]

    def _contestant(self, contestant: Contestant, simple: _Simple, rows: Ints) -> Floats:
        """A simpler contestant's calibrated quantiles, shape (len(rows), H, K)."""
        segment = simple.segment[rows]
        if contestant is Contestant.PERSISTENCE:
            made = simple.residuals.around(simple.last_bps[rows], simple.scale_bps[rows], segment)
        else:
            one = window_quantiles(simple.demand_bps[:, simple.able[rows]], self._quantile)
            made = np.repeat(one[:, None], len(self._ahead), axis=1)
        return self.record.calibrate(contestant, made, segment)

    def _follow(self, history: History, able: Ints, simple: _Simple, modelled: Floats, given: Floats) -> None:
        """Keep the forecasts of a sample of series until they come due."""
        if not self.record.waits_for(history.end_time):
            return
        finite = np.flatnonzero(~np.isnan(modelled[:, 0, 0]))
        rows = self.record.followed(history.level[able], finite)
        if rows.size == 0:
            return
        made = [self._contestant(one, simple, rows) for one in (Contestant.PERSISTENCE, Contestant.RECENT)]
        self.record.remember(
            Issued(
                history.end_time,
                history.series_id[able[rows]],
                history.level[able[rows]],
                simple.segment[rows],
                simple.scale_bps[rows],
                np.stack([modelled[rows], *made]),
                given[rows],
            )
        )

    def _fresh_residuals(
        self, history: History, demand: Floats, able: Ints, segment: Ints, scale_bps: Floats
    ) -> ResidualCurves:
        age = (history.end_time - self._residuals_at) / self.settings.step_s
        if self._residuals is None or not 0 <= age < ARCHETYPE_EVERY_STEPS:
            self._residuals = learn_residuals(
                demand, able, segment, scale_bps, self._ahead, self._quantile, self._rng
            )
            self._residuals_at = history.end_time
        return self._residuals

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

    @property
    def _auto_bandwidth_steps(self) -> int:
        return max(round(AUTO_BANDWIDTH_S / self.settings.step_s), 1)


@dataclass(frozen=True)
class _Simple:
    """What the simpler contestants need of the series that the model speaks for."""

    #: shape (W, S), the window of all series.
    demand_bps: Floats
    #: shape (n,), their columns; what follows is by these rows.
    able: Ints
    segment: Ints
    last_bps: Floats
    scale_bps: Floats
    residuals: ResidualCurves


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
    # A state of before there was any has no such entry.
    spec["context"] = tuple(spec.get("context", ()))
    quantiles = tuple(meta["quantiles"])  # type: ignore[arg-type, var-annotated]
    return TrainedModel(**{**meta, "body": body, "spec": FeatureSpec(**spec), "quantiles": quantiles})  # type: ignore[arg-type]
