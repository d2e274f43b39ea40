"""The ``tidegate`` command, by Typer's runner and as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner

from northbound.api import create_app
from northbound.cli import app
from northbound.cli_exit import Exit
from northbound.server import listen
from planner.config import Config
from tests.northbound.doubles import NOW, TOKEN, FakeOperations

ROOT = Path(__file__).parents[2]
GOOD = "capacity_mbps: 10\nregions: {a: {dpids: [1], capacity_mbps: 10}}\n"
runner = CliRunner()


def tidegate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "northbound", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def operations() -> FakeOperations:
    return FakeOperations()


@contextmanager
def served(operations: FakeOperations, api: FastAPI | None = None) -> Iterator[str]:
    """A REST API, over the operations or a given one, on a free port, served by a thread; gives its address."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    api = api or create_app(operations, TOKEN, now=lambda: NOW)
    server = uvicorn.Server(uvicorn.Config(api, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def url(operations: FakeOperations) -> Iterator[str]:
    with served(operations) as address:
        yield address


def test_check_of_a_good_file(tmp_path: Path):
    """One word says that all is well."""
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    done = tidegate("check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: ok\n", "")


@pytest.mark.parametrize("arguments", [["nonsense"], ["check"], ["run"], ["pools", "--level", "planet"], []])
def test_wrong_call_is_status_2(arguments: list[str]):
    """A wrong call is told from a failure."""
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2


READS = ["summary", "status", "groups", "pools", "plan", "archetypes", "events"]


@pytest.mark.parametrize("command", READS)
def test_read_draws_a_table_without_colours(command: str, url: str):
    """What goes into a pipe has no escape sequences and is not cut."""
    done = tidegate(command, "--url", url, TERM="xterm-256color")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert "│" in done.stdout


@pytest.mark.parametrize("command", READS)
def test_json_is_what_rest_answers(command: str, url: str):
    """Scripts get the answer itself."""
    result = runner.invoke(app, [command, "--url", url, "--json"])
    assert result.exit_code == 0
    assert isinstance(json.loads(result.stdout), dict)


def test_level_is_passed_on(url: str):
    """The filter is the planner's."""
    result = runner.invoke(app, ["pools", "--url", url, "--level", "region", "--json"])
    assert [pool["path"] for pool in json.loads(result.stdout)["pools"]] == ["global/west"]


@pytest.mark.parametrize("command", READS)
def test_no_planner_is_one_line(command: str):
    """Nobody there is told with the address, and has a status of its own."""
    with listen("127.0.0.1", 0) as closed:
        port = closed.getsockname()[1]
    result = runner.invoke(app, [command, "--url", f"http://127.0.0.1:{port}"])
    assert result.exit_code == Exit.UNREACHABLE
    assert result.stderr.startswith(f"tidegate: no planner answers at http://127.0.0.1:{port}: ")
    assert result.stderr.count("\n") == 1


def test_address_comes_from_the_file(tmp_path: Path, url: str):
    """With ``--config`` nobody needs to know the port."""
    file = tmp_path / "c.yaml"
    file.write_text(GOOD + f"northbound: {{port: {url.rsplit(':', 1)[1]}}}\n")
    assert runner.invoke(app, ["groups", "--config", str(file)]).exit_code == 0
    file.write_text("x: 1")
    result = runner.invoke(app, ["groups", "--config", str(file)])
    assert result.exit_code == 2
    assert f"{file}: x is not a known key, got 1\n" in result.stderr


def test_run_with_a_bad_file_starts_nothing(tmp_path: Path):
    """Exit status 2 and the faults, before any port is taken."""
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD + "x: 1\n")
    done = tidegate("run", "--config", str(file))
    assert done.returncode == 2
    assert done.stderr == f"{file}: x is not a known key, got 1\n"


def test_run_on_a_taken_port_is_one_line(tmp_path: Path):
    """The message names address and port, and no traceback hides it."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "c.yaml"
        file.write_text(GOOD + f"northbound: {{port: {port}, token_file: {tmp_path}/token}}\n")
        done = tidegate("run", "--config", str(file))
    assert done.returncode == 1
    assert done.stderr == f"tidegate: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[..., Any]) -> None:
    module = types.ModuleType(name)
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


def test_replay_sums_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, operations: FakeOperations):
    """A replay ends in the same summary as a running planner's."""
    calls: list[tuple[Config, Path | None]] = []

    def run(config: Config, trace: Path | None, progress: Callable[[float], None]) -> dict[str, Any]:
        calls.append((config, trace))
        progress(0.5)
        progress(1.0)
        return operations.summary()

    fake_module(monkeypatch, "planner.replay", run)
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    result = runner.invoke(app, ["replay", "trace.bin", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert "static caps" in result.stdout
    assert calls[0][1] == Path("trace.bin")
    result = runner.invoke(app, ["replay", "--config", str(file), "--json"])
    assert json.loads(result.stdout)["pools"][0]["p50_bps"] is None
    assert calls[1][1] is None


def test_replay_of_a_broken_trace_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What the planner says of the trace is what the operator reads."""

    def run(*_arguments: object) -> dict[str, Any]:
        raise ValueError("trace.bin must be a trace, got 3 bytes")

    fake_module(monkeypatch, "planner.replay", run)
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    result = runner.invoke(app, ["replay", "--config", str(file)])
    assert (result.exit_code, result.stderr) == (1, "tidegate: trace.bin must be a trace, got 3 bytes\n")


DEMO = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("tidied", flush=True), sys.exit(3)))
print(*sys.argv[1:], flush=True)
if "wait" in sys.argv: time.sleep(60)
sys.exit(5)
"""


@pytest.fixture
def demo_path(tmp_path: Path) -> str:
    """A Python path on which ``mininet_scenarios.demo`` is a stand-in."""
    package = tmp_path / "mininet_scenarios"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "demo.py").write_text(DEMO)
    return str(tmp_path)


def start_demo(demo_path: str, *arguments: str) -> subprocess.Popen[str]:
    # The stand-in's directory is the working directory: `python -m` looks there first.
    return subprocess.Popen(
        [sys.executable, "-m", "northbound", "demo", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=demo_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def test_demo_hands_on_arguments_and_status(demo_path: str):
    """The demo is a process of its own, and its word is the last."""
    with start_demo(demo_path, "--quick", "x") as process:
        output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == ("--quick x\n", 5)


def test_demo_may_tidy_up_after_ctrl_c(demo_path: str):
    """Ctrl-C reaches the demo, and the command waits until it has tidied up."""
    with start_demo(demo_path, "wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "wait\n"
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == ("tidied\n", 3)
