"""The benchmark of the loop runs and says what it promises; how fast is not a test's business."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from allocation.tree import PoolTree
from bench import loop
from bench.straightforward import most_carried
from bench.synthetic import TICK_S, Synthetic
from planner.plan import Plan
from telemetry.samples import decode_batch

USERS = 50
TICKS = 3


def test_a_small_run_writes_every_key(tmp_path: Path):
    """The JSON holds what the documentation says, and the model spoke for every pool."""
    out = tmp_path / "loop.json"
    assert loop.main(["--json", str(out), "--users", str(USERS), "--ticks", str(TICKS)]) == 0
    result = json.loads(out.read_text())
    assert {"users", "python", "cpus", "libraries", "tick_s"} <= result.keys()
    figures = result["users"][str(USERS)]
    assert {
        "tick_ms_p50",
        "tick_ms_p99",
        "rss_mb",
        "ingest_ms",
        "encode_plan_ms",
        "rebuild_ms",
    } <= figures.keys()
    assert figures["steps_ms"].keys() == {"observe", "group", "forecast", "allocate", "publish"}
    assert figures["n_ticks"] == TICKS
    assert figures["by_model_share"] == 1.0
    assert figures["problems"] == []
    assert figures["store_rows_written"] > 0
    assert figures["groups"] >= USERS // 20


def test_help_says_what_is_measured(capsys: pytest.CaptureFixture[str]):
    """A reader of the figures finds their meaning where the command is."""
    with pytest.raises(SystemExit) as left:
        loop.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "--users" in text
    assert "steps_ms" in text


def test_sizes_below_one_are_refused(capsys: pytest.CaptureFixture[str]):
    """No network has no users."""
    with pytest.raises(SystemExit):
        loop.main(["--json", "-", "--users", "10,0"])
    assert "must be >= 1, got 0" in capsys.readouterr().err


def test_every_switch_answers_a_poll_with_a_batch():
    """What the planner is fed are the seam's own bytes, with edges from the first poll on."""
    synthetic = Synthetic.of(60)
    batches = [decode_batch(body) for body in synthetic.poll(1000.0, Plan())]
    assert sorted(batch.dpid for batch in batches) == sorted(synthetic.network.dpids)
    assert all(len(batch.edges.src) for batch in batches)


def test_the_past_has_a_column_for_every_name():
    """A planner that asks for pools of every level gets a level and no gaps."""
    synthetic = Synthetic.of(60)
    names = ["global", "region/r0", "group/auto-1@r0", "user/u0"]
    window = synthetic.load(0.0, 100 * TICK_S, int(TICK_S), names, 0)
    assert window.demand_bps.shape == (100, 4)
    assert (window.demand_bps > 0).all()
    mean = window.demand_bps.mean(axis=0)
    assert mean[0] > mean[1] > mean[2]


def test_the_linear_program_carries_all_that_fits():
    """The comparison is a fair one: it solves the tree, not something easier."""
    tree = PoolTree(
        ("a", "a/b", "a/b/x", "a/b/y"),
        np.array([-1, 0, 1, 1]),
        np.zeros(4),
        np.array([np.inf, 10e6, 8e6, np.inf]),
        np.ones(4),
    )
    grants = most_carried(tree, np.array([0, 0, 9e6, 1e6]))
    assert grants.sum() == pytest.approx(9e6)
    assert most_carried(tree, np.array([0, 0, 9e6, 9e6])).sum() == pytest.approx(10e6)
