"""The detector in the loop: what came of each step, whose it is, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.anomalies import Detector
from forecasting.anomaly import Anomaly, AnomalySettings, Change, Evidence, Kind, Step
from forecasting.coverage import DRIFT, Coverage
from forecasting.forecast import Rung
from planner.alarms import AlarmStream, Sighting
from planner.config_alarms import Alarms
from planner.history import level_of_series
from planner.prediction import Arrived, Scheduled
from planner.snapshot import Level
from planner.structure import Structure
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Gives the number of peers at a time by user of the structure, shape (n_users,), NaN: not known.
Peers = Callable[[Structure, float], F64]


#: Peers are counted no more often than this.
PEERS_EVERY_S: Final = 60.0


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
        #: Levels whose coverage drifts, with the alarm that says so.
        self._drifting: dict[int, Anomaly] = {}
        self._peers_known: tuple[Structure | None, float, F64] = (None, 0.0, np.empty(0))

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
        self.stream.take(came.end_time, self._drifts(came))

    def _drifts(self, came: Arrived) -> list[Sighting]:
        """Levels whose live coverage went astray at most horizons since the last step, or came back."""
        by_level: dict[int, list[Coverage]] = {}
        for one in came.coverage:
            by_level.setdefault(one.level, []).append(one)
        found = []
        for level, coverage in by_level.items():
            astray = [one for one in coverage if one.drifting]
            before = self._drifting.get(level)
            if before is None and 2 * len(astray) > len(coverage):
                change = self._drifting[level] = _drift(came, level, astray)
            elif before is not None and not astray:
                del self._drifting[level]
                change = replace(before, change=Change.CLOSED, reason="back to normal")
            else:
                continue
            name = Level(level // 2).name.lower()
            found.append(Sighting(came.structure.path[0], name, level % 2, change))
        return found

    def _step(self, came: Arrived) -> Step:
        s, n = came.structure, len(came.columns)
        peers = np.full(n, np.nan)
        if self._peers is not None:
            # Who sends decides whom to talk to: fan-out is a matter of upload.
            peers[s.user_rows] = self._peers_of(s, came.end_time, self._peers)
        excused = np.zeros(n, np.bool_)
        if self._scheduled is not None:
            margin = self._settings.event_margin_s
            excused = self._scheduled(s, came.end_time, margin, margin)
        peak = self._peak if self._peak.shape == (n,) else np.full(n, np.nan)
        self._peak = np.full(n, np.nan)
        above = np.where(s.parent >= 0, s.parent, -1).astype(np.int64)
        # Below these rungs one figure stands for all quantiles: nothing can be said against it.
        trusted = came.rung <= Rung.ARCHETYPE
        return Step(
            series_id=came.columns,
            level=level_of_series(s),
            realised_bps=came.demand_bps.astype(np.float64),
            censored=came.censored,
            forecast_bps=np.where(trusted[:, None], came.forecast_bps, np.nan),
            quantile=came.quantile,
            parent=np.concatenate([above, np.where(above >= 0, above + len(s.path), -1)]),
            material_bps=self._material,
            ceiling_bps=self._ceiling,
            peak_bps=peak,
            user=np.tile(s.level >= Level.USER, 2),
            excused=excused,
            peers=peers,
        )

    def _peers_of(self, structure: Structure, now: float, ask: Peers) -> F64:
        """The number of peers, asked for once a minute: it goes through all edges of the traffic graph."""
        known_of, at, count = self._peers_known
        if known_of is not structure or not 0 <= now - at < PEERS_EVERY_S:
            count = ask(structure, now)
            self._peers_known = (structure, now, count)
        return count

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


def _drift(came: Arrived, level: int, astray: list[Coverage]) -> Anomaly:
    """That a level's band caught too little or too much of the last hour."""
    aim = float(came.quantile[-1] - came.quantile[0])
    share = float(np.mean([one.hour[-1] - one.hour[0] for one in astray]))
    evidence = Evidence(share, aim - DRIFT, aim, aim + DRIFT, np.nan, np.nan, np.nan, 1)
    direction = 1 if share > aim else -1
    # No column has a number below zero.
    return Anomaly(-1 - level, Kind.COVERAGE, Change.OPENED, direction, came.end_time, "minor", "", evidence)


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
        pair = np.sort(view.src.astype(np.int64) * len(view.endpoints) + view.dst)
        # Several applications to one peer are one peer.
        pair = pair[np.diff(pair, prepend=-1) > 0]
        count = np.bincount(pair // len(view.endpoints), minlength=len(view.endpoints)).astype(np.float64)
    row_of = {name: row for row, name in enumerate(view.endpoints)}
    return np.array([count[row_of[user]] if user in row_of else 0.0 for user in users])
