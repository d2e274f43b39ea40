"""The detector in the loop: what came of each step, whose it is, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.anomalies import Detector
from forecasting.anomaly import AnomalySettings, Step
from planner.alarms import AlarmStream, Sighting
from planner.config_alarms import Alarms
from planner.history import level_of_series
from planner.prediction import Arrived
from planner.snapshot import Level
from planner.structure import Structure
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Gives the number of peers at a time by user of the structure, shape (n_users,), NaN: not known.
Peers = Callable[[Structure, float], F64]
#: Gives the series with a scheduled event on: (now, lead_s, tail_s) -> shape (2 x n_pools,).
Scheduled = Callable[[float, float, float], Bool]


class AlarmWatch:
    """Hears what came of each step (``arrived`` joins ``Prediction.listeners``) and fills the stream."""

    def __init__(
        self,
        settings: Alarms,
        step_s: float,
        peers: Peers | None = None,
        scheduled: Scheduled | None = None,
    ) -> None:
        self.stream = AlarmStream(settings)
        self._settings = settings
        self._peers = peers
        self._scheduled = scheduled
        self._detector = Detector(detector_settings(settings, step_s))
        self._structure: Structure | None = None
        self._material: F64 = np.empty(0)
        self._ceiling: F64 = np.empty(0)
        self._peak: F64 = np.empty(0)
        self._peak_of: I64 = np.empty(0, np.int64)

    def polled(self, columns: I64, offered_bps: F64) -> None:
        """Note what the pools offered since the last tick: a step is longer, and hides short peaks.

        columns : shape (2 x n_pools,). offered_bps : shape (2, n_pools), NaN is a gap.
        """
        if columns is not self._peak_of:
            self._peak_of, self._peak = columns, np.full(len(columns), np.nan)
        self._peak = np.fmax(self._peak, offered_bps.reshape(-1))

    def arrived(self, came: Arrived) -> None:
        """Judge one step and pass on what it brought."""
        if not self._settings.enabled:
            return
        structure = came.structure
        if structure is not self._structure:
            self._know(structure)
        changes = self._detector.step(came.end_time, self._step(came))
        if changes:
            row_of = {number: row for row, number in enumerate(came.columns.tolist())}
            n = len(structure.path)
            self.stream.take(
                came.end_time,
                [
                    Sighting(
                        structure.path[row % n],
                        Level(structure.level[row % n]).name.lower(),
                        row // n,
                        change,
                    )
                    for change in changes
                    if (row := row_of.get(change.series_id)) is not None
                ],
            )
            gone = [change for change in changes if change.series_id not in row_of]
            self.stream.take(came.end_time, [Sighting("", "", 0, change) for change in gone])

    def _step(self, came: Arrived) -> Step:
        s, n = came.structure, len(came.columns)
        peers = np.full(n, np.nan)
        if self._peers is not None:
            # Who sends decides whom to talk to: fan-out is a matter of upload.
            peers[s.first_user : len(s.path)] = self._peers(s, came.end_time)
        excused = np.zeros(n, np.bool_)
        if self._scheduled is not None:
            margin = self._settings.event_margin_s
            scheduled = self._scheduled(came.end_time, margin, margin)
            excused = scheduled if scheduled.shape == excused.shape else excused
        peak = self._peak if self._peak.shape == (n,) else np.full(n, np.nan)
        self._peak = np.full(n, np.nan)
        above = np.where(s.parent >= 0, s.parent, -1).astype(np.int64)
        return Step(
            series_id=came.columns,
            level=level_of_series(s),
            realised_bps=came.demand_bps.astype(np.float64),
            censored=came.censored,
            forecast_bps=came.forecast_bps.astype(np.float64),
            quantile=came.quantile,
            parent=np.concatenate([above, np.where(above >= 0, above + len(s.path), -1)]),
            material_bps=self._material,
            ceiling_bps=self._ceiling,
            peak_bps=peak,
            user=np.tile(s.level == Level.USER, 2),
            excused=excused,
            peers=peers,
        )

    def _know(self, structure: Structure) -> None:
        """What is material to each pool: a share of what it may have at most, its parents' ceilings included."""
        ceiling = structure.ceiling_bps.copy()
        for row, parent in enumerate(structure.parent.tolist()):
            if parent >= 0:
                ceiling[:, row] = np.minimum(ceiling[:, row], ceiling[:, parent])
        self._structure = structure
        self._ceiling = ceiling.reshape(-1)
        finite = np.where(np.isfinite(self._ceiling), self._ceiling, np.nan)
        self._material = self._settings.least_share * finite


def detector_settings(settings: Alarms, step_s: float) -> AnomalySettings:
    """The detector's settings that this configuration means, at this step."""
    steps: Final = AnomalySettings()
    # Durations are minutes by default; with longer steps they are counted in steps.
    minute = 60.0 / step_s
    shift = max(2, round(steps.shift_steps * minute))
    return AnomalySettings(
        step_s=step_s,
        false_alarms_per_day=settings.false_alarms_per_day,
        shift_steps=shift,
        silent_steps=max(2, round(steps.silent_steps * minute)),
        close_steps=max(2, round(steps.close_steps * minute)),
        test_steps=max(1, round(steps.test_steps * minute)),
        normal_steps=max(shift + 1, round(settings.new_normal_s / step_s)),
    )


def peers_of(view: TrafficView, users: tuple[str, ...]) -> F64:
    """How many different endpoints each user sends to, shape (n_users,); 0 for users without an edge."""
    count = np.zeros(len(view.endpoints))
    if len(view.src):
        pair = np.unique(view.src.astype(np.int64) * len(view.endpoints) + view.dst)
        count = np.bincount(pair // len(view.endpoints), minlength=len(view.endpoints)).astype(np.float64)
    row_of = {name: row for row, name in enumerate(view.endpoints)}
    return np.array([count[row_of[user]] if user in row_of else 0.0 for user in users])
