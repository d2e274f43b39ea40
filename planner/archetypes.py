"""The archetypes in the loop: learnt by a worker now and then, named by operators, kept over restarts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

import numpy as np

from forecasting.models import ModelFailed
from forecasting.population import ArchetypeView, Population, UnknownArchetype, learn_population
from planner.prediction import Arrived, Prediction
from planner.snapshot import ArchetypeMember, NotThere, Refused
from planner.structure import Structure
from planner.workers import Errand

LOG = logging.getLogger("tidegate.planner")

#: What a worker returns is not believed beyond this many archetypes in all.
_MOST_ARCHETYPES: Final = 1000


class ArchetypeKeeper:
    """Learns archetypes beside the model's training. Reads and names may come from any thread."""

    def __init__(
        self,
        prediction: Prediction,
        executor: Executor,
        every_s: float,
        keep: Callable[[], None] = lambda: None,
        utc_offset_s: float = 0.0,
    ) -> None:
        """``keep`` is called after each change; when it returns, ``state`` is on disk."""
        self._prediction = prediction
        self._executor = executor
        self._keep = keep
        self._utc_offset_s = utc_offset_s
        self._learning = Errand("archetypes", every_s)
        #: Counts changes, so that state is written down when there is something new.
        self.revision = 0
        self._lock = threading.Lock()
        self._pools: tuple[Structure, dict[int, int]] | None = None

    def join(self) -> None:
        """Be told of every completed step from now on."""
        self._prediction.listeners.append(self.heard)

    @property
    def population(self) -> Population | None:
        """The archetypes in use; None before they were first learnt."""
        return self._prediction.forecaster.population

    def heard(self, arrived: Arrived) -> None:
        """Take in what a worker has learnt, and send the next errand when it is due. The loop's."""
        if self._pools is None or self._pools[0] is not arrived.structure:
            row_of = {int(column): row for row, column in enumerate(arrived.columns.tolist())}
            self._pools = (arrived.structure, row_of)
        learnt = self._learning.result()
        if learnt is not None:
            self._install(learnt)
        if not self._learning.due(arrived.end_time):
            return
        settings = self._prediction.settings
        sample = self._prediction.history.sample(
            arrived.structure, arrived.columns, arrived.end_time, settings.train_steps
        )
        seen = np.count_nonzero(~np.isnan(sample.demand_bps).all(axis=1))
        if seen < settings.window_steps:
            # One archetype a level, learnt in the loop, serves until there is more to tell them apart by.
            self._learning.put_off(arrived.end_time)
            return
        self._learning.start(
            self._executor,
            arrived.end_time,
            learn_population,
            sample,
            settings,
            self.population,
            self._utc_offset_s,
        )

    def views(self) -> tuple[ArchetypeView, ...]:
        """All archetypes; none before they were first learnt."""
        population = self.population
        return () if population is None else population.views()

    def members(self, archetype_id: int) -> tuple[ArchetypeMember, ...]:
        """Who belongs to one, the surest first, of those that training looked at.

        Raises
        ------
        NotThere : if no archetype has this id.
        """
        population, pools = self.population, self._pools
        try:
            if population is None:
                raise UnknownArchetype(archetype_id)
            series_id, probability = population.members(archetype_id)
        except UnknownArchetype:
            raise _not_there(archetype_id) from None
        if pools is None:
            return ()
        path, row_of = pools[0].path, pools[1]
        pairs = zip(series_id.tolist(), probability.tolist(), strict=True)
        found = [(row_of[one], share) for one, share in pairs if one in row_of]
        found.sort(key=lambda pair: -pair[1])
        return tuple(ArchetypeMember(path[row % len(path)], row // len(path), share) for row, share in found)

    def rename(self, archetype_id: int, name: str | None) -> ArchetypeView:
        """Call an archetype so; None or nothing: as the rule says. It outlives re-learning and restart.

        Raises
        ------
        NotThere : if no archetype has this id.
        Refused : if the name cannot be one.
        """
        with self._lock:
            population = self.population
            try:
                if population is None:
                    raise UnknownArchetype(archetype_id)
                named = population.named(archetype_id, name)
            except UnknownArchetype:
                raise _not_there(archetype_id) from None
            except ValueError as error:
                raise Refused(str(error)) from None
            self._prediction.forecaster.population = named
            self.revision += 1
        self._keep()
        return next(view for view in named.views() if view.id == archetype_id)

    def state(self) -> bytes | None:
        """For ``restore``; None while there is nothing to keep."""
        population = self.population
        return None if population is None else population.to_bytes()

    def restore(self, body: bytes) -> None:
        """Go on with the archetypes of an earlier planner.

        Raises
        ------
        ModelFailed : when the bytes are damaged or were made under other settings; nothing changes.
        """
        population = Population.from_bytes(body, self._prediction.settings)
        # Series are numbered by the ring, which begins anew.
        self._prediction.forecaster.population = population.without_members()

    def _install(self, learnt: Population) -> None:
        if len(learnt.id) > _MOST_ARCHETYPES:
            self._learning.error = f"archetypes: must be at most {_MOST_ARCHETYPES}, got {len(learnt.id)}"
            return
        with self._lock:
            try:
                self._prediction.forecaster.install_population(learnt)
            except ModelFailed as error:
                self._learning.error = f"archetypes: {error}"
                return
            self.revision += 1
        LOG.info("archetypes: %d of %d series", len(learnt.id), len(learnt.series_id))


def _not_there(archetype_id: int) -> NotThere:
    return NotThere(f"archetypeID must be the id of an archetype, got {archetype_id}")
