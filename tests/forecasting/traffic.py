"""Made-up traffic for the tests: recurring, noisy, and different for each series."""

from __future__ import annotations

import numpy as np

from forecasting.history import Floats, History
from forecasting.settings import ForecastSettings

STEP_S = 5.0
QUICK = ForecastSettings(
    step_s=STEP_S,
    horizons_s=(5.0, 30.0, 60.0),
    min_history_steps=8,
    train_steps=720,
    train_rows=6000,
    iterations=50,
    depth=4,
)


def recurring(n_steps: int, n_series: int, seed: int = 0, period_steps: int = 12) -> Floats:
    """Shape (n_steps, n_series), bit/s: a wave of one period, each series with its own phase and size."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, n_series)
    level = rng.lognormal(14, 0.7, n_series)
    wave = 1.3 + np.sin(2 * np.pi * np.arange(n_steps)[:, None] / period_steps + phase)
    return (level * wave * rng.lognormal(0, 0.15, (n_steps, n_series))).astype(np.float32)


def history_of(demand_bps: Floats, end_time: float = 1e9, **columns: object) -> History:
    """The demand as history without censoring, unless ``columns`` say otherwise."""
    columns.setdefault("censored", np.zeros(demand_bps.shape, np.bool_))
    return History(demand_bps, step_s=STEP_S, end_time=end_time, **columns)  # type: ignore[arg-type]
