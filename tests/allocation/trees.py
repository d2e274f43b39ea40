"""Random pool trees, and slow and obvious versions of what the package does fast."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from allocation.tree import PoolTree

INF = float("inf")


def tree_of(*pools: tuple[str, float, float, float]) -> PoolTree:
    """A tree from (path, guarantee, ceiling, weight); the parent is the path before the last slash."""
    names = [pool[0] for pool in pools]
    place = {name: i for i, name in enumerate(names)}
    parent = [place[name.rpartition("/")[0]] if "/" in name else -1 for name in names]
    guarantee, ceiling, weight = (np.array([pool[k] for pool in pools], float) for k in (1, 2, 3))
    return PoolTree(tuple(names), np.array(parent), guarantee, ceiling, weight)


def many(examples):
    """Settings for a property; no deadline, since the first example may wait for the compiler."""
    return settings(max_examples=examples, deadline=None)


def plain(function):
    """The uncompiled original, whose lines coverage can see."""
    return function.py_func


RATES = st.one_of(
    st.integers(0, 20).map(float),
    st.floats(0, 1e9),
    st.sampled_from([0.0, 1e-9, 1.0, 1e6, 1e12]),
)
WEIGHTS = st.one_of(st.sampled_from([1.0, 1.0, 2.0, 5.0]), st.floats(1e-3, 1e3))


@st.composite
def trees(draw, max_pools=14, parents_in_order=False):
    """A feasible tree of any shape and a capacity that its guarantees fit."""
    n = draw(st.integers(1, max_pools))
    parent = [-1] + [draw(st.integers(max(0, i - 6), i - 1)) for i in range(1, n)]
    if parents_in_order:
        parent.sort()
    names = ["global"]
    for i in range(1, n):
        names.append(f"{names[parent[i]]}/p{i}")
    guarantee = np.array([draw(st.one_of(st.just(0.0), RATES)) for _ in range(n)])
    needs = np.floor(guarantee)
    for i in range(n - 1, 0, -1):
        below = sum(needs[j] for j in range(n) if parent[j] == i)
        needs[i] = max(needs[i], below)
    needs[0] = max(needs[0], sum(needs[j] for j in range(n) if parent[j] == 0))
    room = [draw(st.one_of(st.just(INF), RATES)) for _ in range(n)]
    ceiling = np.maximum(guarantee, needs) + np.array(room)
    weight = np.array([draw(WEIGHTS) for _ in range(n)])
    tree = PoolTree(tuple(names), np.array(parent), guarantee, ceiling, weight)
    capacity = float(needs[0]) + draw(st.one_of(st.just(INF), RATES))
    return tree, capacity


@st.composite
def problems(draw, max_pools=14):
    """A tree, a capacity, rows of claims and reserves."""
    tree, capacity = draw(trees(max_pools))
    rows = draw(st.integers(0, 3))
    drawn = [[draw(RATES) for _ in tree.leaves] for _ in range(rows)]
    claims = np.maximum.accumulate(np.array(drawn, float).reshape(rows, len(tree.leaves)), axis=0)
    reserve = np.array([draw(st.one_of(st.just(0.0), RATES)) for _ in range(len(tree))])
    return tree, capacity, claims, reserve


def fill_progressively(budget, lower, upper, weight):
    """Exact shares, as fractions: raise the level from knee to knee until the budget is used."""
    budget = min(Fraction(budget), sum(map(Fraction, upper)))
    lower, upper, weight = ([Fraction(x) for x in xs] for xs in (lower, upper, weight))
    shares = list(lower)
    level = Fraction(0)
    knees = sorted({x / w for xs in (lower, upper) for x, w in zip(xs, weight, strict=True)})
    for knee in knees:
        rising = [i for i in range(len(shares)) if lower[i] <= level * weight[i] < upper[i]]
        width = sum(weight[i] for i in rising)
        reach = knee
        if width:
            reach = min(knee, level + (budget - sum(shares)) / width)
        for i in rising:
            shares[i] = reach * weight[i]
        if reach < knee:
            break
        level = knee
    return shares


def allocate_plainly(tree, claims, reserve, capacity):
    """Grants by stages and recursion, one bit at a time where rounding leaves odd bits."""
    n = len(tree)
    below = [[j for j in range(n) if tree.parent[j] == i] for i in range(n)]
    whole = lambda x: int(min(x, 2**52))  # noqa: E731
    limit = [min(whole(c), whole(capacity)) for c in tree.ceiling_bps]

    def total(values):
        out = [0] * n
        for i in reversed(range(n)):
            own = sum(out[j] for j in below[i]) if below[i] else values[i]
            out[i] = max(reserved[i], min(own, limit[i]))
        return out

    reserved = [0] * n
    for i in reversed(range(n)):
        reserved[i] = max(whole(tree.guarantee_bps[i]), sum(reserved[j] for j in below[i]))
    up = lambda x: -int(-min(x, 2**52) // 1)  # noqa: E731
    rows = [total({leaf: up(x) for leaf, x in zip(tree.leaves, row, strict=True)}) for row in claims]
    stages = [reserved]
    for k, most in enumerate([*rows, total(limit)]):
        before, after = stages[-1], [0] * n
        after[0] = most[0]
        for i in range(n):
            if not below[i]:
                continue
            least, wanted = sum(before[j] for j in below[i]), sum(most[j] for j in below[i])
            budget = after[i]
            if k == len(rows):
                budget = max(least, budget - min(up(reserve[i]), max(wanted - budget, 0)))
            shares = fill_progressively(
                budget,
                [before[j] for j in below[i]],
                [most[j] for j in below[i]],
                [tree.weight[j] for j in below[i]],
            )
            cut = [int(share) for share in shares]
            odd = int(min(budget, wanted)) - sum(cut)
            for j, share, whole_share in zip(below[i], shares, cut, strict=True):
                extra = 1 if odd > 0 and share != whole_share else 0
                after[j] = whole_share + extra
                odd -= extra
        stages.append(after)
    return stages


def random_tree(rng):
    """Four levels, rates of access networks, some guarantees and ceilings."""
    parent = [-1]
    levels = [[0]]
    for _ in range(3):
        levels.append([])
        for pool in levels[-2]:
            for _ in range(rng.integers(1, 5)):
                parent.append(pool)
                levels[-1].append(len(parent) - 1)
    n = len(parent)
    leaf = np.isin(np.arange(n), levels[-1])
    guarantee = np.where(leaf & (rng.random(n) < 0.4), rng.uniform(0, 5e6, n), 0.0).round()
    needs = guarantee.copy()
    for i in range(n - 1, 0, -1):
        needs[parent[i]] += needs[i]
    ceiling = np.where(rng.random(n) < 0.5, np.inf, needs + rng.uniform(1e6, 5e7, n).round())
    weight = rng.choice([1.0, 1.0, 2.0, 5.0], n)
    names = tuple(map(str, range(n)))
    tree = PoolTree(names, np.array(parent), guarantee, ceiling, weight)
    first = rng.lognormal(15, 1.2, len(tree.leaves))
    claims = np.stack([first, first * rng.uniform(1, 3, len(first))])
    return tree, claims, needs[0] + round(first.sum() * rng.uniform(0.3, 3))
