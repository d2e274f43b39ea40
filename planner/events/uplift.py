"""Events in the loop: the forecast with them, and what came of it.

``adjust`` and ``arrived`` join ``planner.prediction.Prediction``. The forecaster, and its
calibration, stay without events; what is learnt here is what they missed.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from forecasting.event import Event
from forecasting.events import (
    Bools,
    Ints,
    Phases,
    Places,
    UpliftLearner,
    apply,
    log_sigma,
    phases,
)
from forecasting.forecast import Doubles, Floats, Forecast, Rung
from planner.events.views import EventsView, EventView, FeedView, KindView, UpliftView
from planner.history import level_of_series
from planner.prediction import Arrived, Prediction
from planner.structure import Structure

#: Of one event's series at one level so many are learnt from: a median needs no more.
SAMPLED_SERIES: Final = 128
#: More than this at a time would hold up the loop; the first to start are heeded.
MAX_ACTIVE: Final = 200


@dataclass(frozen=True)
class _Issued:
    """Forecasts without events of the series that events concern, until they come due."""

    end_time: float
    structure: Structure
    events: tuple[Event, ...]
    #: shape (E, R)
    cover: Bools
    #: shape (E, H)
    phase: Phases
    #: shape (R,)
    rows: Ints
    level: Ints
    #: shape (R, H)
    median_bps: Floats
    sigma: Doubles


class EventUplift:
    """The calendar as of now, and what events of each kind do.

    ``calendar`` is replaced as a whole by the thread that reads feeds; a tick takes
    the tuple that it finds.
    """

    def __init__(self, step_s: float, horizons_s: Sequence[float], max_rate_bps: float) -> None:
        self.calendar: tuple[Event, ...] = ()
        self.learner = UpliftLearner()
        self._structure: Structure | None = None
        self._places: tuple[Structure | None, Places] = (None, Places((), np.empty(0, np.int64)))
        self._step_s = step_s
        self._horizon_s = np.asarray(horizons_s, np.float64)
        self._max_rate_bps = max_rate_bps
        self._issued: deque[_Issued] = deque()

    @property
    def places(self) -> Places:
        """Whom scopes concern in the newest structure; made when first asked for."""
        structure = self._structure
        if structure is not self._places[0] and structure is not None:
            self._places = (structure, Places(structure.path, structure.parent))
        return self._places[1]

    def join(self, prediction: Prediction) -> None:
        """Take part in the planner's forecasts from now on."""
        prediction.adjustments.append(self.adjust)
        prediction.listeners.append(self.arrived)
        prediction.scheduled = self.scheduled

    def adjust(self, structure: Structure, forecast: Forecast, _now: float) -> Forecast:
        """The forecast with the events that act on it; the same object where none does."""
        self._structure = structure
        events = self._near(forecast.end_time)
        if not events:
            return forecast
        middle = forecast.end_time - self._step_s / 2
        phase = phases(events, middle, middle + self._horizon_s)
        cover = np.array([np.tile(self.places.covered(event.scope), 2) for event in events])
        level = level_of_series(structure)
        shift = self.learner.shift(events, cover, phase, level)
        if shift is None:
            return forecast
        self._remember(structure, forecast, events, cover, phase, level)
        demand = apply(forecast.demand_bps, forecast.quantile, shift, self._max_rate_bps)
        return replace(forecast, demand_bps=demand)

    def arrived(self, came: Arrived) -> None:
        """Learn from what came of earlier forecasts, at every horizon.

        Gaps and censored samples are skipped. A clock that stepped back drops the
        forecasts made in what is now the future.
        """
        now, half = came.end_time, self._step_s / 2
        demand = np.where(came.censored, np.float32(np.nan), came.demand_bps)
        self._issued = deque(one for one in self._issued if one.end_time < now)
        for issued in self._issued:
            due = issued.end_time + self._horizon_s
            for horizon in np.flatnonzero(np.abs(due - now) < half):
                self._learn(issued, int(horizon), _of_rows(issued, came.structure, demand))
        longest = float(self._horizon_s[-1])
        while self._issued and self._issued[0].end_time + longest <= now:
            self._issued.popleft()
        self.learner.close(now, longest + self._step_s)

    def scheduled(self, structure: Structure, now: float, lead_s: float = 0.0, tail_s: float = 0.0) -> Bools:
        """Which series have an event on, shape (2 x n_pools,): what happens there was announced.

        ``lead_s`` and ``tail_s`` widen each event.
        """
        self._structure = structure
        active: Bools = np.zeros(2 * len(structure.path), bool)
        for event in self.calendar:
            if event.start - lead_s <= now < event.end + tail_s:
                active |= np.tile(self.places.covered(event.scope), 2)
        return active

    def view(self, events: Sequence[Event], feeds: tuple[FeedView, ...]) -> EventsView:
        """These events with what they are expected to do, and what was learnt of each kind."""
        places = self.places
        depths = {event.scope: places.top_depth(event.scope) for event in events}
        return EventsView(
            tuple(self._event_view(event, depths[event.scope]) for event in events),
            tuple(
                KindView(kind, level, self._uplifts(kind, level))
                for kind in self.learner.kinds
                for level in sorted({number // 2 for number in self.learner.levels(kind)})
            ),
            feeds,
        )

    def _event_view(self, event: Event, depth: int | None) -> EventView:
        if depth is None:
            return EventView(event, None, ())
        return EventView(event, depth, self._uplifts(event.kind, depth, event.expected_uplift))

    def _uplifts(self, kind: str, level: int, announced: float | None = None) -> tuple[UpliftView, ...]:
        """Upload and download: the series' levels are 2 x level + direction, see ``level_of_series``."""
        return tuple(
            UpliftView(effect.factor(0.1), effect.factor(0.5), effect.factor(0.9), effect.n_events)
            for direction in range(2)
            for effect in [self.learner.effect(kind, 2 * level + direction, expected_uplift=announced)]
        )

    def state(self) -> dict[str, Any]:
        """What was learnt, as JSON has it."""
        return self.learner.state()

    def restore(self, state: Any) -> None:
        """Become what ``state`` described. Raises ValueError; nothing changes then."""
        if not isinstance(state, dict):
            raise ValueError(f"events' state must be a mapping, got {json.dumps(state)[:40]}")
        self.learner.restore(state)

    def _near(self, now: float) -> tuple[Event, ...]:
        """The events that are on, or begin before the longest horizon."""
        until = now + float(self._horizon_s[-1])
        near = [event for event in self.calendar if event.start < until and event.end > now - self._step_s]
        return tuple(sorted(near, key=lambda event: (event.start, event.id))[:MAX_ACTIVE])

    def _remember(
        self,
        structure: Structure,
        forecast: Forecast,
        events: tuple[Event, ...],
        cover: Bools,
        phase: Phases,
        level: Ints,
    ) -> None:
        if self._issued and self._issued[-1].end_time >= forecast.end_time:
            return
        # What no model made is no median: against it everything would look like an event's doing.
        telling = forecast.rung <= Rung.ARCHETYPE
        # Events of one scope concern the same series.
        distinct = list({event.scope: number for number, event in enumerate(events)}.values())
        rows = _sample(cover[distinct] & telling, level)
        if not rows.size:
            return
        demand = forecast.demand_bps[rows]
        middle = int(np.argmin(np.abs(forecast.quantile - 0.5)))
        self._issued.append(
            _Issued(
                forecast.end_time,
                structure,
                events,
                cover[:, rows],
                phase,
                rows,
                level[rows],
                demand[..., middle],
                log_sigma(demand, forecast.quantile),
            )
        )

    def _learn(self, issued: _Issued, horizon: int, realised_bps: Floats) -> None:
        self.learner.observe(
            issued.events,
            issued.cover,
            issued.phase[:, horizon],
            realised_bps,
            issued.median_bps[:, horizon],
            issued.sigma[:, horizon],
            issued.level,
        )


def _sample(cover: Bools, level: Ints) -> Ints:
    """Rows that stand for each event's series of each level, at even distances."""
    kept = np.zeros(len(level), bool)
    for one in cover:
        for number in np.flatnonzero(np.bincount(level[one])):
            rows = np.flatnonzero(one & (level == number))
            stride = -(-len(rows) // SAMPLED_SERIES)
            kept[rows[::stride]] = True
    return np.flatnonzero(kept)


def _of_rows(issued: _Issued, structure: Structure, values: Floats) -> Floats:
    """The values of the series that were issued, whose rows may be others by now; NaN for those gone."""
    if structure is issued.structure:
        return values[issued.rows]
    n_before, n = len(issued.structure.path), len(structure.path)
    row_of = {name: row for row, name in enumerate(structure.series)}
    rows = [
        row_of[name] + n * (row // n_before) if name in row_of else -1
        for row in issued.rows.tolist()
        for name in [issued.structure.series[row % n_before]]
    ]
    return np.where(np.array(rows) >= 0, values[rows], np.float32(np.nan))
