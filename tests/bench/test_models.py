"""What the models are asked side by side, before any of them answers."""

from __future__ import annotations

import numpy as np

from bench.models import Cases, draw_cases
from forecasting.settings import ForecastSettings

SETTINGS = ForecastSettings(step_s=60.0, horizons_s=(60.0, 180.0), window_steps=32, min_history_steps=8)


def drawn(n_steps: int = 80) -> Cases:
    """Series whose value is the number of its step, so that every value tells where it stood."""
    steps = np.arange(1, n_steps + 1, dtype=np.float32)[:, None]
    demand = np.repeat(steps, 3, axis=1) * 1e6
    demand[20:22, 1] = np.nan
    return draw_cases(
        demand, 60.0 * np.arange(n_steps, dtype=np.float64), SETTINGS, 50, window_steps=40, seed=0
    )


def test_windows_end_where_the_targets_begin() -> None:
    """Each window is one stretch of one series, and the truth lies as far behind it as the horizon says."""
    cases = drawn()
    last = cases.last_bps / 1e6
    assert np.array_equal(cases.truth_bps / 1e6, last[:, None] + [1, 3])
    first = cases.window_bps[0] / 1e6
    whole = np.isfinite(first)
    assert np.array_equal(last[whole] - first[whole], np.full(whole.sum(), 39))


def test_rows_end_in_the_window_that_a_model_reads() -> None:
    """Oldest first, in the row's units, the same for each horizon of a window."""
    cases = drawn()
    x = cases.x(32)
    window = x[:, -32:].reshape(len(cases.truth_bps), 2, 32)
    assert np.array_equal(window[:, 0], window[:, 1], equal_nan=True)
    assert np.allclose(window[:, 0, -1] * cases.rows.scale_bps, cases.last_bps)
    assert cases.x(0).shape[1] == x.shape[1] - 32
