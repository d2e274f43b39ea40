"""``tidegate policy test`` and the commands for plans: what is printed, and the exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from northbound import client
from northbound.cli import app
from tests.northbound.conftest import Ask
from tests.northbound.doubles import TOKEN, FakeOperations

ROOT = Path(__file__).parents[2]
FILE = """
boosts: {evening: {pools: [group:lab], daily: {from: "18:00", to: "23:00"}, weight_factor: 2}}
cases:
  - name: in the evening
    at: 2026-11-28T20:00
    pools: {group:lab: {weight: 3, ceiling_mbps: 10}}
    expect: {group:lab: {weight: WANTED, ceiling_mbps: 10, priority: 4}}
"""


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A policy file whose only case is right."""
    file = tmp_path / "policies.yaml"
    file.write_text(FILE.replace("WANTED", "6"))
    return file


def test_passing_case_is_one_line(written: Path):
    """And a count; status 0."""
    assert run("policy", "test", str(written)) == (0, "ok   in the evening\n1 passed, 0 failed\n", "")


def test_failing_case_is_a_diff(written: Path):
    """What was wanted and what is, below the pool; status 1."""
    written.write_text(FILE.replace("WANTED", "3"))
    status, told, _ = run("policy", "test", str(written))
    assert status == 1
    assert told.splitlines() == [
        "FAIL in the evening",
        "  group:lab",
        "    - weight: 3",
        "    + weight: 6",
        "0 passed, 1 failed",
    ]


def test_file_without_cases_fails(written: Path):
    """Nothing was tested: that is no success."""
    written.write_text("balance: {by: equal}")
    assert run("policy", "test", str(written))[:2] == (1, "0 passed, 0 failed\n")


def test_wrong_file_is_misuse(written: Path):
    """Status 2, one line a fault."""
    written.write_text("bosts: {}")
    status, _, told = run("policy", "test", str(written))
    assert (status, told) == (2, f"{written}: bosts is not a known key, got a mapping\n")


def test_example_of_the_repository_passes():
    """What users copy from works."""
    example, config = ROOT / "config/policies.yaml", ROOT / "config/demo.yaml"
    status, told, _ = run("policy", "test", str(example), "--config", str(config))
    assert (status, told.splitlines()[-1]) == (0, "6 passed, 0 failed")


def test_check_reads_the_policies_too(tmp_path: Path, written: Path):
    """A configuration is not right when its policies are not."""
    config = tmp_path / "config.yaml"
    config.write_text(f"{(ROOT / 'config/demo.yaml').read_text()}\npolicies: {{file: {written}}}\n")
    assert run("check", str(config))[0] == 0
    written.write_text("critical: {x: {pools: [user:zoe]}}")
    status, _, told = run("check", str(config))
    assert status == 2
    assert told == f"{written}: critical.x.pools must be users of the configuration, got 'zoe'\n"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: Ask) -> list[str]:
    """The commands ask an API over a real planner; gives the options they need."""
    token = tmp_path / "token"
    token.write_text(TOKEN)

    def asked(
        url: str,
        method: str,
        path: str,
        given: str,
        also: tuple[int, ...],
        ca: Path | None,
        timeout_s: float,
        **more: Any,
    ) -> Any:
        response = ask(method, path, given, **more)
        assert response.is_success or response.status_code in also, response.text
        return response.json()

    monkeypatch.setattr(client, "_ask", asked)
    return ["--token-file", str(token)]


def test_freeze_revert_unfreeze_and_mode(api: list[str]):
    """Each tells which plan stands then."""
    assert run("freeze", "--reason", "change window", *api)[1].startswith("mode live, frozen since")
    status, told, _ = run("revert", *api)
    assert (status, told.count("frozen since")) == (0, 1)
    assert run("unfreeze", *api)[1].startswith("mode live\n")
    assert run("mode", "canary", "--region", "east", *api)[1].startswith("mode canary in east\n")
    assert "published: plan" in run("mode")[1]


def test_diff_is_a_row_a_meter(api: list[str], operations: FakeOperations):
    """What was, what is, by how much; between the plans that are named."""
    run("boost", "create", "user:anna", "--for", "1h", "--guarantee", "15", *api)
    operations.running.tick()
    status, told, _ = run("plan", "diff", *api)
    assert status == 0
    answer = json.loads(run("plan", "diff", "--json", *api)[1])
    old, new = answer["before"]["version"], answer["after"]["version"]
    assert told.startswith(f"plan {old} of ")
    (largest, *_) = answer["changes"]
    cells = [cell.strip() for cell in told.splitlines()[4].strip("│").split("│")]
    assert cells[:7] == [
        largest["dpid"], largest["pool"], largest["direction"], str(largest["meter_id"]), str(largest["before_kbps"]),
        str(largest["after_kbps"]), f"{largest['after_kbps'] - largest['before_kbps']:+d}",
    ]  # fmt: skip
    assert told.splitlines()[-1] == f"{answer['total']} of {answer['after']['meters']} meters differ"
    back = json.loads(run("plan", "diff", str(new), str(old), "--json", *api)[1])
    assert (back["before"]["version"], back["after"]["version"], back["total"]) == (new, old, answer["total"])
    assert "changes 1 to 1 of" in run("plan", "diff", "--limit", "1", *api)[1]


def test_explain_tells_the_chain_in_words(api: list[str]):
    """A line a step, for each direction."""
    status, told, _ = run("explain", "anna")
    assert status == 0
    lines = told.splitlines()
    assert re.match(r"global/west/\w+/anna \(user\), decided ", lines[0])
    assert lines[1:3] == ["up:", "  it offered 2 Mbit/s"]
    assert "down:" in lines


def test_standbys_and_boosts_are_tables(api: list[str]):
    """Also when there are none."""
    assert run("standbys")[1].splitlines()[-1] == "0 made, 0 activated, 0 expired since the start"
    assert run("boost")[0] == 0
