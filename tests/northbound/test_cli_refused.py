"""What a command ends with whose token the planner does not take, or not for this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from northbound.cli import app
from northbound.cli_exit import Exit
from tests.northbound.doubles import NOW
from tests.northbound.guarded import Guarded
from tests.northbound.test_cli import served

READS = (
    "status",
    "summary",
    "groups",
    "pools",
    "plan",
    "plan diff",
    "events",
    "boost",
    "standbys",
    "top --once",
)
WRITES = ("freeze", "boost end b1", "groups delete g1", "events withdraw exam", "model release", "mode live")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    return Guarded(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="module")
def url(guarded: Guarded) -> Iterator[str]:
    with served(guarded.operations, guarded.app) as address:
        yield address


def refused(command: str, url: str, token: str, directory: Path) -> None:
    """Status 4, and one line of why."""
    file = directory / "given"
    file.write_text(token)
    result = CliRunner().invoke(app, [*command.split(), "--url", url, "--token-file", str(file)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (Exit.REFUSED, "", 1), (
        result.output
    )


@pytest.mark.parametrize("command", READS + WRITES)
def test_unknown_token_is_refused(command: str, url: str, tmp_path: Path):
    """Whatever was to be done."""
    refused(command, url, "tg_unknown_token", tmp_path)


@pytest.mark.parametrize("command", ["status", "freeze"])
def test_expired_token_is_refused(
    command: str, url: str, guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A planner that is well must not look degraded."""
    token = guarded.token("admin", expires=NOW + 1)
    monkeypatch.setattr(guarded, "now", NOW + 2)
    refused(command, url, token, tmp_path)


@pytest.mark.parametrize("command", WRITES)
def test_reader_may_not_write(command: str, url: str, guarded: Guarded, tmp_path: Path):
    """Too small a scope is the same to a script."""
    refused(command, url, guarded.token("read"), tmp_path)
