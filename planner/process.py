"""The planner as a process: the loop's thread, the store, and the workers, started and stopped together."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.types import ASGIApp

from forecasting.models import ModelFailed
from planner.alarms import AlarmStream
from planner.archetypes import ArchetypeKeeper
from planner.audit import AuditLog
from planner.audit_watch import AuditWatch
from planner.cluster import training_workers
from planner.config import Config
from planner.config import Store as StoreConfig
from planner.dry_run import Rehearsal
from planner.events.desk import EventDesk
from planner.events.uplift import EventUplift
from planner.group_desk import GroupDesk
from planner.loop import Planner
from planner.memory import Memory
from planner.network_desk import NetworkDesk
from planner.policy_desk import PolicyDesk
from planner.rates import RateHistory
from planner.remediation.desk import RemediationDesk
from planner.seam import PlanBoard, seam_app
from planner.secret import read_or_make
from planner.shape_desk import ShapeDesk
from planner.snapshot import ForecastQuality, Level, PoolForecast, Snapshot
from planner.webhook_events import Announcer
from planner.webhooks import Webhooks
from planner.workers import worker_pool
from telemetry.keys import KEY_VARIABLE, StoreKey, create_key_file, load_key
from telemetry.rows import SampleRows
from telemetry.store import Store
from telemetry.writer import StoreWriter

LOG = logging.getLogger("tidegate.planner")

#: Two ticks are never closer than this, however often the network changes.
_LEAST_PAUSE_S: Final = 0.5
_MEMORY_EVERY_S: Final = 5.0
_UPKEEP_EVERY_S: Final = 300.0
_CALIBRATION_EVERY_S: Final = 300.0
_EVENTS_EVERY_S: Final = 60.0
_MEMORY, _FORECASTER, _MODELS, _EVENTS = "planner", "forecaster", "models", "events"
_ARCHETYPES: Final = "archetypes"
_ALARMS: Final = "alarms"
_PUBLICATION: Final = "publication"
_WEBHOOKS: Final = "webhooks"
#: Under this name a planner's problems are the store's.
_STORE: Final = "store"


class PlannerProcess:
    """Everything that runs beside the web servers. ``operations`` is itself."""

    def __init__(self, config: Config) -> None:
        """Open the store and take up where the last planner stopped.

        Raises
        ------
        StoreKeyError, StoreError : if the store cannot be used; it is untouched.
        SecretError, AuditError : if the seam's secret or the audit log cannot be used.
        """
        self.config = config
        secret = read_or_make(config.planner.secret_file)
        #: Who did what: operators' writes, and what the planner did by itself.
        self.audit = AuditLog(config.northbound.audit_path)
        self._store = open_store(config.store)
        self._writer = StoreWriter(self._store)
        self._executor: Executor = worker_pool()
        self._trainer = training_workers(config.forecasting, self._executor)
        self.planner = Planner(
            config, self._executor, self._store.load_window, self._keep, trainer=self._trainer
        )
        known = self.planner.prediction.settings
        uplift = EventUplift(known.step_s, known.horizons_s, known.max_rate_bps)
        uplift.join(self.planner.prediction)
        self._desk = EventDesk(config.events, uplift, self._events_written)
        self._events_at = float("-inf")
        self._events_remembered: bytes = b""
        offset = datetime.now(config.events.zone).utcoffset() or timedelta()
        self._archetypes = ArchetypeKeeper(
            self.planner.prediction,
            self._executor,
            config.forecasting.train_every_s,
            self._archetypes_written,
            offset.total_seconds(),
        )
        self._archetypes.join()
        self._archetypes_revision = 0
        self._alarms_sequence = 0
        self._policy = PolicyDesk(self.planner, self._written)
        self._groups = GroupDesk(self.planner, self._written)
        self._network = NetworkDesk(self.planner, self._written)
        self._shapes = ShapeDesk(self.planner, self._written)
        self._publication_revision = 0
        self._remediation = RemediationDesk(self.planner, self._written)
        self._webhooks = Webhooks(config.webhooks, self._webhooks_written)
        self._webhooks_revision = 0
        self.alarms.written = self._alarms_written
        self._board = PlanBoard()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        #: Held while the state is taken and written down, so that an older one never follows a newer.
        self._memory_lock = threading.Lock()
        self._remembered: bytes = b""
        #: Which record of models is on its way to the disk, and when the calibration last was.
        self._models_revision = -1
        self._calibration_at = float("-inf")
        self._restore()
        self._audit_watch = AuditWatch(self.planner, self.audit.note)
        self._announcer = Announcer(self.planner, self._webhooks)
        self.seam_app: ASGIApp = seam_app(self.planner, secret, self._board, self._wake.set)

    @property
    def operations(self) -> PlannerProcess:
        """What northbound calls."""
        return self

    def start(self) -> None:
        """Start planning."""
        self._desk.start()
        self._webhooks.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop planning, write down what a successor needs, and close the store."""
        self._stop.set()
        self._wake.set()
        self._desk.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        self._webhooks.stop()
        self._calibration_at = self._events_at = float("-inf")
        self._remember(time.time())
        if self._trainer is not self._executor:
            self._trainer.shutdown(wait=False, cancel_futures=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._writer.close()

    # The loop's thread.

    def _run(self) -> None:
        tick_s = self.config.allocation.tick_s
        next_tick = time.monotonic()
        next_memory = next_upkeep = 0.0
        while not self._stop.is_set():
            try:
                self._tick()
                if time.monotonic() >= next_memory:
                    next_memory = time.monotonic() + _MEMORY_EVERY_S
                    self._remember(time.time())
                if time.monotonic() >= next_upkeep:
                    next_upkeep = time.monotonic() + _UPKEEP_EVERY_S
                    store = self.config.store
                    self._writer.maintain(time.time(), store.raw_hours, store.rollup_days)
            except Exception:
                LOG.exception("planner round failed, going on")
            # A tick that was woken early does not put the next one off.
            if time.monotonic() >= next_tick:
                next_tick = max(next_tick + tick_s, time.monotonic())
            self._stop.wait(_LEAST_PAUSE_S)
            self._wake.wait(max(0.0, next_tick - time.monotonic()))
            self._wake.clear()

    def _look_at_store(self) -> None:
        """A store that takes nothing is a problem of the planner's health: history and state are being lost."""
        known = self.planner.problems.pop(_STORE, None)
        if faults := self._writer.faults:
            what = "; ".join(f"{kind}: {fault}" for kind, fault in faults.items())
            problem = f"store does not take all, plans go on: {what}"
            self.planner.problems[_STORE] = problem
            if known is None:
                LOG.error("%s", problem)

    def _tick(self) -> None:
        self._look_at_store()
        before = self.planner.snapshot.plan.version
        if self.planner.tick(time.time()).version != before:
            self._board.published()
        self._audit_watch.step(time.time())
        try:
            self._announcer.step(time.time())
        except Exception:
            LOG.exception("webhooks not told, going on")

    def _keep(self, rows: list[SampleRows]) -> None:
        for part in rows:
            self._writer.submit(part)

    def _remember(self, now: float) -> None:
        with self._memory_lock:
            with self.planner.lock:
                memory = self.planner.memory().to_bytes()
                models = self._models_to_store()
            if memory != self._remembered:
                self._remembered = memory
                models[_MEMORY] = memory
            if time.monotonic() - self._events_at >= _EVENTS_EVERY_S:
                self._events_at = time.monotonic()
                events = self._events_state()
                if events != self._events_remembered:
                    self._events_remembered = models[_EVENTS] = events
            models |= self._archetypes_to_store() | self._alarms_to_store() | self._webhooks_to_store()
            for name, body in models.items():
                self._writer.put_state(name, body, now)

    def _models_to_store(self) -> dict[str, bytes]:
        """What is new of the models: their record, and now and then what calibration has learnt."""
        own, states = self.planner.prediction.models, {}
        changed = own.versions.revision != self._models_revision
        if changed:
            self._models_revision = own.versions.revision
            states[_MODELS] = own.versions.to_bytes()
        if changed or time.monotonic() - self._calibration_at >= _CALIBRATION_EVERY_S:
            self._calibration_at = time.monotonic()
            if own.forecaster.trained is not None:
                states[_FORECASTER] = own.forecaster.state()
        return states

    def _restore(self) -> None:
        publication = self._store.get_state(_PUBLICATION)
        if publication is not None:
            try:
                self.planner.publication.restore(publication)
            except ValueError as error:
                LOG.error("mode and freeze of an earlier planner not restored: %s", error)
        memory = self._store.get_state(_MEMORY)
        if memory is not None:
            try:
                self.planner.restore(Memory.from_bytes(memory))
                LOG.info("state of an earlier planner restored")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                LOG.error("state of an earlier planner not restored: %r", error)
        models, champion = self._store.get_state(_MODELS), self._store.get_state(_FORECASTER)
        self.planner.prediction.models.restore(models, champion, time.time())
        events = self._store.get_state(_EVENTS)
        if events is not None:
            try:
                self._desk.restore(events)
            except ValueError as error:
                LOG.error("events of an earlier planner not restored: %s", error)

        archetypes = self._store.get_state(_ARCHETYPES)
        if archetypes is not None:
            try:
                self._archetypes.restore(archetypes)
            except ModelFailed as error:
                LOG.warning("archetypes of an earlier planner not restored: %s", error)
        alarms = self._store.get_state(_ALARMS)
        if alarms is not None:
            try:
                self.alarms.restore(alarms, time.time())
            except ValueError as error:
                LOG.error("alarms of an earlier planner not restored: %s", error)
        webhooks = self._store.get_state(_WEBHOOKS)
        if webhooks is not None:
            try:
                self._webhooks.restore(webhooks)
            except ValueError as error:
                LOG.error("webhooks of an earlier planner not restored: %s", error)

    # What northbound asks; from other threads.

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return self.planner.snapshot

    def create_group(self, group_id: str, members: tuple[str, ...], policy: dict[str, Any]) -> None:
        """See ``Operations``."""
        self._groups.create(group_id, members, policy)

    def set_group_bandwidth(self, group_id: str, policy: dict[str, Any]) -> None:
        """See ``Operations``."""
        self._groups.set_bandwidth(group_id, policy)

    @property
    def grouping(self) -> GroupDesk:
        """See ``Operations``."""
        return self._groups

    @property
    def network(self) -> NetworkDesk:
        """See ``Operations``."""
        return self._network

    @property
    def shaping(self) -> ShapeDesk:
        """See ``Operations``."""
        return self._shapes

    def _written(self, what: str) -> None:
        """An operator's write is acknowledged when it is on disk, and planned with at once."""
        LOG.info("operator: %s", what)
        with self._memory_lock:
            with self.planner.lock:
                self._remembered = self.planner.memory().to_bytes()
                states = {_MEMORY: self._remembered} | self._publication_to_store()
            self._write_through(states)
        self._wake.set()

    def rehearse(self) -> Rehearsal:
        """See ``Operations``."""
        return Rehearsal(self.planner, time.time())

    def models(self) -> dict[str, Any]:
        """See ``Operations``."""
        with self.planner.lock:
            return self.planner.prediction.models.versions.report(time.time())

    def roll_back_model(self, version: int) -> dict[str, Any]:
        """See ``Operations``."""
        with self.planner.lock:
            self.planner.prediction.models.roll_back(version, time.time())
        self._models_written(f"model version {version} put to use and held")
        return self.models()

    def release_model(self) -> dict[str, Any]:
        """See ``Operations``."""
        with self.planner.lock:
            self.planner.prediction.models.release(time.time())
        self._models_written("newer models may be promoted again")
        return self.models()

    def _models_written(self, what: str) -> None:
        LOG.info("operator: %s", what)
        with self._memory_lock:
            with self.planner.lock:
                states = self._models_to_store()
            self._write_through(states)
        self._wake.set()

    def _write_through(self, states: Mapping[str, bytes]) -> None:
        """To the disk now; to the writer too: what waits there is older, and would come after this."""
        now = time.time()
        for name, body in states.items():
            self._writer.put_state(name, body, now)
            self._store.put_state(name, body, now)

    @property
    def events(self) -> EventDesk:
        """See ``Operations``."""
        return self._desk

    @property
    def archetypes(self) -> ArchetypeKeeper:
        """See ``Operations``."""
        return self._archetypes

    @property
    def policy(self) -> PolicyDesk:
        """See ``Operations``."""
        return self._policy

    def _publication_to_store(self) -> dict[str, bytes]:
        own = self.planner.publication
        if own.revision == self._publication_revision:
            return {}
        self._publication_revision = own.revision
        return {_PUBLICATION: own.state()}

    def _archetypes_to_store(self) -> dict[str, bytes]:
        revision = self._archetypes.revision
        if revision == self._archetypes_revision:
            return {}
        self._archetypes_revision = revision
        body = self._archetypes.state()
        return {} if body is None else {_ARCHETYPES: body}

    @property
    def alarms(self) -> AlarmStream:
        """See ``Operations``."""
        return self.planner.alarm_watch.stream

    def _alarms_to_store(self) -> dict[str, bytes]:
        sequence = self.alarms.sequence
        if sequence == self._alarms_sequence:
            return {}
        self._alarms_sequence = sequence
        return {_ALARMS: self.alarms.state()}

    def _alarms_written(self) -> None:
        with self._memory_lock:
            self._write_through(self._alarms_to_store())

    @property
    def remediation(self) -> RemediationDesk:
        """See ``Operations``."""
        return self._remediation

    @property
    def webhooks(self) -> Webhooks:
        """See ``Operations``."""
        return self._webhooks

    def _webhooks_to_store(self) -> dict[str, bytes]:
        revision = self._webhooks.revision
        if revision == self._webhooks_revision:
            return {}
        self._webhooks_revision = revision
        return {_WEBHOOKS: self._webhooks.state()}

    def _webhooks_written(self) -> None:
        with self._memory_lock:
            self._write_through(self._webhooks_to_store())

    def _archetypes_written(self) -> None:
        with self._memory_lock:
            self._write_through(self._archetypes_to_store())

    def _events_state(self) -> bytes:
        with self.planner.lock:
            learnt = self._desk.uplift.state()
        return self._desk.state(learnt)

    def _events_written(self) -> None:
        with self._memory_lock:
            self._events_remembered = self._events_state()
            self._write_through({_EVENTS: self._events_remembered})

    def forecast_quality(self) -> ForecastQuality:
        """See ``Operations``."""
        with self.planner.lock:
            return self.planner.prediction.quality()

    def pool_forecast(self, pool: str, since: float, application: str | None = None) -> PoolForecast:
        """See ``Operations``."""
        return self.planner.pool_forecast(pool, since, application)

    def rate_history(
        self, level: Level, name: str, start: float, end: float, resolution_s: float | None = None
    ) -> RateHistory:
        """See ``Operations``."""
        return self.planner.rate_history(level, name, start, end, resolution_s)

    def summary(self) -> dict[str, Any]:
        """See ``Operations``."""
        with self.planner.lock:
            known = [switch.in_step for switch in self.snapshot.switches if switch.region is not None]
            equal = None if None in known or not known else all(known)
            return self.planner.tally.report(equal)


def open_store(settings: StoreConfig) -> Store:
    """The configured store. A new one without a configured key gets a key file beside it.

    Raises
    ------
    StoreKeyError, StoreError : as ``Store.open`` and ``load_key`` do.
    """
    settings.path.parent.mkdir(parents=True, exist_ok=True)
    # Left by a planner that was killed, it goes on being written to; it may be readable by others.
    log = settings.path.with_name(f"{settings.path.name}.wal")
    if log.exists():
        log.chmod(log.stat().st_mode & 0o700)
    return Store.open(settings.path, store_key(settings))


def store_key(settings: StoreConfig) -> StoreKey:
    """The key: from the configured file, else the environment, else the file ``PATH.key``."""
    if settings.key_file is not None or os.environ.get(KEY_VARIABLE):
        return load_key(settings.key_file, os.environ)
    beside = settings.path.with_name(settings.path.name + ".key")
    if not beside.exists() and not settings.path.exists():
        LOG.info("new store %s: key made in %s; keep a copy elsewhere", settings.path, beside)
        return create_key_file(beside)
    return load_key(beside, {})
