"""Grants for whole trees, against a plain reference and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocation import allocate as module
from allocation.allocate import Bound, allocate
from allocation.checks import cuts_below_use, idle_bps, is_feasible, is_max_min
from allocation.tree import InfeasibleTree, PoolTree, roll_up
from tests.allocation.trees import (
    INF,
    RATES,
    allocate_plainly,
    many,
    plain,
    problems,
    random_tree,
    tree_of,
)

DEMO = (
    ("global", 0, 100, 1),
    ("global/west", 0, 60, 1),
    ("global/east", 0, 60, 1),
    ("global/west/ann", 10, INF, 1),
    ("global/west/bob", 0, 30, 1),
    ("global/east/cid", 0, INF, 2),
    ("global/east/dan", 0, INF, 1),
)


def grants(tree, *claims, reserve=None, capacity=INF):
    """Grants of the leaves for rows of claims."""
    rows = np.array(claims, float).reshape(len(claims), len(tree.leaves))
    return allocate(tree, rows, reserve, capacity).grant_bps[tree.leaves].tolist()


@given(problems())
@many(250)
def test_every_stage_equals_the_plain_reference(problem):
    """Stage by stage and pool by pool, the grants are the reference's, to a few bits of rounding."""
    tree, capacity, claims, reserve = problem
    got = allocate(tree, claims, reserve, capacity)
    expected = np.array(allocate_plainly(tree, claims, reserve, capacity), float)
    # Odd bits go to other siblings where two shares round alike, at each level and stage.
    np.testing.assert_allclose(got.stages_bps, expected, rtol=1e-12, atol=2 * len(tree) * len(expected))


@given(problems())
@many(300)
def test_what_holds_of_every_allocation(problem):
    """Promises kept to the bit, nothing idle while a claim is unmet, fair at every stage."""
    check_all_that_holds(*problem)


def test_what_holds_of_larger_trees():
    """The same for four hundred random trees of four levels with rates as in access networks."""
    rng = np.random.default_rng(3)
    for _ in range(400):
        tree, claims, capacity = random_tree(rng)
        reserve = rng.uniform(0, 0.2, len(tree)) * tree.capacity_below(capacity)
        check_all_that_holds(tree, capacity, claims, reserve)


def check_all_that_holds(tree, capacity, claims, reserve):
    """Assert every public predicate of one allocation, stage by stage."""
    got = allocate(tree, claims, reserve, capacity)
    assert is_feasible(tree, got.grant_bps, capacity)
    assert (np.diff(got.stages_bps, axis=0) >= 0).all()
    uppers = [*got.claims_bps, got.ceiling_bps]
    for stage, upper in enumerate(uppers):
        before, after = got.stages_bps[stage : stage + 2]
        held = got.held_bps if stage == len(uppers) - 1 else None
        assert is_feasible(tree, after, capacity)
        assert is_max_min(tree, after, before, upper)
        assert not idle_bps(tree, after, upper, held).any()
    assert (got.held_bps <= np.ceil(reserve)).all()
    assert not got.held_bps[tree.leaves].any()


@given(problems(), st.randoms(use_true_random=False))
@many(100)
def test_the_order_of_siblings_does_not_matter(problem, random):
    """Listed in another order, the same pools get the same grants, but for bits of rounding."""
    tree, capacity, claims, reserve = problem
    n = len(tree)
    key = [random.random() for _ in range(n)]
    depth = [0] * n
    for i in range(1, n):
        depth[i] = depth[tree.parent[i]] + 1
    order = sorted(range(n), key=lambda i: (depth[i], key[i]))
    place = {old: new for new, old in enumerate(order)}
    shuffled = PoolTree(
        tuple(tree.names[i] for i in order),
        np.array([place.get(tree.parent[i], -1) for i in order]),
        *(column[order] for column in (tree.guarantee_bps, tree.ceiling_bps, tree.weight)),
    )
    column = {leaf: k for k, leaf in enumerate(tree.leaves)}
    moved = allocate(
        shuffled, claims[:, [column[order[leaf]] for leaf in shuffled.leaves]], reserve[order], capacity
    )
    usual = allocate(tree, claims, reserve, capacity)
    np.testing.assert_allclose(
        moved.grant_bps, usual.grant_bps[order], rtol=1e-12, atol=2 * n * (len(claims) + 2)
    )


@given(problems(), st.data())
@many(150)
def test_nobody_is_cut_below_use_on_a_forecast_alone(problem, data):
    """With present use as the first claim, no forecast of another pool takes any of it away."""
    tree, capacity, forecasts, reserve = problem
    use = np.array([data.draw(RATES) for _ in tree.leaves])
    got = allocate(tree, np.vstack([use, *np.maximum(forecasts, use)]), reserve, capacity)
    assert not cuts_below_use(tree, got.grant_bps, use, capacity).any()


@given(problems())
@many(60)
def test_compiled_and_plain_loops_agree(problem):
    """The machine code does what its source says; also shows the source to coverage."""
    tree, capacity, claims, reserve = problem
    got = allocate(tree, claims, reserve, capacity)
    after = np.zeros(len(tree), np.int64)
    after[0] = got.ceiling_bps[0]
    whole_reserve = np.ceil(np.minimum(reserve, 2**52)).astype(np.int64)
    held = plain(module._share_tree)(
        tree.children,
        tree.first_child,
        got.stages_bps[-2],
        got.ceiling_bps,
        tree.weight,
        whole_reserve,
        after,
        np.empty(0, np.uint8),
    )
    np.testing.assert_array_equal(after, got.grant_bps)
    np.testing.assert_array_equal(held, got.held_bps)
    own = np.zeros(len(tree), np.int64)
    for row, claim in zip(got.claims_bps, claims, strict=True):
        own[tree.leaves] = np.ceil(claim)
        np.testing.assert_array_equal(
            plain(roll_up)(tree.parent, own, tree.reserved_bps, np.minimum(tree.limit_bps, got.ceiling_bps)),
            row,
        )


def test_a_forecast_in_the_first_row_may_cut_present_use_and_the_predicate_says_so():
    """Why present use is a row of its own: bob's mere forecast would take 5 from ann."""
    tree = tree_of(("g", 0, 20, 1), ("g/ann", 0, INF, 1), ("g/bob", 0, INF, 1))
    use, median = np.array([15.0, 2.0]), np.array([15.0, 10.0])
    mixed = allocate(tree, median[np.newaxis])
    assert mixed.grant_bps.tolist() == [20, 10, 10]
    assert cuts_below_use(tree, mixed.grant_bps, use).tolist() == [False, True, False]
    apart = allocate(tree, np.stack([use, median]))
    assert apart.grant_bps.tolist() == [20, 15, 5]
    assert not cuts_below_use(tree, apart.grant_bps, use).any()


def test_a_cut_under_real_scarcity_is_no_cut_on_a_forecast():
    """Uses that together exceed the capacity are cut by fairness, and that is all right."""
    tree = tree_of(("g", 0, 20, 1), ("g/ann", 0, INF, 1), ("g/bob", 0, INF, 1))
    use = np.array([15.0, 12.0])
    got = allocate(tree, use[np.newaxis])
    assert got.grant_bps.tolist() == [20, 10, 10]
    assert not cuts_below_use(tree, got.grant_bps, use).any()


def test_guarantee_then_claims_then_leftover():
    """Each stage builds on the one before, and each grant says what bound it."""
    tree = tree_of(*DEMO)
    got = allocate(tree, np.array([[0, 20, 10, 10], [0, 50, 20, 20]], float))
    assert got.stages_bps[:, tree.leaves].tolist() == [
        [10, 0, 0, 0],
        [10, 20, 10, 10],
        [10, 30, 20, 20],
        [20, 30, 30, 20],
    ]
    names = {name.rpartition("/")[2]: i for i, name in enumerate(tree.names)}
    assert got.grant_bps[names["west"]] + got.grant_bps[names["east"]] == 100
    assert Bound(got.bound[names["bob"]]) is Bound.CEILING
    assert got.stage[names["bob"]] == 2
    assert Bound(got.bound[names["ann"]]) is Bound.LEFTOVER
    assert got.stage[names["ann"]] == 3
    assert Bound(got.bound[0]) is Bound.CEILING


def test_scarcity_is_shared_by_weight_and_bound_by_the_parent():
    """Two claims above the capacity hold 2 to 1, their weights, and say the parent bound them."""
    tree = tree_of(("g", 0, 30, 1), ("g/a", 0, INF, 2), ("g/b", 0, INF, 1), ("g/c", 6, INF, 1))
    got = allocate(tree, np.array([[50, 50, 0]], float))
    assert got.grant_bps.tolist() == [30, 16, 8, 6]
    assert [Bound(code).name for code in got.bound] == ["CEILING", "PARENT", "PARENT", "GUARANTEE"]
    assert got.stage.tolist() == [1, 1, 1, 0]


def test_a_met_claim_with_nothing_left_over_is_bound_by_its_claim():
    """The claim row that was met last is the stage."""
    tree = tree_of(("g", 0, 30, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1))
    got = allocate(tree, np.array([[10, 10], [10, 25]], float))
    assert got.grant_bps.tolist() == [30, 10, 20]
    assert [Bound(code).name for code in got.bound] == ["CEILING", "CLAIM", "PARENT"]
    assert got.stage.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("reserve", "capacity", "expected"),
    [
        (0, 30, [15, 15]),
        (8, 30, [11, 11]),
        (8, 20, [10, 10]),  # claims may use the buffer
        (8, 40, [20, 20]),  # everyone at the ceiling: a buffer would serve nobody
        (8, 38, [18, 18]),  # no more is kept than the children could still use
    ],
)
def test_a_reserve_is_kept_from_the_leftover_only(reserve, capacity, expected):
    """A pool's buffer is part of its grant that its children's leftover does not get."""
    tree = tree_of(("g", 0, INF, 1), ("g/a", 0, 20, 1), ("g/b", 0, 20, 1))
    assert grants(tree, [10, 10], reserve=np.array([reserve, 0, 0.0]), capacity=capacity) == expected


def test_without_claims_all_is_leftover():
    """No rows of claims is a valid question: capacity by weight, up to the ceilings."""
    tree = tree_of(*DEMO)
    assert grants(tree) == [25, 25, 34, 16]
    assert [Bound(code).name for code in allocate(tree, np.empty((0, 4))).bound[3:]] == ["LEFTOVER"] * 4


def test_infinite_claims_and_ceilings():
    """Infinity asks for all there is, and no more is granted than there is."""
    tree = tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 3))
    assert grants(tree, [INF, INF], capacity=100) == [25, 75]
    assert sum(grants(tree, [INF, INF])) == 2**52


def test_thousands_of_children_without_ceiling():
    """Sums of what cannot be summed do not wrap around."""
    n = 5000
    tree = tree_of(("g", 0, INF, 1), *((f"g/{i}", 0, INF, 1) for i in range(n)))
    check_all_that_holds(tree, INF, np.full((1, n), INF), np.full(n + 1, 1e6))
    assert grants(tree, capacity=5 * n, reserve=np.full(n + 1, 2.0 * n)) == [3] * n


def test_a_tree_of_one_pool():
    """The root alone is a leaf and gets the capacity."""
    assert grants(tree_of(("g", 1, INF, 1)), [5], capacity=9) == [9]


def test_nothing_to_share():
    """No capacity: everyone gets nothing and nothing fails."""
    assert grants(tree_of(*DEMO[:3]), [5, 5], capacity=0) == [0, 0]


def test_equal_claims_at_exactly_the_capacity_are_all_met():
    """Total equal to capacity is enough."""
    tree = tree_of(("g", 0, 30, 1), *((f"g/{k}", 0, INF, 1 + k) for k in range(3)))
    assert grants(tree, [10, 10, 10]) == [10, 10, 10]


def test_a_fraction_of_a_bit_is_asked_for_as_a_whole_bit():
    """A claim is never rounded below what was asked; far orders of magnitude live together."""
    tree = tree_of(("g", 0, 1e12, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1))
    assert grants(tree, [1e-9, 1e12]) == [1, 10**12 - 1]


def test_a_later_row_below_an_earlier_one_takes_nothing_back():
    """Rows are totals: a second row that asks for less asks for nothing more."""
    tree = tree_of(("g", 0, 30, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1))
    assert grants(tree, [20, 0], [5, 10]) == [20, 10]


def test_an_inner_guarantee_stays_with_its_pool():
    """A region's own guarantee is held for it though its users do not ask."""
    tree = tree_of(
        ("g", 0, 30, 1), ("g/w", 20, INF, 1), ("g/e", 0, INF, 1), ("g/w/a", 0, 5, 1), ("g/e/b", 0, INF, 1)
    )
    assert allocate(tree, np.array([[1.0, 50.0]])).grant_bps.tolist() == [30, 20, 10, 5, 10]


@pytest.mark.parametrize("bad", [math.nan, -1.0])
def test_a_claim_that_is_missing_or_negative_is_refused_by_name(bad):
    """Missing is not zero: the caller must decide what it stands for."""
    with pytest.raises(ValueError, match=r"global/west/bob: claims_bps\[1\] must be >= 0 and not NaN, got"):
        grants(tree_of(*DEMO), [1, 1, 1, 1], [1, bad, 1, 1])


def test_a_reserve_that_is_missing_is_refused_by_name():
    """As for claims."""
    with pytest.raises(ValueError, match="global/west: reserve_bps must be >= 0 and not NaN, got nan"):
        grants(tree_of(*DEMO), reserve=np.array([0, math.nan, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("claims", "reserve", "rule"),
    [
        (np.zeros(4), None, "claims_bps must have shape"),
        (np.zeros((1, 7)), None, "claims_bps must have shape"),
        (np.zeros((1, 4)), np.zeros(4), "reserve_bps must have shape"),
    ],
)
def test_wrong_shapes_are_refused(claims, reserve, rule):
    """Claims have a column for each leaf, reserves an entry for each pool."""
    with pytest.raises(ValueError, match=rule):
        allocate(tree_of(*DEMO), claims, reserve)


def test_guarantees_above_the_capacity_are_refused_with_the_numbers():
    """A capacity that fell below what was promised is an error, not a silent breach."""
    with pytest.raises(InfeasibleTree, match="global: guarantees need 10 bit/s, above its capacity 9 bit/s"):
        grants(tree_of(*DEMO), capacity=9)


@pytest.mark.parametrize("capacity", [math.nan, -1.0])
def test_a_capacity_without_meaning_is_refused(capacity):
    """NaN is no capacity."""
    with pytest.raises(ValueError, match="capacity_bps must be >= 0"):
        grants(tree_of(*DEMO), capacity=capacity)


def test_predicates_see_what_is_wrong():
    """Each predicate fails on a grant that breaks its rule."""
    tree = tree_of(("g", 0, 30, 1), ("g/a", 5, 20, 1), ("g/b", 0, 20, 1))
    fine, zero, top = np.array([30, 15, 15]), np.zeros(3, np.int64), np.array([30, 20, 20])
    assert is_feasible(tree, fine)
    assert is_feasible(tree, fine, 30)
    assert not is_feasible(tree, fine, 29)
    assert not is_feasible(tree, np.array([30, 16, 15]))
    assert not is_feasible(tree, np.array([30, 4, 15]))
    assert not is_feasible(tree, np.array([30, 9, 21]))
    assert is_max_min(tree, fine, zero, top)
    assert not is_max_min(tree, np.array([30, 18, 12]), zero, top)
    assert is_max_min(tree, np.array([30, 18, 12]), np.array([0, 18, 0]), top)
    assert not is_max_min(tree, fine, np.array([0, 16, 0]), top)
    assert not is_max_min(tree, np.array([30, 21, 9]), zero, top)
    assert idle_bps(tree, np.array([30, 10, 15]), top).tolist() == [5, 0, 0]
    assert idle_bps(tree, np.array([30, 10, 15]), top, np.array([5, 0, 0])).tolist() == [0, 0, 0]
