"""The allocation benchmark measures what it says, and its two references are right."""

import json

import numpy as np
import pytest

from bench import allocate

KEYS = {"leaves", "solve_ms_p50", "sort_ms_p50", "ratio_to_sort", "lp_max_rel_diff", "reference_max_rel_diff"}


@pytest.mark.parametrize("share", [allocate.share_plainly, allocate.share_by_lp])
def test_the_references_find_shares_that_can_be_found_by_hand(share):
    """One at its ceiling, one at its lower bound, two by weight."""
    got = share(100.0, np.array([0.0, 40, 0, 0]), np.array([10.0, 90, 90, 90]), np.array([5.0, 1, 1, 4]))
    np.testing.assert_allclose(got, [10, 40, 10, 40])


def test_small_trees_have_four_levels_and_feasible_guarantees():
    """Else nothing would be compared."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        problem = allocate.small(rng)
        depth = np.zeros(len(problem.tree), int)
        for i in range(1, len(depth)):
            depth[i] = depth[problem.tree.parent[i]] + 1
        assert depth.max() == 3
        assert problem.tree.reserved_bps[0] <= problem.capacity_bps


def test_the_result_has_the_keys_others_read_and_the_grants_are_exact(tmp_path, monkeypatch):
    """On a small run; no time is checked."""
    out = tmp_path / "out.json"
    monkeypatch.setattr(
        "sys.argv",
        ["bench.allocate", "--leaves", "500", "--repeats", "1", "--trees", "5", "--json", str(out)],
    )
    assert allocate.main() == 0
    report = json.loads(out.read_text())
    assert report.keys() >= KEYS
    assert report["leaves"] == 500
    assert report["lp_max_rel_diff"] <= 1e-6
    assert report["reference_max_rel_diff"] <= 1e-6


def test_a_share_in_the_wrong_place_shows(monkeypatch):
    """A wrong grant must not become a small figure."""
    problem = allocate.large(300)

    def unfair(budget, lower, upper, weight):
        return allocate.share_plainly(budget, lower, upper, np.ones(len(weight)))

    assert allocate.relative_difference(problem, unfair) > 0.01
