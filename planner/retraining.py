"""The feedback loop: models are trained elsewhere, judged, put to use, watched and, if need be, taken back."""

from __future__ import annotations

import logging
import math
from concurrent.futures import Executor
from typing import Final

import numpy as np

from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.models import ModelFailed
from forecasting.settings import ForecastSettings
from forecasting.training import NotEnoughHistory, TrainedModel, Verdict, retrain
from planner.cluster import ClusterPool
from planner.config import Forecasting
from planner.model_versions import ModelVersion, ModelVersions, Outcome
from planner.snapshot import NotThere, Refused
from planner.workers import Errand

LOG = logging.getLogger("tidegate.planner")

#: A new model is on trial for so long: twelve forecasts of five minutes have then come due.
TRIAL_S: Final = 3600.0
#: During the trial only this ratio to persistence counts against it, as its calibration starts afresh.
PLAINLY_WORSE: Final = 1.25
#: What a worker returns is not believed beyond this: it would be copied and stored.
MAX_MODEL_BYTES: Final = 32 << 20


class Retraining:
    """Which model the forecaster uses, and why. Other threads hold the planner's lock."""

    def __init__(self, config: Forecasting, settings: ForecastSettings, trainer: Executor) -> None:
        self.settings = settings
        self.forecaster = Forecaster(settings)
        self.versions = ModelVersions(config.versions_kept)
        #: Counts the times that another model was put to use: earlier forecasts are stale.
        self.generation = 0
        self._trainer = trainer
        self._training = Errand("training", config.train_every_s)
        self._hold_s = config.rollback_hold_s
        #: The champion that the training under way is judged against.
        self._opponent: int | None = None
        #: What the trial found and nothing can be done about.
        self._doubt: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands in the way of the best model, one line each."""
        cluster = self._trainer.problem if isinstance(self._trainer, ClusterPool) else None
        found = (self.forecaster.last_error, self._doubt, self._training.error, cluster)
        return tuple(problem for problem in found if problem)

    # Training.

    def due(self, now: float) -> bool:
        """Whether it is time for a training, and none is under way."""
        return self._training.due(now)

    def train(self, now: float, sample: History) -> None:
        """Hand a training to a worker, if there is enough to learn from."""
        seen = np.flatnonzero(~np.isnan(sample.demand_bps).all(axis=1))
        if len(seen) < 2 * self.settings.min_history_steps:
            return
        # The steps before anything was measured would shift where training ends and the contest begins.
        sample = sample.tail(sample.n_steps - int(seen[0]))
        self._opponent = self.versions.champion
        self._training.start(self._trainer, now, retrain, sample, self.settings, self.forecaster.trained)

    def collect(self, now: float) -> None:
        """Take in what a worker has trained: put it to use if it won, and on record in any case."""
        result = self._training.result(expected=(NotEnoughHistory,))
        if result is None:
            return
        trained, verdict = result
        LOG.info("training: %s", verdict.reason)
        try:
            if len(trained.body) > MAX_MODEL_BYTES:
                raise ModelFailed(f"model must have <= {MAX_MODEL_BYTES} bytes, got {len(trained.body)}")
            obstacle = self._obstacle(now)
            if not verdict.promoted:
                self._reject(now, trained, verdict, verdict.reason)
            elif obstacle is not None:
                self._reject(now, trained, verdict, f"would be promoted, but {obstacle}; {verdict.reason}")
            else:
                self._promote(now, trained, verdict)
        except ModelFailed as error:
            self._training.error = f"training gave an unusable model: {error}"
            self.versions.add(now, trained, verdict, Outcome.REJECTED, f"unusable: {error}", b"")

    def _promote(self, now: float, trained: TrainedModel, verdict: Verdict) -> None:
        before = self.forecaster.state()
        self.forecaster.install(trained)
        self._put_by(before)
        made = self.versions.add(
            now, trained, verdict, Outcome.PROMOTED, verdict.reason, self.forecaster.state()
        )
        LOG.info("model version %d is in use, on trial for %.0f s", made.version, TRIAL_S)
        self._changed()

    def _obstacle(self, now: float) -> str | None:
        """Why the winner of a contest is not put to use all the same."""
        if self.versions.held(now):
            return f"version {self.versions.champion} is held"
        if self._opponent != self.versions.champion:
            # It was changed while workers trained: the contest was against a model that is not used.
            return f"it was judged against version {self._opponent}, not {self.versions.champion}"
        return None

    def _reject(self, now: float, trained: TrainedModel, verdict: Verdict, reason: str) -> None:
        spare = Forecaster(self.settings)
        spare.install(trained)
        self.versions.add(now, trained, verdict, Outcome.REJECTED, reason, spare.state())

    def _put_by(self, state: bytes) -> None:
        """Keep what the champion's calibration has learnt, for when it returns."""
        champion = self.versions.champion
        if champion is not None:
            self.versions.keep_body(champion, state)

    def _changed(self) -> None:
        """Another model is in use: forget what was thought of the last."""
        self.generation += 1
        self._doubt = None

    # The trial of a new model.

    @property
    def _on_trial(self) -> bool:
        return not math.isnan(self.versions.promoted_at)

    def review(self, now: float) -> None:
        """Take the champion back if it does worse than persistence on what came since."""
        if not self._on_trial:
            return
        score = self.forecaster.live_score()
        if score is None or math.isnan(score[1]):
            return
        model, persistence = score
        # After the clock was set back nobody knows how long it has been: it has to decide itself now.
        over = not 0 <= now - self.versions.promoted_at < TRIAL_S
        if model <= persistence * (1 if over else PLAINLY_WORSE):
            self._doubt = None
            if over:
                self.versions.proven()
            return
        finding = f"live it scores {model:.4f}, persistence {persistence:.4f}"
        if not self._revert(now, finding) and over:
            version = self.versions.champion
            self._doubt = f"model version {version} has no earlier one to give way to: {finding}"

    def gave_way(self, now: float) -> bool:
        """Whether a model on trial broke at the last forecast and an earlier one is in use now."""
        broken = self.forecaster.last_error
        return broken is not None and self._on_trial and self._revert(now, broken)

    def _revert(self, now: float, reason: str) -> bool:
        """Go back to the version before, if there is one that works."""
        while (fallback := self.versions.fallback) is not None:
            try:
                self.forecaster.restore(fallback.body)
            except ModelFailed as error:
                LOG.error("model version %d cannot be used any more: %s", fallback.version, error)
                self.versions.keep_body(fallback.version, b"")
                continue
            LOG.warning("model version %s reverted: %s", self.versions.champion, reason)
            self.versions.revert(now, fallback.version, reason)
            self._changed()
            return True
        return False

    # What operators order; the planner's lock is held.

    def roll_back(self, version: int, now: float) -> ModelVersion:
        """Put an earlier version to use and hold it; the one in use is held where it is.

        Raises
        ------
        NotThere : if there is no such version.
        Refused : if its model was dropped, or does not fit the configuration.
        """
        wanted = self.version(version)
        if version != self.versions.champion:
            if not wanted.kept:
                raise Refused(f"version must be one whose model is kept, got {version}")
            before = self.forecaster.state()
            try:
                self.forecaster.restore(wanted.body)
            except ModelFailed as error:
                raise Refused(f"version must fit the configuration, got {version}: {error}") from None
            self._put_by(before)
            self._changed()
        until = math.inf if self._hold_s is None else now + self._hold_s
        self.versions.roll_back(now, version, until, "by command")
        return self.version(version)

    def release(self, now: float) -> None:
        """Let challengers be promoted again; nothing changes where nothing is held."""
        if self.versions.held(now):
            self.versions.release(now, "by command")

    def version(self, version: int) -> ModelVersion:
        """One version on record. Raises NotThere."""
        try:
            return self.versions[version]
        except KeyError:
            raise NotThere(f"version must be one of the models on record, got {version}") from None

    # Restarts.

    def restore(self, record: bytes | None, champion: bytes | None, now: float) -> None:
        """Go on with the models of a predecessor: its record, and its forecaster with calibration.

        What cannot be used is logged. The record decides which model is in use.
        """
        if record is not None:
            try:
                self.versions = ModelVersions.restored(record, self.versions.kept)
            except ValueError as error:
                LOG.error("record of models not restored: %s", error)
        if champion is not None:
            try:
                self.forecaster.restore(champion)
            except ModelFailed as error:
                LOG.warning("stored model not used: %s", error)
        number, trained = self.versions.champion, self.forecaster.trained
        if number is not None:
            self._restore_champion(self.versions[number], now)
        elif trained is not None:
            unknown = Verdict(True, math.nan, math.nan, math.nan, 0, "found in the store")
            self.versions.add(
                now, trained, unknown, Outcome.PROMOTED, unknown.reason, self.forecaster.state()
            )
            self.versions.proven()

    def _restore_champion(self, wanted: ModelVersion, now: float) -> None:
        """Written one after the other, the forecaster may be older than the record."""
        trained = self.forecaster.trained
        if trained and (trained.trained_until, trained.n_rows) == (wanted.trained_until, wanted.n_rows):
            return
        try:
            self.forecaster.restore(wanted.body)
        except ModelFailed as error:
            LOG.warning("model version %d not used: %s", wanted.version, error)
            # Whatever was loaded, it is not what the record says.
            self.forecaster = Forecaster(self.settings)
            self.versions.lose(now, str(error))
