"""The replay of recorded traffic tells nobody the future and reckons what it says it reckons."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import replay
from bench.forecast import Series
from bench.replay import METHODS, Network, Reactive, Replayed, granted, scores

STEP_S = 300.0
PAIRS = np.array(["a>b", "b>a", "a>c", "b>c"])


def recorded(n_steps: int = 160, seed: int = 0) -> Series:
    """Four pairs of two origins, each around its own level, in bit/s."""
    rng = np.random.default_rng(seed)
    level = np.array([8e6, 2e6, 1e6, 4e6])
    demand = level * np.exp(0.3 * rng.standard_normal((n_steps, 4)))
    demand[50:53] = np.nan
    return Series(
        demand.astype(np.float32), STEP_S * np.arange(1, n_steps + 1, dtype=np.float64), PAIRS, STEP_S
    )


def replayed(demand: list[list[float]], capacity_bps: int, **grants: list[list[int]]) -> Replayed:
    return Replayed(
        time=np.arange(len(demand)),
        grant_bps={name: np.array(grant) for name, grant in grants.items()},
        demand_bps=np.array(demand),
        use_share_bps=np.array(demand),
        capacity_bps=capacity_bps,
    )


def test_origins_are_groups_and_users_keep_their_columns():
    """Pools stand by groups, files do not: grants must come back in the order of the file."""
    network = Network.of(PAIRS, 10e6)
    assert len(network.structure.group_rows) == 2
    claim = np.array([1e6, 2e6, 3e6, 4e6])
    assert (granted(network, claim) >= claim).all()
    assert network.for_users(claim).tolist() == [1e6, 3e6, 2e6, 4e6]


def test_other_names_make_one_group():
    """Names that are no pairs of places say nothing of who belongs together."""
    assert len(Network.of(np.array(["up", "down>there"]), 1e6).structure.group_rows) == 1


def test_a_pool_with_a_gap_in_it_has_a_gap():
    """A sum without one of its parts is not what was demanded."""
    pooled = Network.of(PAIRS, 1e9).pooled(np.array([[1, 2, 3, 4], [1, np.nan, 3, 4]], np.float32))
    assert pooled[0].tolist() == [10, 10, 4, 6, 1, 3, 2, 4]
    assert np.isnan(pooled[1]).tolist() == [True, True, False, True, False, False, True, False]


def test_what_claims_leave_is_shared_in_proportion_to_them():
    """Nothing is idle, and all claims are exceeded by the same factor."""
    claim = np.array([1e6, 2e6, 3e6, 4e6])
    grant = granted(Network.of(PAIRS, 20e6), claim)
    assert grant.sum() == 20_000_000
    assert np.allclose(grant, 2 * claim, rtol=1e-6)


def test_claims_that_do_not_fit_share_by_max_min():
    """Origins first, then the pairs of each."""
    grant = granted(Network.of(PAIRS, 8e6), np.array([9e6, 1e6, 1e6, 1e6]))
    assert grant.tolist() == [5_000_000, 1_000_000, 1_000_000, 1_000_000]


def test_an_estimate_stands_through_a_gap():
    """Silence is not a demand of zero: the router keeps what it last thought."""
    series = recorded()
    reactive = Reactive(series, 20)
    before = {name: value.copy() for name, value in reactive.estimates(49).items()}
    for row in (50, 51):
        during = reactive.estimates(row)
    assert during["last_value"].tolist() == before["last_value"].tolist()
    assert np.isfinite(during["heyp"]).all()


def test_figures_of_a_small_case():
    """Two users, one step: 4 of 10 unserved where foresight leaves 2."""
    found = scores(replayed([[6.0, 4.0]], 8, oracle=[[4, 4]], tidegate=[[2, 6]]))["tidegate"]
    assert found["carried"] == pytest.approx(0.6)
    assert found["carried_of_oracle"] == pytest.approx(6 / 8)
    assert found["regret"] == pytest.approx(0.2)
    assert found["slack"] == pytest.approx(0.8)
    assert found["unserved_p99"] == pytest.approx(0.4)
    assert found["fairness"] == pytest.approx(0.5)
    assert found["sum_violations"] == 0


def test_a_sum_above_the_capacity_is_counted():
    """One bit too many is one violation."""
    found = scores(replayed([[6.0, 4.0]] * 2, 8, oracle=[[4, 4]] * 2, tidegate=[[4, 5], [4, 4]]))
    assert found["tidegate"]["sum_violations"] == 1


def test_steps_without_demand_do_not_spoil_the_figures():
    """A gap asks for nothing, and nothing of nothing is unserved."""
    found = scores(replayed([[np.nan, 4.0], [0.0, 0.0]], 8, oracle=[[4, 4]] * 2, tidegate=[[8, 0]] * 2))
    assert found["tidegate"]["carried"] == 0
    assert np.isfinite(list(found["tidegate"].values())).all()


def test_no_method_but_the_oracle_knows_what_comes():
    """Another future changes the oracle's grants only."""
    series, first = recorded(), 112
    network = Network.of(series.names, 14e6)
    changed = series.demand_bps.copy()
    changed[-1] *= 7
    one = replay.replay(series, network, first)
    other = replay.replay(replace(series, demand_bps=changed), network, first)
    for name in METHODS:
        same = np.array_equal(one.grant_bps[name], other.grant_bps[name])
        assert same == (name != "oracle"), name


def test_the_result_has_the_keys_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The JSON's methods and figures, and a dump that others can score."""
    series = recorded()
    data, out = tmp_path / "traffic.npz", tmp_path / "out.json"
    np.savez(data, series=series.demand_bps / 1e6, time=series.time.astype(np.int64), names=series.names)
    arguments = [
        "replay",
        "--data",
        str(data),
        "--capacity",
        "0.7",
        "--json",
        str(out),
        "--dump",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert replay.main() == 0
    figures = json.loads(out.read_text())["methods"]
    assert list(figures) == list(METHODS)
    assert set(figures["tidegate"]) >= {
        "carried", "carried_of_oracle", "regret", "slack", "unserved_p99", "cut_below_use", "fairness",
    }  # fmt: skip
    assert all(one["sum_violations"] == 0 for one in figures.values())
    with np.load(tmp_path / "grants.npz") as dumped:
        shape = dumped["grant"].shape
        assert shape == (len(METHODS), len(dumped["time"]), 4)
        assert dumped["demand"].shape == shape[1:]
        assert (dumped["grant"].sum(axis=2) <= dumped["capacity"]).all()


@pytest.mark.parametrize("capacity", ["0", "-1", "nan", "much"])
def test_a_capacity_must_be_above_zero(capacity: str, monkeypatch: pytest.MonkeyPatch):
    """Refused before anything is read."""
    monkeypatch.setattr(sys, "argv", ["replay", "--data", "none.npz", "--capacity", capacity])
    with pytest.raises(SystemExit):
        replay.main()


def test_a_file_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The path, not a traceback."""
    monkeypatch.setattr(sys, "argv", ["replay", "--data", "none.npz", "--capacity", "0.5"])
    assert replay.main() == 2
    assert "none.npz" in capsys.readouterr().err
