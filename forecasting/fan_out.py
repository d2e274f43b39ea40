"""Who talks to far more peers than ever: each series against its own past, no forecast needed.

Numbers of peers are compared as square roots, where a Poisson number has the same spread whatever its
mean. The usual and the high number are tracked quantiles; what lies beyond is judged by the tail of all series together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.anomaly import Anomaly, AnomalySettings, Change, Evidence, Kind, Step
from forecasting.tails import F64, Bools, Ints, Rows, Tail

Counts = npt.NDArray[np.int32]

#: At least this many times the usual number of peers, and so many more.
TIMES: Final = 2.0
MORE: Final = 10.0
#: So many times the usual number is a major alarm.
MAJOR_AT: Final = 10.0
#: The spread is at least that of a Poisson number, as a square root.
LEAST_SPREAD: Final = 0.5
#: How often the high number is passed.
HIGH_RATE: Final = 0.05
#: Share of the spread by which the tracked numbers move.
STEP: Final = 0.05


@dataclass
class _Peers(Rows):
    """Each series' usual and high number of peers, as square roots, and whether it has an alarm for them."""

    usual: F64
    high: F64
    seen: Counts
    told: Bools
    back: Counts
    age: Counts
    since: F64
    #: Usual, high (as counts) when it began.
    band: F64
    p_value: F64

    @classmethod
    def fresh(cls, n: int) -> _Peers:
        nan = np.full(n, np.nan)
        none = np.zeros(n, np.int32)
        return cls(
            nan.copy(), nan.copy(), none.copy(), np.zeros(n, np.bool_), none.copy(), none.copy(), nan.copy(),
            np.full((n, 2), np.nan), nan.copy(),
        )  # fmt: skip


class FanOut:
    """The fan-out half of ``forecasting.anomalies.Detector``."""

    def __init__(self, settings: AnomalySettings) -> None:
        self._settings = settings
        self._peers = _Peers.fresh(0)
        self._tail = Tail(HIGH_RATE, settings.memory_steps)

    def step(self, now: float, step: Step) -> list[Anomaly]:
        """What changed with this step."""
        peers = np.where(np.isfinite(step.peers) & (step.peers >= 0), step.peers, np.nan)
        known = np.flatnonzero(~np.isnan(peers))
        if not len(known):
            return []
        p = self._peers
        first = known[p.seen[known] == 0]
        self._settle(first, peers[first])
        beyond = np.zeros(len(peers))
        beyond[known] = np.maximum(np.sqrt(peers[known]) - p.high[known], 0.0) / self._spread(known)
        found = self._begin(now, step, peers, known, beyond) + self._end(step, peers, known)
        self._learn(peers, known, beyond, step.excused)
        return found

    def align(self, place: Ints) -> None:
        """Follow the series to their new columns; see ``Rows.aligned``."""
        self._peers = self._peers.aligned(place)
        self._tail.align(place)

    def gone(self, i: int, series_id: int) -> Anomaly | None:
        """The end of the alarm of column ``i``, if it has one, because the series is no more."""
        p = self._peers
        if not p.told[i]:
            return None
        return self._anomaly(series_id, float("nan"), i, Change.CLOSED, "the pool is gone")

    def _begin(self, now: float, step: Step, peers: F64, known: Ints, beyond: F64) -> list[Anomaly]:
        p, s = self._peers, self._settings
        # All series learn from one another: peers are peers at any level.
        chance = self._tail.probability(np.zeros(len(peers), np.int64), beyond)[known]
        usual = p.usual[known] ** 2
        many = (peers[known] >= TIMES * usual) & (peers[known] >= usual + MORE)
        with np.errstate(invalid="ignore"):
            rare = (chance < s.budget) & many & (p.seen[known] >= s.learn_steps)
        begins = rare & ~p.told[known] & ~step.excused[known]
        at = known[begins]
        p.told[at], p.since[at], p.p_value[at] = True, now, chance[begins]
        p.band[at] = np.stack([p.usual[at], p.high[at]], axis=1) ** 2
        p.back[at] = p.age[at] = 0
        return [self._anomaly(int(step.series_id[i]), float(peers[i]), i, Change.OPENED) for i in at.tolist()]

    def _end(self, step: Step, peers: F64, known: Ints) -> list[Anomaly]:
        p, s = self._peers, self._settings
        told = known[p.told[known]]
        p.age[told] += 1
        p.back[told] = np.where(peers[told] <= TIMES * p.band[told, 1], p.back[told] + 1, 0)
        found = []
        ends = (
            ("excused by a known event", step.excused[told]),
            ("back to normal", p.back[told] >= s.close_steps),
            ("new normal", p.age[told] >= s.normal_steps),
        )
        for reason, which in ends:
            for i in told[which & p.told[told]].tolist():
                found.append(self._anomaly(int(step.series_id[i]), float(peers[i]), i, Change.CLOSED, reason))
                p.told[i] = False
                if reason == "new normal":
                    self._settle(np.array([i]), peers[i : i + 1])
        return found

    def _learn(self, peers: F64, known: Ints, beyond: F64, excused: Bools) -> None:
        p, s = self._peers, self._settings
        calm = np.zeros(len(peers), np.bool_)
        calm[known] = ~p.told[known] & ~excused[known]
        self._tail.learn(np.zeros(len(peers), np.int64), beyond, calm, s.budget)
        at = np.flatnonzero(calm)
        value, move = np.sqrt(peers[at]), STEP * self._spread(at)
        # Quantile tracking: a move up weighs as much as the level, a move down as the rest.
        p.usual[at] += move * np.sign(value - p.usual[at]) * 0.5
        p.high[at] += move * np.where(value > p.high[at], 1 - HIGH_RATE, -HIGH_RATE)
        p.high[at] = np.maximum(p.high[at], p.usual[at])
        p.seen[known] += 1

    def _settle(self, at: Ints, peers: F64) -> None:
        self._peers.usual[at] = np.sqrt(peers)
        self._peers.high[at] = self._peers.usual[at] + LEAST_SPREAD

    def _spread(self, at: Ints) -> F64:
        spread: F64 = np.maximum(self._peers.high[at] - self._peers.usual[at], LEAST_SPREAD)
        return spread

    def _anomaly(self, series_id: int, peers: float, i: int, change: Change, reason: str = "") -> Anomaly:
        p = self._peers
        usual, high = float(p.band[i, 0]), float(p.band[i, 1])
        evidence = Evidence(
            peers,
            0.0,
            usual,
            high,
            float(p.p_value[i]),
            float("nan"),
            self._settings.budget,
            max(int(p.age[i]), 1),
        )
        severity = "major" if peers >= MAJOR_AT * max(usual, 1.0) else "minor"
        return Anomaly(series_id, Kind.FAN_OUT, change, 1, float(p.since[i]), severity, reason, evidence)
