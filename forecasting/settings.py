"""How forecasts are made: every knob, its bounds and its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

#: The models that ``models.new_model`` knows, the default first.
MODELS: Final = ("ensemble", "catboost", "network", "hist_gradient_boosting", "lstm")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ForecastSettings:
    """What to forecast, from how much history, and how hard to try.

    Raises
    ------
    ValueError : when a value breaks its rule; names the field, the rule and
        the value.
    """

    #: Distance between two rows of history, seconds, > 0.
    step_s: float = 60.0
    #: How far ahead, seconds; each a positive multiple of ``step_s``, rising.
    horizons_s: tuple[float, ...] = tuple(60.0 * minute for minute in range(1, 16))
    #: Rising, each inside (0, 1).
    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
    model: str = MODELS[0]
    #: Rows the features look back over, >= 8. More is slower and rarely better.
    window_steps: int = 64
    #: Samples a series needs inside the window before the model speaks for it.
    min_history_steps: int = 30
    #: A series silent for longer than this is not the model's any more.
    stale_steps: int = 5
    #: Rows of history a training looks at, counted from the latest.
    train_steps: int = 20_160
    #: Bound on training rows (series x cutoff x horizon): bounds time and memory.
    train_rows: int = 800_000
    #: Share of the latest rows that training leaves for the challenge, in (0, 0.5].
    holdout_share: float = 0.1
    #: Trees per model; the ensemble grows none where there is much to learn from.
    iterations: int = 250
    #: Depth of a tree, 1 .. 10.
    depth: int = 6
    #: Shrinkage of each tree, in (0, 1].
    learning_rate: float = 0.1
    #: Threads for fitting and predicting. The loop shares its machine.
    threads: int = 1
    #: Step of the online calibration, in units of local spread, [0, 1]; 0 turns it off.
    calibration_rate: float = 0.03
    #: Series per level that calibration follows; a sample suffices.
    calibration_series: int = 512
    #: No single measurement is believed beyond this rate.
    max_rate_bps: float = 1e13
    seed: int = 0

    def __post_init__(self) -> None:
        steps = [horizon / self.step_s for horizon in self.horizons_s] if self.step_s > 0 else []
        rules = (
            ("step_s", self.step_s > 0 and math.isfinite(self.step_s), "must be > 0"),
            ("horizons_s", _rising(self.horizons_s), "must be rising and not empty"),
            (
                "horizons_s",
                all(step > 0.5 and abs(step - round(step)) < 1e-6 for step in steps),
                f"must be positive multiples of step_s {self.step_s:g}",
            ),
            ("quantiles", _rising(self.quantiles), "must be rising and not empty"),
            ("quantiles", all(0 < q < 1 for q in self.quantiles), "must lie inside (0, 1)"),
            ("model", self.model in MODELS, f"must be one of {', '.join(MODELS)}"),
            ("window_steps", self.window_steps >= 8, "must be >= 8"),
            (
                "min_history_steps",
                2 <= self.min_history_steps <= self.window_steps,
                f"must lie in 2 .. window_steps {self.window_steps}",
            ),
            ("stale_steps", self.stale_steps >= 0, "must be >= 0"),
            (
                "train_steps",
                self.train_steps >= 2 * self.min_history_steps,
                "must be >= 2 x min_history_steps",
            ),
            ("train_rows", self.train_rows >= 100, "must be >= 100"),
            ("holdout_share", 0 < self.holdout_share <= 0.5, "must lie in (0, 0.5]"),
            ("iterations", self.iterations >= 1, "must be >= 1"),
            ("depth", 1 <= self.depth <= 10, "must lie in 1 .. 10"),
            ("learning_rate", 0 < self.learning_rate <= 1, "must lie in (0, 1]"),
            ("threads", self.threads >= 1, "must be >= 1"),
            ("calibration_rate", 0 <= self.calibration_rate <= 1, "must lie in [0, 1]"),
            ("calibration_series", self.calibration_series >= 1, "must be >= 1"),
            ("max_rate_bps", 0 < self.max_rate_bps <= 1e18, "must lie in (0, 1e18]"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"{name} {rule}, got {getattr(self, name)!r}")

    @property
    def horizon_steps(self) -> npt.NDArray[np.int64]:
        """The horizons counted in rows, shape (H,)."""
        return np.rint(np.asarray(self.horizons_s) / self.step_s).astype(np.int64)


def _rising(values: tuple[float, ...]) -> bool:
    return len(values) > 0 and all(a < b for a, b in pairwise(values))
