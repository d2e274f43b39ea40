"""The grouping benchmark runs the product's pipeline, scores it rightly and writes what others read."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import grouping
from bench.grouping_log import read_log, read_truth
from bench.grouping_peers import compare
from bench.grouping_pipeline import Pipeline, agreement
from bench.grouping_planted import Network, changed, observe, run_case
from bench.planted import planted_applications, with_chatter

KEYS = {
    "endpoints",
    "cross_talk",
    "ari",
    "first_s",
    "tick_s",
    "rss_mb",
    "churn_per_hour",
    "churn_after_move",
    "peers",
}


def test_a_case_has_the_keys_others_read_and_finds_the_applications():
    """On a small network; no time is checked."""
    case = run_case(200, 0.0, minutes=2)
    assert case.keys() >= KEYS
    assert case["ari"] > 0.9
    assert case["churn_per_hour"] <= 0.1
    assert set(case["peers"]) == {"networkx Louvain", "networkx label propagation", "igraph Leiden"}
    assert all(0 <= case["peers"][name]["ari"] <= 1 for name in case["peers"] if "networkx" in name)


def test_a_peer_that_is_not_installed_is_skipped_with_a_note(monkeypatch):
    """It is a dependency of nothing."""
    monkeypatch.setitem(sys.modules, "igraph", None)
    pipeline = Pipeline()
    network = Network(planted_applications([3, 4, 5], 1), 1)
    observe(pipeline, network.poll(pipeline, 60.0), 0.0)
    results = compare(pipeline.graph.view(0.0), network.truth)
    assert results["igraph Leiden"]["ari"] is None
    assert "igraph" in results["igraph Leiden"]["note"]


def test_agreement_takes_who_is_in_no_group_for_alone():
    """So that finding nothing does not look like finding one application of all."""
    truth = np.array([0, 0, 0, 1, 1, 1, -1])
    assert agreement(truth, np.array([5, 5, 5, 2, 2, 2, 2])) == 1.0
    assert agreement(truth, np.full(7, -1)) == 0.0
    assert agreement(truth, np.array([5, 5, 5, -1, -1, -1, 5])) < 1.0


def test_each_change_of_membership_counts_once():
    """Joining, leaving, changing; staying does not."""
    assert changed({"a": "1", "b": "1", "c": "2"}, {"a": "1", "b": "2", "d": "2"}) == 3


def test_who_moved_is_somewhere_else():
    """The truth follows the endpoints, and as many are in each application as before."""
    network = Network(planted_applications([5] * 20, 1), 1)
    before = network.truth
    moved = network.move(0.1)
    after = network.truth
    assert len(moved) == 10
    stayed = np.setdiff1d(np.arange(100), moved)
    np.testing.assert_array_equal(before[stayed], after[stayed])
    assert (before[moved] != after[moved]).sum() > 5
    np.testing.assert_array_equal(np.bincount(before), np.bincount(after))


def test_chatter_fills_up_to_the_edges_wanted_and_is_faint():
    """Between endpoints that did not talk; what was there stays, and the truth too."""
    planted = planted_applications([5] * 20, 1, cross_talk=0.1, services=1)
    filled = with_chatter(planted, 2000, 1)
    pairs = set(zip(filled.src.tolist(), filled.dst.tolist(), strict=True))
    assert sum(a != b for a, b in pairs) == 2000
    had = len(planted.src)
    np.testing.assert_array_equal(filled.rate_bps[:had], planted.rate_bps)
    new = set(zip(filled.src[had:].tolist(), filled.dst[had:].tolist(), strict=True))
    assert not new & set(zip(planted.src.tolist(), planted.dst.tolist(), strict=True))
    assert np.median(filled.rate_bps[had:]) < 1e4
    assert len(with_chatter(planted, 10, 1).src) == had
    with pytest.raises(ValueError, match="edges must be <= 10100 between 101 endpoints, got 10101"):
        with_chatter(planted, 10101, 1)


def test_each_seed_is_a_case_with_its_edges(tmp_path):
    """As the options say."""
    out = tmp_path / "out.json"
    options = ["--endpoints", "60", "--cross-talk", "0.1", "--seeds", "3,4", "--edges-per-endpoint", "10"]
    assert grouping.main([*options, "--minutes", "1", "--no-peers", "--json", str(out)]) == 0
    cases = json.loads(out.read_text())["cases"]
    assert [case["seed"] for case in cases] == [3, 4]
    assert all(case["edges"] >= 10 * 60 for case in cases)


def write_log(path, rows):
    columns = dict(
        zip(("hour", "client", "server", "port", "proto", "packets"), zip(*rows, strict=True), strict=True)
    )
    table = pa.table(columns)
    pq.write_table(table.set_column(0, "hour", table["hour"].cast(pa.int64()).cast(pa.timestamp("s"))), path)


@pytest.fixture
def log(tmp_path):
    """Three applications of two clients, a front and a database, for six hours."""
    rows = []
    for hour in range(6):
        for app in "xyz":
            rows += [(3600 * hour, f"client-{app}-{client}", f"front-{app}", 443, 6, 900) for client in "12"]
            rows.append((3600 * hour, f"front-{app}", f"db-{app}", 5432, 6, 500))
    path = tmp_path / "edges.parquet"
    write_log(path, rows)
    return path


def test_a_log_gives_communities_and_roles_one_a_line(log, tmp_path):
    """In files whose lines name the members, with the kind first where all are together."""
    truth = tmp_path / "truth.csv"
    fronts, clients = "front-x,front-y,front-z", ",".join(f"client-{a}-{c}" for a in "xyz" for c in "12")
    truth.write_text(f"# roles\n{fronts}\n{clients}\ndb-x,db-y,db-z\n")
    out, dump = tmp_path / "out.json", tmp_path / "found"
    arguments = ["--edges", str(log), "--truth", str(truth), "--json", str(out), "--dump", str(dump)]
    assert grouping.main(arguments) == 0
    figures = json.loads(out.read_text())
    assert figures["roles"]["ari"] == 1.0
    assert figures["communities"]["ari"] < 0.5
    roles = {frozenset(line.split(",")) for line in (dump / "roles.csv").read_text().splitlines()}
    assert roles == {frozenset(line.split(",")) for line in truth.read_text().splitlines()[1:]}
    communities = {frozenset(line.split(",")) for line in (dump / "communities.csv").read_text().splitlines()}
    assert communities == {
        frozenset({f"client-{app}-1", f"client-{app}-2", f"front-{app}", f"db-{app}"}) for app in "xyz"
    }
    kinds = [line.split(",")[0] for line in (dump / "groups.csv").read_text().splitlines()]
    assert kinds == ["community"] * 3 + ["role"] * 3


def test_contacts_without_ports_have_communities_alone(tmp_path):
    """The classes that the log names itself are the truth."""
    rows = {
        "t": [0, 0, 20, 20, 40],
        "i": list("aabde"),
        "j": list("bccef"),
        "ci": list("XXXYY"),
        "cj": list("XXXYY"),
    }
    path = tmp_path / "contacts.parquet"
    pq.write_table(pa.table(rows), path)
    out = tmp_path / "out.json"
    assert grouping.main(["--edges", str(path), "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["communities"]["ari"] == 1.0
    assert "roles" not in figures


def test_ports_are_numbered_by_use_and_bounded(tmp_path):
    """The rarest beyond what the traffic graph can tell apart share a class."""
    rows = [(0, "a", "b", port, 6, 1) for port in range(5000)] + [(0, "c", "d", 4999, 6, 1)]
    path = tmp_path / "edges.parquet"
    write_log(path, rows)
    app = read_log(path).app
    assert app[-1] == app[4999] == 0
    assert app.max() == 4095


def test_what_cannot_be_read_is_refused_with_the_file_and_the_reason(log, tmp_path, capsys):
    """And the command ends with 2."""
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"when": [1]}), bare)
    assert grouping.main(["--edges", str(bare)]) == 2
    assert "bare.parquet: must have rows, a time column" in capsys.readouterr().err
    twice = tmp_path / "twice.csv"
    twice.write_text("a,b\nc,a\n")
    with pytest.raises(ValueError, match=r"twice.csv:2: a is in the group of line 1"):
        read_truth(twice, "abc")
    assert grouping.main(["--endpoints", "many"]) == 2
    assert grouping.main(["--cross-talk", "0.9"]) == 2
    assert "--cross-talk must be in 0..0.5, got '0.9'" in capsys.readouterr().err
    assert grouping.main(["--minutes", "0"]) == 2
    assert grouping.main(["--endpoints", "30", "--edges-per-endpoint", "30"]) == 2
    assert "--edges-per-endpoint must be in 0..29, got 30" in capsys.readouterr().err
