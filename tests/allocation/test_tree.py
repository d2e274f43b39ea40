"""What a pool tree accepts, and how it says no."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from allocation import tree as module
from allocation.tree import InfeasibleTree, PoolTree
from tests.allocation.trees import INF, many, plain, tree_of, trees


def pools(parent, names=None, guarantee=0.0, ceiling=INF, weight=1.0):
    """A tree from parents alone, with the other columns the same for all."""
    n = len(parent)
    names = tuple(names or (f"p{i}" for i in range(n)))
    return PoolTree(names, np.array(parent), np.full(n, guarantee), np.full(n, ceiling), np.full(n, weight))


@given(trees())
@many(100)
def test_children_and_leaves_are_what_parents_say(problem):
    """Every pool but the root is listed once, under its parent, in order."""
    tree, _ = problem
    for i in range(len(tree)):
        members = tree.children[tree.first_child[i] : tree.first_child[i + 1]]
        assert members.tolist() == [j for j in range(len(tree)) if tree.parent[j] == i]
        assert (i in tree.leaves) == (len(members) == 0)


@given(trees())
@many(100)
def test_capacity_below_is_the_least_ceiling_on_the_path(problem):
    """No pool can carry more than any pool above it."""
    tree, capacity = problem
    got = tree.capacity_below(capacity)
    for i in range(len(tree)):
        path = [i]
        while tree.parent[path[-1]] >= 0:
            path.append(tree.parent[path[-1]])
        assert got[i] == min([int(min(capacity, 2**52)), *tree.limit_bps[path]])
    root_limit = np.minimum(tree.limit_bps, int(min(capacity, 2**52)))
    np.testing.assert_array_equal(plain(module._least_on_path)(tree.parent, root_limit), got)


def test_guarantees_above_a_ceiling_name_the_pool_and_the_numbers():
    """The deepest cause is named, with both numbers."""
    with pytest.raises(InfeasibleTree) as error:
        tree_of(
            ("global", 0, 30e6, 1),
            ("global/west", 0, 30e6, 1),
            ("global/west/a", 15e6, INF, 1),
            ("global/west/b", 16e6, INF, 1),
        )
    assert str(error.value) == (
        "global/west: guarantees of its children sum to 31000000 bit/s, above its ceiling 30000000 bit/s"
    )


def test_guarantees_that_fill_a_ceiling_exactly_are_fine():
    """Also when thirds of a bit would not add up in floats."""
    tree = tree_of(("g", 0, 3, 1), *((f"g/{k}", 1, 1, 1) for k in range(3)))
    assert tree.reserved_bps.tolist() == [3, 1, 1, 1]


def test_an_inner_guarantee_counts_upwards_where_it_is_the_larger():
    """Effective guarantee: its own or its children's together."""
    tree = tree_of(("g", 1, 9, 1), ("g/a", 5, 9, 1), ("g/a/x", 2, 9, 1), ("g/b", 0, 9, 1))
    assert tree.reserved_bps.tolist() == [5, 5, 2, 0]


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ((10, 5, 1), "g/a: ceiling 5 bit/s is below its guarantee 10 bit/s"),
        ((-1, 5, 1), "g/a: guarantee_bps must be 0 to"),
        ((math.nan, 5, 1), "g/a: guarantee_bps must be 0 to .* got nan"),
        ((INF, INF, 1), "g/a: guarantee_bps must be 0 to .* got inf"),
        ((0, -5, 1), "g/a: ceiling_bps must be >= 0, got -5.0"),
        ((0, math.nan, 1), "g/a: ceiling_bps must be >= 0, got nan"),
        ((0, 5, 0), "g/a: weight must be > 0 .* got 0.0"),
        ((0, 5, math.nan), "g/a: weight must be > 0 .* got nan"),
        ((0, 5, INF), "g/a: weight must be > 0 .* got inf"),
    ],
)
def test_a_bad_value_names_pool_rule_and_value(pool, message):
    """One line that says what to fix."""
    with pytest.raises(InfeasibleTree, match=message):
        tree_of(("g", 0, INF, 1), ("g/a", *pool))


@pytest.mark.parametrize(
    ("parent", "names", "message"),
    [
        ([], None, "at least one pool"),
        ([0], None, "p0: parent of the first pool must be -1, got 0"),
        ([-1, -1], None, "p1: parent must be a pool's index, 0 to 1, got -1"),
        ([-1, 7], None, "p1: parent must be a pool's index, 0 to 1, got 7"),
        ([-1, 1], None, "p1: parents form a cycle, p1 -> p1"),
        ([-1, 2, 1], None, "p1: parents form a cycle, p1 -> p2 -> p1"),
        ([-1, 2, 3, 2], None, "p2: parents form a cycle, p2 -> p3 -> p2"),
        ([-1, 2, 0], None, "p1: parent must come before its children, got p2 at 2 above pool 1"),
        ([-1, 0, 0], ["g", "g/a", "g/a"], "g/a: name must be unique"),
    ],
)
def test_a_shape_that_is_no_tree_is_refused(parent, names, message):
    """Cycles, several roots, late parents, equal names."""
    with pytest.raises(InfeasibleTree, match=message):
        pools(parent, names)


@pytest.mark.parametrize(
    ("column", "codes", "message"),
    [
        ("priority", [0, 256], "p1: priority must be a whole number, 0 to 255, got 256"),
        ("priority", [0, -1], "p1: priority must be a whole number, 0 to 255, got -1"),
        ("priority", [0, 0.5], "p1: priority must be a whole number, 0 to 255, got 0.5"),
        ("sharing", [0, 2], "p1: sharing must be a whole number, 0 to 1, got 2"),
        ("sharing", [0, math.nan], "p1: sharing must be a whole number, 0 to 1, got nan"),
        ("sharing", [0], r"sharing must have shape \(2,\), got \(1,\)"),
    ],
)
def test_codes_out_of_range_are_refused(column, codes, message):
    """Classes and ways of sharing are small whole numbers, one for each pool."""
    with pytest.raises(ValueError, match=message):
        replace(pools([-1, 0]), **{column: codes})


def test_siblings_stand_by_falling_class():
    """Those of higher priority first, equals in the order given."""
    tree = replace(pools([-1, 0, 0, 0, 0]), priority=[0, 1, 3, 1, 3])
    assert tree.children.tolist() == [2, 4, 1, 3]


def test_columns_of_other_lengths_are_refused():
    """Says which column and both shapes."""
    with pytest.raises(ValueError, match=r"weight must have shape \(2,\), got \(1,\)"):
        PoolTree(("g", "g/a"), np.array([-1, 0]), np.zeros(2), np.full(2, INF), np.ones(1))


def test_a_tree_does_not_change_behind_its_checks():
    """Arrays are copies and read-only."""
    weight = np.ones(2)
    tree = PoolTree(("g", "g/a"), np.array([-1, 0]), np.zeros(2), np.full(2, INF), weight)
    weight[1] = -1
    assert tree.weight[1] == 1
    with pytest.raises(ValueError, match="read-only"):
        tree.weight[1] = 2
