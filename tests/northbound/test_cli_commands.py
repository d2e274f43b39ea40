"""Every command of ``tidegate``: its help, its examples, its place in docs/cli.md; and completion in a shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from northbound.cli import app
from northbound.cli_exit import MEANINGS, Exit
from tests.northbound.doubles import FakeOperations
from tests.northbound.test_cli import served

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
ROOT = typer.main.get_command(app)
runner = CliRunner()


def commands(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that name it, groups too."""
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, *words, name)


EVERY = {" ".join(words): command for words, command in commands(ROOT) if words}


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help(name: str):
    """With a sentence of what it does."""
    result = runner.invoke(app, [*name.split(), "--help"])
    assert result.exit_code == Exit.DONE
    assert result.output.startswith(f"Usage: tidegate {name}")
    assert EVERY[name].help


@pytest.mark.parametrize("name", EVERY)
def test_every_command_is_documented(name: str):
    """A command that the page does not name is found by nobody."""
    assert re.search(rf"`(tidegate )?{name}\b", PAGE), name


def examples(name: str) -> list[str]:
    return re.findall(r"(?m)^  tidegate (.*)$", EVERY[name].epilog or "")


@pytest.mark.parametrize("name", sorted(name for name in EVERY if name.split()[0] not in ("token", "audit")))
def test_every_command_shows_an_example(name: str):
    """Of itself."""
    assert any(line.startswith(name) for line in examples(name))


@pytest.mark.parametrize("line", sorted({line for name in EVERY for line in examples(name)}))
def test_examples_are_calls_that_are_right(line: str):
    """What a reader copies from the help is taken."""
    words = shlex.split(re.split(" [<>] ", line)[0])
    command: Any = ROOT
    parent, name = None, "tidegate"
    while True:
        context = command.make_context(name, words, parent=parent)
        rest = [*context._protected_args, *context.args]
        if not rest or not hasattr(command, "commands"):
            return
        name, command, words = command.resolve_command(context, rest)
        parent = context


def test_statuses_are_told_alike_everywhere():
    """The code, the help and the page have one table."""
    text = runner.invoke(app, ["--help"]).output
    for status, meaning in MEANINGS.items():
        assert f"{status.value}  {meaning}" in text
        assert f"| {status.value} | {meaning}" in PAGE


def test_wrong_address_is_told_without_its_password():
    """And is a wrong call."""
    result = runner.invoke(app, ["status", "--url", "http://anna:hush@127.0.0.1:1"])
    assert (result.exit_code, "hush" in result.output) == (Exit.MISUSED, False)
    assert runner.invoke(app, ["status", "--url", "127.0.0.1:8080"]).exit_code == Exit.MISUSED


def test_version():
    """One line."""
    assert re.fullmatch(r"tidegate \S+\n", runner.invoke(app, ["--version"]).output)


# Completion.


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(FakeOperations()) as address:
        yield address


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_the_shell_takes(shell: str):
    """No shell is told nonsense."""
    script = runner.invoke(app, ["completion", shell]).stdout
    assert "_TIDEGATE_COMPLETE" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def completed(tmp_path: Path, *words: str) -> list[str]:
    """What real bash offers for the last word."""
    command = tmp_path / "tidegate"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m northbound "$@"\n')
    command.chmod(0o755)
    script = tmp_path / "completion"
    script.write_text(runner.invoke(app, ["completion", "bash"]).stdout)
    asked = f"""
        source {script}
        COMP_WORDS=({shlex.join(("tidegate", *words))}); COMP_CWORD={len(words)}
        $(complete -p tidegate | sed 's/.*-F \\([^ ]*\\) .*/\\1/') tidegate
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["bash", "--norc", "-c", asked], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands(tmp_path: Path):
    """As one types."""
    assert completed(tmp_path, "gro") == ["groups"]
    assert completed(tmp_path, "groups", "un") == ["unpin"]


def test_bash_completes_what_the_planner_knows(tmp_path: Path, url: str):
    """Pools, users and groups of the planner that the options name."""
    assert completed(tmp_path, "pool", "--url", url, "an") == ["anna"]
    assert "global/west/g1" in completed(tmp_path, "explain", "--url", url, "global/west/")
    assert completed(tmp_path, "groups", "--url", url, "show", "g") == ["g1"]
    assert completed(tmp_path, "boost", "create", "--url", url, "user") == ["user:anna", "user:ben"]


def test_completion_without_a_planner_offers_nothing(tmp_path: Path):
    """A key press is no place for an error."""
    assert completed(tmp_path, "pool", "--url", "http://127.0.0.1:1", "an") == []
