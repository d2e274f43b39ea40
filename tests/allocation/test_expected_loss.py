"""Sharing by forecast: the least expected demand unserved, and what must hold all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from allocation.allocate import Bound, allocate
from allocation.checks import idle_bps, is_feasible
from allocation.curves import Curves, forecast_curves, linear_curves, quantile_knots
from allocation.expected_loss import allocate_by_curves, allocate_by_forecast
from allocation.tree import Sharing
from tests.allocation.trees import INF, RATES, many, random_tree, tree_of, trees

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


@st.composite
def forecast_problems(draw, max_pools=12):
    """A tree with mixed sharing and classes, quantiles of its leaves, present use, reserves and a capacity."""
    tree, capacity = draw(trees(max_pools))
    n = len(tree)
    sharing = np.array([draw(st.sampled_from([0, 1, 1])) for _ in range(n)])
    priority = np.array([draw(st.sampled_from([0, 0, 0, 1, 7])) for _ in range(n)])
    drawn = [[draw(RATES) for _ in QUANTILE] for _ in tree.leaves]
    demand = np.sort(np.array(drawn).reshape(len(tree.leaves), len(QUANTILE)), axis=1)
    use = draw(st.one_of(st.none(), st.just([draw(RATES) for _ in tree.leaves])))
    reserve = np.array([draw(st.one_of(st.just(0.0), RATES)) for _ in range(n)])
    return replace(tree, sharing=sharing, priority=priority), demand, use, reserve, capacity


def check_all_that_holds(tree, demand, use, reserve, capacity, fair_part):
    """Promises kept to the bit at every stage, and nothing idle while the curves ask for more."""
    got = allocate_by_forecast(tree, QUANTILE, demand, use, reserve, capacity, fair_part)
    assert is_feasible(tree, got.grant_bps, capacity)
    assert (np.diff(got.stages_bps, axis=0) >= 0).all()
    for stage in (1, 2):
        assert is_feasible(tree, got.stages_bps[stage], capacity)
        assert not idle_bps(tree, got.stages_bps[stage], got.claims_bps[stage - 1]).any()
    assert not idle_bps(tree, got.grant_bps, got.ceiling_bps, got.held_bps).any()
    assert ((got.short >= 0) & (got.short <= 1)).all()
    return got


@given(forecast_problems(), st.sampled_from([0.0, 0.0, 0.3, 1.0]))
@many(300)
def test_what_holds_of_every_allocation(problem, fair_part):
    """Sums to the bit/s, guarantees, ceilings, no idle capacity; any sharing, any classes, any shape."""
    tree, demand, use, reserve, capacity = problem
    check_all_that_holds(tree, demand, use, reserve, capacity, fair_part)


def test_what_holds_of_ten_thousand_trees():
    """The same for ten thousand random trees of four levels with rates as in access networks."""
    rng = np.random.default_rng(11)
    for _ in range(10_000):
        tree, _, capacity = random_tree(rng)
        n = len(tree)
        tree = replace(tree, sharing=rng.integers(0, 2, n), priority=rng.choice([0, 0, 0, 1], n))
        demand = forecasts(rng, tree)
        use = demand[:, 2] * rng.uniform(0.2, 2, len(demand))
        reserve, fair_part = rng.uniform(0, 1e7, n), float(rng.choice([0.0, 0.5]))
        check_all_that_holds(tree, demand, use, reserve, capacity, fair_part)


def test_equal_probability_among_those_not_at_a_bound():
    """In every pool, children between their bounds reach one level; leaves of it fall short equally often."""
    rng = np.random.default_rng(13)
    for _ in range(300):
        tree, _, capacity = random_tree(rng)
        tree = by_forecast(tree)
        demand = forecasts(rng, tree)
        got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=capacity)
        wanted = forecast_curves(tree, QUANTILE, demand).at(np.nan_to_num(got.level[tree.leaves]))
        held = np.clip(wanted, got.stages_bps[0, tree.leaves], got.claims_bps[1, tree.leaves])
        sought = ~np.isnan(got.level[tree.leaves])
        assert (np.abs(held - got.stages_bps[2, tree.leaves])[sought] <= 2 + 1e-9 * held[sought]).all()


@given(forecast_problems(), RATES, st.sampled_from([0.0, 0.0, 0.5]))
@many(150)
def test_more_capacity_takes_from_nobody(problem, more, fair_part):
    """Nobody has less when there is more to share, but for bits of rounding; reserves aside."""
    tree, demand, use, _, capacity = problem
    before = allocate_by_forecast(tree, QUANTILE, demand, use, None, capacity, fair_part)
    after = allocate_by_forecast(tree, QUANTILE, demand, use, None, capacity + more, fair_part)
    assert (after.grant_bps >= before.grant_bps - 8 * len(tree) - 1e-9 * before.grant_bps).all()


@given(forecast_problems())
@many(150)
def test_nobody_is_cut_below_use_on_a_forecast_alone(problem):
    """Where all uses fit below every pool, each keeps what it uses, whatever the forecasts say."""
    tree, demand, use, reserve, capacity = problem
    use = np.zeros(len(tree.leaves)) if use is None else np.array(use)
    got = allocate_by_forecast(tree, QUANTILE, demand, use, reserve, capacity)
    alone = allocate_by_forecast(tree, QUANTILE, np.zeros_like(demand), use, None, capacity)
    fits = ~idle_or_short(tree, alone, use)
    assert (got.grant_bps[tree.leaves] >= np.minimum(use, alone.ceiling_bps[tree.leaves]) - 1)[fits].all()


def idle_or_short(tree, allocation, use):
    """Leaves below a pool whose children use more, together, than it can have."""
    asked, most = allocation.claims_bps[0], np.minimum(tree.limit_bps, allocation.claims_bps[0])
    together = np.zeros(len(tree))
    np.add.at(together, tree.parent[1:], asked[1:].astype(float))
    short = together > most
    for i in range(1, len(tree)):
        short[i] |= short[tree.parent[i]]
    return short[tree.leaves]


@given(trees(max_pools=10), st.data())
@many(150)
def test_straight_curves_are_max_min(drawn, data):
    """With ``weight * level`` as curves one pool shares as by weighted max-min."""
    tree, _ = drawn
    n = len(tree)
    star = replace(
        tree,
        parent=np.r_[-1, np.zeros(n - 1)],
        guarantee_bps=np.zeros(n),
        ceiling_bps=np.full(n, INF),
        sharing=np.ones(n),
    )
    most = np.array([data.draw(RATES) for _ in star.leaves])
    capacity = data.draw(RATES)
    curved = allocate_by_curves(star, linear_curves(star, most), capacity_bps=capacity)
    fair = allocate(replace(star, sharing=None), most[np.newaxis], capacity_bps=capacity)
    np.testing.assert_allclose(curved.stages_bps[2], fair.stages_bps[1], rtol=1e-9, atol=2 * n)


def test_a_higher_class_is_served_first():
    """A class has all its forecast may want before a lower class gets anything."""
    tree = tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1), ("g/c", 0, INF, 1))
    tree = replace(by_forecast(tree), priority=[0, 0, 5, 0])
    demand = np.tile(np.array([50, 50, 50, 50, 50], float) * 1e6, (3, 1))
    got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=90e6)
    assert got.grant_bps[1:].tolist() == [20_000_000, 50_000_000, 20_000_000]
    by_weight = allocate(replace(tree, sharing=None), demand[:, 2][np.newaxis], capacity_bps=90e6)
    assert by_weight.grant_bps[1:].tolist() == [20_000_000, 50_000_000, 20_000_000]


def test_classes_nest():
    """The classes below a pool are served within the turn of the pool's own class."""
    pools = [("g", 0, INF, 1), ("g/x", 0, INF, 1), ("g/y", 0, INF, 1)]
    pools += [(f"g/{p}/{u}", 0, INF, 1) for p in "xy" for u in "ab"]
    tree = replace(by_forecast(tree_of(*pools)), priority=[0, 1, 0, 0, 9, 9, 0])
    demand = np.full((4, len(QUANTILE)), 10e6)
    for capacity, expected in (
        (5, [0, 5, 0, 0]),
        (15, [5, 10, 0, 0]),
        (25, [10, 10, 5, 0]),
        (38, [10, 10, 10, 8]),
    ):
        got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=capacity * 1e6)
        assert got.grant_bps[3:].tolist() == [round(x * 1e6) for x in expected]


def test_a_fair_part_serves_those_who_want_little():
    """Beside a large user a small one falls short as often; half of the capacity by max-min ends that."""
    tree = by_forecast(tree_of(("g", 0, INF, 1), ("g/big", 0, INF, 1), ("g/small", 0, INF, 1)))
    demand = np.array([[20, 60, 100, 180, 400], [2, 6, 10, 18, 40]], float) * 1e6
    by_curves = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=66e6)
    assert by_curves.grant_bps[1:].tolist() == [60_000_000, 6_000_000]
    half = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=66e6, fair_part=0.5)
    assert half.grant_bps[1:].tolist() == [49_500_000, 16_500_000]
    with pytest.raises(ValueError, match=r"fair_part must be 0 to 1, got 1\.5"):
        allocate_by_forecast(tree, QUANTILE, demand, fair_part=1.5)


def test_who_has_its_median_is_not_called_short():
    """The end of a curve is hardly ever wanted; ``PARENT`` says that not even the median is granted."""
    tree = by_forecast(tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1)))
    demand = np.tile(np.array([20, 60, 100, 180, 400], float) * 1e6, (2, 1))
    plenty = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=300e6)
    assert plenty.bound.tolist() == [Bound.CEILING, Bound.LEFTOVER, Bound.LEFTOVER]
    scarce = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=150e6)
    assert scarce.bound[1:].tolist() == [Bound.PARENT, Bound.PARENT]


def test_without_forecast_scarcity_nothing_is_withheld():
    """With room for all, each gets its whole curve and a share of what is left; the probability is 0."""
    tree = by_forecast(tree_of(("g", 0, 1000, 1), ("g/a", 0, 300, 1), ("g/b", 0, INF, 1)))
    got = allocate_by_forecast(tree, QUANTILE, np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], float))
    assert got.grant_bps.tolist() == [1000, 300, 700]
    assert got.short.tolist() == [0, 0]
    assert got.bound.tolist() == [Bound.CEILING, Bound.CEILING, Bound.LEFTOVER]


@pytest.mark.parametrize(
    ("demand", "use", "message"),
    [
        ([[1, 2, 3, 4, np.nan]], None, "g/a: demand_bps must be >= 0, not NaN"),
        ([[1, 2, 3, 2, 5]], None, "g/a: demand_bps must be >= 0, not NaN, and not fall"),
        ([[-1, 2, 3, 4, 5]], None, "g/a: demand_bps must be >= 0"),
        ([[1, 2, 3]], None, r"demand_bps must have shape \(n_leaves, 5\)"),
        ([[1, 2, 3, 4, 5]], [np.nan], "g/a: use_bps must be >= 0"),
        ([[1, 2, 3, 4, 5]], [-1.0], "g/a: use_bps must be >= 0"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_name(demand, use, message):
    """NaN is not zero, and quantiles do not fall."""
    tree = by_forecast(tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 1)))
    with pytest.raises(ValueError, match=message):
        allocate_by_forecast(tree, QUANTILE, np.array(demand, float), use)


@pytest.mark.parametrize(
    ("level", "rate", "message"),
    [
        ([[0, 0]], [[1, 2]], "level must be finite and rise"),
        ([[0, 1]], [[2, 1]], "rate_bps must be >= 0"),
        ([[0, 1]], [[np.nan, 1]], "rate_bps must be >= 0"),
        ([[0]], [[1]], "n_knots >= 2"),
    ],
)
def test_curves_must_rise(level, rate, message):
    """Levels rise strictly, rates do not fall."""
    with pytest.raises(ValueError, match=message):
        Curves(np.array(level, float), np.array(rate, float))


TWO_GROUPS = tree_of(
    ("net", 0, 100, 1),
    ("net/a", 0, INF, 1),
    ("net/b", 0, INF, 1),
    ("net/a/x", 0, INF, 1),
    ("net/a/y", 0, INF, 1),
    ("net/b/z", 0, INF, 1),
)


@pytest.mark.parametrize("sharing", list(Sharing))
def test_class_of_a_leaf_counts_wherever_it_stands(sharing):
    """Use of all classes comes before any forecast, and forecasts of the first class before others'."""
    tree = by_forecast(TWO_GROUPS, sharing)
    demand = np.repeat([[40.0], [40.0], [40.0]], len(QUANTILE), axis=1)
    use = np.array([10.0, 10.0, 10.0])
    first = np.array([4, 0, 4], np.uint8)
    grants = allocate_by_forecast(tree, QUANTILE, demand, use, leaf_class=first).grant_bps[tree.leaves]
    assert grants[1] == 40
    assert grants.sum() == 100
    assert min(grants) >= 10
    scarce = allocate_by_forecast(
        tree, QUANTILE, 10 * demand, 6 * use, leaf_class=first, fair_part=0.25
    ).grant_bps[tree.leaves]
    # The group of x has more than its share already.
    assert scarce.tolist() == [0, 60, 40]


def test_classes_of_leaves_that_are_all_the_same_change_nothing():
    """A number by itself is no rank."""
    rng = np.random.default_rng(5)
    tree = by_forecast(random_tree(rng)[0])
    demand = forecasts(rng, tree)
    alike = np.full(len(tree.leaves), 4, np.uint8)
    plain = allocate_by_forecast(tree, QUANTILE, demand, fair_part=0.25)
    same = allocate_by_forecast(tree, QUANTILE, demand, fair_part=0.25, leaf_class=alike)
    assert np.array_equal(plain.stages_bps, same.stages_bps)
    with pytest.raises(ValueError, match="leaf_class must have shape"):
        allocate_by_forecast(tree, QUANTILE, demand, leaf_class=alike[1:])


def test_use_that_does_not_fit_is_cut_by_weight_and_not_by_forecast():
    """Whose forecast is large does not matter while present use is unmet."""
    tree = by_forecast(tree_of(("net", 0, 90, 1), ("net/a", 0, INF, 1), ("net/b", 0, INF, 2)))
    demand = np.array([[500.0, 600, 700, 800, 900], [100, 100, 100, 100, 100]])
    got = allocate_by_forecast(tree, QUANTILE, demand, np.array([80.0, 80.0]))
    assert got.grant_bps[tree.leaves].tolist() == [30, 60]
