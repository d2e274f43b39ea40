"""Anomalies as values: what the detector is told at each step, and what it says.

The figures that mean something to an operator are in ``AnomalySettings``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.tails import F64, Bools, Ints

#: Tests that share the budget: up, down, drift up, drift down, silence, fan-out.
TESTS: Final = 6


class Kind(StrEnum):
    """What kind of surprise it is."""

    SPIKE = "spike"
    SHIFT = "shift"
    SILENCE = "silence"
    FAN_OUT = "fan_out"
    #: The forecast's own: its bands hold what they say no more. Shares instead of rates.
    COVERAGE = "coverage"


class Change(StrEnum):
    """What became of an anomaly at this step."""

    OPENED = "opened"
    #: Its kind is another now: a spike that stays is a shift.
    CHANGED = "changed"
    CLOSED = "closed"


@dataclass(frozen=True)
class AnomalySettings:
    """How rare is too rare, and how long is long.

    Raises
    ------
    ValueError : when a value breaks its rule; names the field, the rule and the value.
    """

    #: Distance of two steps, seconds, > 0.
    step_s: float = 60.0
    #: Expected false alarms of a series in a day, all tests together, > 0.
    false_alarms_per_day: float = 0.001
    #: Samples of a series before anything is said of it.
    learn_steps: int = 60
    #: Out of the band for so long is a shift.
    shift_steps: int = 5
    #: Silent for at least so long is silence; longer where the level is used to it.
    silent_steps: int = 3
    #: In the band again for so long: over.
    close_steps: int = 3
    #: Out of the band for so long: that is what is normal now.
    normal_steps: int = 60
    #: A speed test is no longer than this.
    test_steps: int = 2
    #: A speed test reaches this share of the ceiling.
    test_share: float = 0.8
    #: A surprise of a pool: this share of its children, and so many of them.
    wide_share: float = 0.5
    wide_least: int = 3
    #: Samples after which what was learnt has faded to a third.
    memory_steps: float = 10_000.0

    def __post_init__(self) -> None:
        rules = (
            ("step_s", 0 < self.step_s < np.inf, "must be > 0 and finite"),
            ("false_alarms_per_day", 0 < self.budget * TESTS < 0.5, "must be > 0 and below one in two steps"),
            *(
                (name, getattr(self, name) >= 1, "must be >= 1")
                for name in ("learn_steps", "shift_steps", "silent_steps", "close_steps", "wide_least")
            ),
            (
                "normal_steps",
                self.normal_steps > self.shift_steps,
                f"must be > shift_steps {self.shift_steps}",
            ),
            ("test_steps", self.test_steps >= 0, "must be >= 0"),
            ("test_share", 0 < self.test_share <= 1, "must lie in (0, 1]"),
            ("wide_share", 0 < self.wide_share <= 1, "must lie in (0, 1]"),
            ("memory_steps", self.memory_steps >= 100, "must be >= 100"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"{name} {rule}, got {getattr(self, name)!r}")

    @property
    def budget(self) -> float:
        """Probability of a false alarm at one step of one series by one test."""
        return self.false_alarms_per_day * self.step_s / 86400.0 / TESTS


@dataclass(frozen=True)
class Step:
    """What one step brought, and what had been forecast of it. Rates in bit/s.

    Raises
    ------
    ValueError : when shapes do not fit.
    """

    #: shape (S,), each id once; it names a series whatever its column.
    series_id: Ints
    #: shape (S,), >= 0; series of one level and direction learn from one another.
    level: Ints
    #: shape (S,); NaN is a gap.
    realised_bps: F64
    #: shape (S,); True where the sample understates demand.
    censored: Bools
    #: shape (S, K), rising along K, as issued before the step; NaN: none.
    forecast_bps: F64
    #: shape (K,), rising, inside (0, 1).
    quantile: F64
    #: shape (S,): column of the pool that this series is a part of; -1: of none.
    parent: Ints
    #: shape (S,): smaller surprises are no alarms; NaN: any size is.
    material_bps: F64
    #: shape (S,): never more than this; NaN or infinite: not known.
    ceiling_bps: F64
    #: shape (S,): the highest rate within the step; NaN: not known.
    peak_bps: F64
    #: shape (S,): whether it is a single user, who may run a speed test.
    user: Bools
    #: shape (S,): a known event explains whatever comes.
    excused: Bools
    #: shape (S,): how many it talked to; NaN: not known.
    peers: F64

    def __post_init__(self) -> None:
        n, k = len(self.series_id), len(self.quantile)
        if np.shape(self.forecast_bps) != (n, k):
            raise ValueError(f"forecast_bps must have shape ({n}, {k}), got {np.shape(self.forecast_bps)}")
        for name in (
            "level", "realised_bps", "censored", "parent", "material_bps", "ceiling_bps", "peak_bps", "user",
            "excused", "peers",
        ):  # fmt: skip
            if np.shape(getattr(self, name)) != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {np.shape(getattr(self, name))}")
        if len(np.unique(self.series_id)) != n:
            raise ValueError("series_id must name each series once")
        if n and not (self.parent.min() >= -1 and self.parent.max() < n):
            raise ValueError(
                f"parent must be -1 or a column below {n}, got {self.parent.min()} .. {self.parent.max()}"
            )


def plain_step(
    series_id: npt.ArrayLike,
    realised_bps: npt.ArrayLike,
    forecast_bps: npt.ArrayLike,
    quantile: npt.ArrayLike,
) -> Step:
    """A step of which nothing else is known: one level, no tree, no ceilings, no events."""
    ids = np.asarray(series_id, np.int64)
    n = len(ids)
    unknown, no = np.full(n, np.nan), np.zeros(n, np.bool_)
    return Step(
        ids,
        np.zeros(n, np.int64),
        np.asarray(realised_bps, np.float64),
        no,
        np.asarray(forecast_bps, np.float64),
        np.asarray(quantile, np.float64),
        np.full(n, -1, np.int64),
        unknown,
        unknown,
        unknown,
        no,
        no,
        unknown,
    )


@dataclass(frozen=True)
class Evidence:
    """Why it is an anomaly. NaN: not known, or it does not apply. Rates in bit/s, peers for fan-out, shares for coverage."""

    realised: float
    #: The forecast of before it began, at its lowest, middle and highest quantile.
    low: float
    middle: float
    high: float
    #: Chance of so much or more at the step that gave it away.
    p_value: float
    #: Evidence of a drift when it was noticed.
    e_value: float
    #: ``p_value`` had to be below this, or ``e_value`` above its inverse.
    budget: float
    #: Steps since it began.
    steps: int
    #: Series surprised together; 1: this one.
    series: int = 1


@dataclass(frozen=True)
class Anomaly:
    """One change of one anomaly."""

    series_id: int
    kind: Kind
    change: Change
    #: 1: more than forecast, -1: less.
    direction: int
    #: Epoch seconds at which the first surprising step ended.
    since: float
    #: ``minor``, ``major`` or ``critical``.
    severity: str
    #: Why it closed; empty until then.
    reason: str
    evidence: Evidence
