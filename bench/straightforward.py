"""The straightforward way to do a tick's two dear steps, for comparison.

One of scikit-learn's gradient-boosted models for each quantile, and for each direction one
linear program that carries as much as the tree allows. Inputs are the planner's own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from sklearn.ensemble import HistGradientBoostingRegressor

from allocation.tree import PoolTree
from forecasting.features import FeatureSpec, feature_rows
from forecasting.history import Floats, History
from forecasting.settings import ForecastSettings
from forecasting.training import draw
from planner.loop import Planner

F64 = npt.NDArray[np.float64]

_TRAINING_WINDOWS: Final = 1_000
_REPEATS: Final = 5


def measure_straightforward(planner: Planner, now: float, ours_ms: Mapping[str, float]) -> dict[str, Any]:
    """Medians of forecasting and allocating once, beside the planner's own steps."""
    structure = planner.structure
    if structure is None:
        raise ValueError("the planner must have planned")
    settings = planner.forecaster.settings
    columns = planner.history.columns(structure, now)
    history = planner.history.recent(structure, columns, now, 2 * settings.window_steps)
    models, spec = train_models(history, settings)
    forecast_ms = _median_ms(lambda: predict(models, history, settings, spec))
    pools = planner.snapshot.pools
    claims = np.fmax(pools.p90_bps, pools.offered_bps)
    allocate_ms = _median_ms(lambda: [most_carried(structure.trees[d], claims[d]) for d in range(2)])
    return {
        "forecast_ms": forecast_ms,
        "allocate_ms": allocate_ms,
        "forecast_ratio": round(forecast_ms / ours_ms["forecast"], 1),
        "allocate_ratio": round(allocate_ms / ours_ms["allocate"], 1),
    }


def train_models(
    history: History, settings: ForecastSettings
) -> tuple[list[HistGradientBoostingRegressor], FeatureSpec]:
    """A model for each quantile, of as many trees as the planner's one has."""
    spec = FeatureSpec(settings.step_s, settings.window_steps)
    rng = np.random.default_rng(0)
    drawn = draw(history, history.demand_bps, settings, spec, _TRAINING_WINDOWS, rng)
    y = drawn.rows.to_target(drawn.target_bps).reshape(-1)
    known = np.isfinite(y)
    x = _without_empty(drawn.rows.x)
    models = [
        HistGradientBoostingRegressor(
            loss="quantile",
            quantile=quantile,
            max_iter=settings.iterations,
            max_depth=settings.depth,
            early_stopping=False,
        ).fit(x[known], y[known])
        for quantile in settings.quantiles
    ]
    return models, spec


def predict(
    models: list[HistGradientBoostingRegressor],
    history: History,
    settings: ForecastSettings,
    spec: FeatureSpec,
) -> F64:
    """Quantiles of every series, shape (n_series x n_horizons, n_quantiles)."""
    rows = feature_rows(history.demand_bps, history.censored, history.end_time, settings.horizon_steps, spec)
    x = _without_empty(rows.x)
    found: F64 = np.sort(np.stack([model.predict(x) for model in models], axis=1), axis=1)
    return found


def _without_empty(x: Floats) -> Floats:
    # scikit-learn cannot bin a column without any value.
    filled: Floats = np.where(np.isnan(x).all(axis=0), np.float32(0), x)
    return filled


def most_carried(tree: PoolTree, claim_bps: F64) -> F64:
    """Grants of the leaves that carry the most of their claims within every ceiling."""
    leaves = tree.leaves
    n_leaves = len(leaves)
    at, leaf = [], []
    for number, pool in enumerate(leaves.tolist()):
        above = int(tree.parent[pool])
        while above >= 0:
            at.append(above)
            leaf.append(number)
            above = int(tree.parent[above])
    below = csr_matrix((np.ones(len(at)), (at, leaf)), (len(tree.parent), n_leaves))
    bounded = np.flatnonzero(np.isfinite(tree.ceiling_bps) & (below.getnnz(axis=1) > 0))
    upper = np.minimum(np.nan_to_num(claim_bps[leaves]), tree.ceiling_bps[leaves])
    # In Mbit/s: the solver's tolerances are absolute.
    found = linprog(
        -np.ones(n_leaves),
        A_ub=below[bounded],
        b_ub=tree.ceiling_bps[bounded] / 1e6,
        bounds=np.stack([np.zeros(n_leaves), upper / 1e6], axis=1),
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear program must have a solution, got {found.message}")
    grants: F64 = found.x * 1e6
    return grants


def _median_ms(work: Callable[[], object]) -> float:
    took = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        took.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(took), 2)
