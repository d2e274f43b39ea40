"""The demo as a user runs it, in a process of its own, on ports of the test's."""

import os
import signal
import subprocess
import sys

import pytest

from mininet_scenarios.controller import ROOT
from tests.mininet_scenarios.test_network import NOTHING, traces

pytestmark = pytest.mark.e2e


@pytest.fixture
def run_id(scenario):
    """An id of the test's own, so that it does not meet somebody's demo."""
    return "d" + scenario.run.id[1:]


@pytest.fixture
def demo(scenario, run_id):
    """Starts the demo; what it prints can be read line by line."""
    started = []

    def start(duration_s=40):
        command = [sys.executable, "-m", "mininet_scenarios.demo", "--plain", "--duration", str(duration_s)]
        options = ["--config", str(scenario.config()), "--openflow-port", str(scenario.openflow_port)]
        options += ["--run-id", run_id]
        process = subprocess.Popen(
            command + options, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def read_until(process, word):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return
    pytest.fail(f"the demo must print {word!r}, got {''.join(lines)}")


@pytest.mark.timeout(240)
def test_it_ends_well_and_leaves_nothing(demo, run_id):
    """The meters equal the plan, the traffic flows, the summary is printed; then all is gone."""
    process = demo()
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert "meters read back equal the plan: yes" in output
    assert "traffic flowed: yes" in output
    assert "global/west" in output
    assert traces(run_id) == NOTHING


@pytest.mark.timeout(240)
@pytest.mark.parametrize("word", ["controller: ", "REST API: ", "network: ", "recurring pattern"])
def test_ctrl_c_leaves_nothing(demo, run_id, word):
    """At any stage, and also when pressed again while it clears up."""
    process = demo()
    read_until(process, word)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert traces(run_id) == NOTHING


@pytest.mark.timeout(240)
def test_it_runs_again_after_it_was_killed(demo, run_id):
    """The next demo clears up after one that had no chance to."""
    process = demo()
    read_until(process, "recurring pattern")
    process.kill()
    process.wait()
    again = demo()
    read_until(again, f"what the killed run {run_id} had left")
    read_until(again, "recurring pattern")
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 128 + signal.SIGTERM
    assert traces(run_id) == NOTHING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_is_told_so():
    """The error says why and what to type."""
    command = [sys.executable, "-m", "mininet_scenarios.demo"]
    reply = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "Permission denied" in reply.stderr or "No module named" in reply.stderr:
        pytest.skip("this checkout is readable by root only")
    assert reply.returncode == 2
    assert "must run as root" in reply.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--duration", "5"], "duration must be >= 40 s"),
        (["--config", "/nowhere"], "--config must be a file"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    """Before anything starts."""
    reply = subprocess.run(
        [sys.executable, "-m", "mininet_scenarios.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert reply.returncode == 2
    assert message in reply.stderr
