"""The whole tree against a sequence of linear programs (HiGHS)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from allocation.allocate import allocate
from tests.allocation.trees import random_tree


def share_by_lp(budget, lower, upper, weight):
    """Weighted max-min by raising the least level, fixing whoever cannot rise, and again."""
    n = len(lower)
    budget = min(budget, upper.sum())
    fixed = np.full(n, np.nan)
    free = np.ones(n, bool)
    level = 0.0
    while free.any():
        # Variables: shares, then the level. Maximise the level of those still free.
        rows = np.zeros((n + 1, n + 1))
        rows[:n, :n][free] = -np.eye(n)[free]
        rows[:n, n] = np.where(free, weight, 0.0)
        rows[n, :n] = 1.0
        bounds = [(fixed[i], fixed[i]) if not free[i] else (lower[i], upper[i]) for i in range(n)] + [
            (level, None)
        ]
        answer = linprog(
            np.r_[np.zeros(n), -1.0], rows, np.r_[np.zeros(n), budget], bounds=bounds, method="highs"
        )
        assert answer.status == 0, answer.message
        level = answer.x[n]
        full = free & (level * weight >= upper * (1 - 1e-9) - 1e-9)
        if not full.any():
            return np.where(free, np.clip(level * weight, lower, upper), fixed)
        fixed[full] = upper[full]
        free &= ~full
    return fixed


def allocate_by_lp(tree, claims, capacity):
    """Leaves' and inner pools' grants after guarantees, claims and leftover, in real numbers."""
    n = len(tree)
    below = [tree.children[tree.first_child[i] : tree.first_child[i + 1]] for i in range(n)]

    def roll_up(leaf_values, most, least):
        total = np.zeros(n)
        total[tree.leaves] = leaf_values
        for i in reversed(range(n)):
            own = total[below[i]].sum() if len(below[i]) else total[i]
            total[i] = max(least[i], min(own, most[i]))
        return total

    none = np.full(n, np.inf)
    grant = roll_up(tree.guarantee_bps[tree.leaves], none, tree.guarantee_bps)
    limit = np.minimum(tree.ceiling_bps, capacity)
    least = grant
    uppers = [roll_up(np.minimum(row, limit[tree.leaves]), limit, least) for row in claims]
    for upper in [*uppers, roll_up(limit[tree.leaves], limit, least)]:
        after = np.zeros(n)
        after[0] = upper[0]
        for i in range(n):
            if len(below[i]):
                members = below[i]
                scale = max(after[i], 1.0)
                after[members] = scale * share_by_lp(
                    after[i] / scale, grant[members] / scale, upper[members] / scale, tree.weight[members]
                )
        grant = after
    return grant


def test_equal_to_a_sequence_of_linear_programs():
    """Thirty random trees of four levels, within 1e-6 of the LP's grants."""
    rng = np.random.default_rng(7)
    worst = 0.0
    for _ in range(30):
        tree, claims, capacity = random_tree(rng)
        expected = allocate_by_lp(tree, claims, capacity)
        got = allocate(tree, claims, capacity_bps=capacity).grant_bps
        # A few whole bits of rounding are no difference: shares here are megabits.
        apart = np.maximum(np.abs(got - expected) - 4, 0) / np.maximum(expected, 1.0)
        worst = max(worst, float(apart.max()))
    assert worst <= 1e-6
