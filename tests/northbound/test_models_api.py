"""The models over REST and on the command line: what is on record, and back to an earlier one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner

from northbound.api import create_app
from northbound.cli import app as commands
from northbound.cli_exit import Exit
from northbound.models_api import Models, ModelVersion
from northbound.server import listen
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, TOKEN, FakeOperations

runner = CliRunner()


def test_models_are_listed_newest_first(ask: Ask):
    """Which is in use, what the others scored, what is kept; no score is null and not zero."""
    answer = Models.model_validate(ask("GET", "/models").json())
    assert answer.champion == 2
    assert [one.version for one in answer.versions] == [3, 2, 1]
    assert [one.kept for one in answer.versions] == [True, True, False]
    assert answer.versions[0].champion_score is None
    assert answer.changes[0].what == "rejected"
    assert answer.on_trial_since == NOW - 60


def test_one_model_is_shown(ask: Ask):
    """The row of the list, alone."""
    answer = ModelVersion.model_validate(ask("GET", "/models/3").json())
    assert (answer.version, answer.outcome, answer.in_use) == (3, "rejected", False)


def test_rollback_and_release(ask: Ask, operations: FakeOperations):
    """A version is put to use and held until it is released; both answers say how it stands."""
    answer = ask("POST", "/models/3/rollback", TOKEN).json()
    assert (answer["champion"], answer["held"], answer["held_until"]) == (3, True, None)
    answer = ask("POST", "/models/release", TOKEN).json()
    assert (answer["champion"], answer["held"]) == (3, False)
    assert operations.versions.champion == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("GET", "/models/9", 404, "version must be one of the models on record, got 9"),
        ("GET", "/models/0", 422, "path.version must be >= 1, got '0'"),
        ("GET", "/models/latest", 422, "path.version must be a whole number, got 'latest'"),
        ("POST", "/models/9/rollback", 404, "version must be one of the models on record, got 9"),
        ("POST", "/models/1/rollback", 409, "version must be one whose model is kept, got 1"),
    ],
)
def test_refusals_name_rule_and_value(ask: Ask, method: str, path: str, status: int, title: str):
    """Problem documents, as everywhere."""
    answer = ask(method, path, TOKEN)
    assert answer.status_code == status
    assert answer.json()["title"] == title


# The command.


@pytest.fixture
def server(operations: FakeOperations, tmp_path: Path) -> Iterator[list[str]]:
    """Options that lead to a REST API on a free port, and to its token."""
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(create_app(operations, TOKEN, now=lambda: NOW), log_config=None, access_log=False)
    served = uvicorn.Server(config)
    thread = threading.Thread(target=served.run, args=([listener],))
    thread.start()
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    yield ["--url", url, "--token-file", str(token_file)]
    served.should_exit = True
    thread.join(10)


def run(*arguments: str) -> Any:
    return runner.invoke(commands, ["model", *arguments])


def test_list_says_what_is_in_use(server: list[str]):
    """A table for people, the answer itself for scripts."""
    result = run("list", *server[:2])
    assert result.exit_code == 0, result.stderr
    assert "version 2 is in use, on trial since" in result.stdout
    assert "2 (in use)" in result.stdout
    assert json.loads(run("list", *server[:2], "--json").stdout)["champion"] == 2


def test_show_gives_the_reason(server: list[str]):
    """Why a model was rejected is one command away."""
    result = run("show", "3", *server[:2])
    assert result.exit_code == 0
    assert "rejected: no champion" in result.stdout


def test_rollback_and_release_by_command(server: list[str], operations: FakeOperations):
    """The token is read from the file that is named."""
    result = run("rollback", "3", *server)
    assert result.exit_code == 0, result.stderr
    assert "version 3 is in use, held until `tidegate model release`" in result.stdout
    assert run("release", *server).exit_code == 0
    assert not operations.versions.held(NOW)


def test_refusal_is_one_line_and_status_1(server: list[str]):
    """What the planner refuses is told as it said."""
    result = run("rollback", "1", *server)
    assert result.exit_code == 1
    assert result.stderr.endswith("version must be one whose model is kept, got 1\n")
    assert result.stderr.count("\n") == 1


def test_token_that_is_missing_or_wrong_is_told(server: list[str], tmp_path: Path):
    """Nothing is written without it."""
    missing = run("release", *server[:2], "--token-file", str(tmp_path / "none"))
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "token not read" in missing.stderr
    (tmp_path / "wrong").write_text("wrong")
    refused = run("release", *server[:2], "--token-file", str(tmp_path / "wrong"))
    assert (refused.exit_code, refused.stderr.count("\n")) == (Exit.REFUSED, 1)


def test_token_file_is_the_configured_one(server: list[str], tmp_path: Path):
    """With ``--config`` neither the address nor the token has to be given."""
    file = tmp_path / "c.yaml"
    port = server[1].rsplit(":", 1)[1]
    file.write_text(
        "capacity_mbps: 10\nregions: {a: {dpids: [1], capacity_mbps: 10}}\n"
        f"northbound: {{port: {port}, token_file: {tmp_path / 'token'}}}\n"
    )
    assert run("rollback", "3", "--config", str(file)).exit_code == 0


@pytest.mark.parametrize("arguments", [["rollback"], ["rollback", "0"], ["show", "x"], ["nonsense"], []])
def test_wrong_call_is_status_2(arguments: list[str]):
    """A wrong call is told from a failure."""
    assert run(*arguments).exit_code == 2
