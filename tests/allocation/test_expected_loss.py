"""Sharing by forecast: the least expected demand unserved, and what must hold all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from allocation.curves import quantile_knots
from allocation.expected_loss import allocate_by_forecast
from allocation.tree import Sharing
from tests.allocation.trees import INF, random_tree, tree_of

QUANTILE = np.array([0.05, 0.25, 0.5, 0.75, 0.95])


def by_forecast(tree, sharing=Sharing.EXPECTED_LOSS):
    """The same tree, all of whose pools share by forecast."""
    return replace(tree, sharing=np.full(len(tree), sharing))


def forecasts(rng, tree):
    """Quantiles of demand around lognormal medians, some of them flat."""
    spread = np.sort(rng.lognormal(0, 0.6, (len(tree.leaves), len(QUANTILE))), axis=1)
    spread[rng.random(len(spread)) < 0.1] = 1.0
    return rng.lognormal(15, 1.2, (len(tree.leaves), 1)) * spread


def unserved(demand, grant, weight=1.0):
    """Expected unserved demand of each leaf: the integral of the inverse distribution above the grant."""
    probability, rate = quantile_knots(QUANTILE, demand)
    left, right = np.maximum(rate - grant[:, None], 0)[:, :-1], np.maximum(rate - grant[:, None], 0)[:, 1:]
    width, step = np.diff(probability), np.diff(rate, axis=1)
    whole = (left + right) / 2 * width
    part = np.divide(right, step, out=np.zeros_like(right), where=step > 0)
    return (weight * np.where((left == 0) & (right > 0), right / 2 * part * width, whole)).sum()


def least_unserved(tree, demand, capacity):
    """The smallest expected unserved demand of any real grants, as one linear program over pieces."""
    probability, rate = quantile_knots(QUANTILE, demand)
    n, k = len(tree), len(probability) - 1
    # Each piece of a leaf's demand is worth the probability that it is wanted: finely cut, nearly exact.
    cuts = 40
    worth = np.concatenate(
        [np.linspace(1 - probability[j], 1 - probability[j + 1], 2 * cuts + 1)[1::2] for j in range(k)]
    )
    size = np.repeat(np.diff(rate, axis=1), cuts, axis=1) / cuts
    leaves = tree.leaves
    variables = n + size.size
    equal = np.zeros((n, variables))
    for i in range(n):
        equal[i, i] = 1
    rows = []
    for p in range(n):
        below = tree.children[tree.first_child[p] : tree.first_child[p + 1]]
        if len(below):
            row = np.zeros(variables)
            row[below], row[p] = 1, -1
            rows.append(row)
    for j, leaf in enumerate(leaves):
        row = np.zeros(variables)
        row[leaf] = -1
        row[n + j * size.shape[1] : n + (j + 1) * size.shape[1]] = 1
        rows.append(row)
    cost = np.r_[np.zeros(n), -np.tile(worth, len(leaves))]
    most = np.minimum(tree.ceiling_bps, capacity)
    bounds = [(tree.guarantee_bps[i], most[i]) for i in range(n)] + [(0, s) for s in size.ravel()]
    answer = linprog(cost, np.array(rows), np.zeros(len(rows)), bounds=bounds, method="highs")
    assert answer.status == 0, answer.message
    mean = (size * worth).sum()
    return mean + answer.fun


def test_two_users_are_equally_likely_to_fall_short():
    """A steady user and a bursty one with the same median: the bursty one gets more of what there is."""
    tree = by_forecast(tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1)))
    demand = np.array([[90, 95, 100, 105, 110], [20, 60, 100, 180, 400]], float) * 1e6
    got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=285e6)
    assert got.grant_bps[1:].tolist() == [105_000_000, 180_000_000]
    np.testing.assert_allclose(got.short, 0.25, atol=1e-6)
    assert got.level[1] == pytest.approx(-0.25)


def test_weights_divide_the_probability():
    """Of twice the weight, half as likely to fall short."""
    tree = by_forecast(tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 2), ("g/b", 0, INF, 1)))
    demand = np.tile(np.array([20, 60, 100, 180, 400], float) * 1e6, (2, 1))
    got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=280e6)
    assert got.short[0] * 2 == pytest.approx(got.short[1])


def test_least_expected_unserved_demand_on_random_trees():
    """No grants within the bounds leave less unserved: a linear program finds none, max-min is never below."""
    rng = np.random.default_rng(5)
    for _ in range(12):
        tree, _, _ = random_tree(rng)
        tree = replace(by_forecast(tree), weight=np.ones(len(tree)))
        demand = forecasts(rng, tree)
        capacity = tree.reserved_bps[0] + rng.uniform(0.1, 1.2) * demand[:, 2].sum()
        got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=capacity)
        fair = allocate_by_forecast(
            by_forecast(tree, Sharing.MAX_MIN), QUANTILE, demand, capacity_bps=capacity
        )
        ours = unserved(demand, got.grant_bps[tree.leaves])
        assert ours <= unserved(demand, fair.grant_bps[tree.leaves]) * (1 + 1e-9) + len(tree)
        assert ours == pytest.approx(least_unserved(tree, demand, capacity), rel=2e-3)
