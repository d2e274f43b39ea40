"""Starting and stopping Open vSwitch, in directories of the test's own."""

import os
import signal
import subprocess
import sys

import pytest

from mininet_scenarios import openvswitch, requirements

SCRIPT = """
import os, signal, sys
from mininet_scenarios.openvswitch import down, running_ovs
with running_ovs():
    print(down(), flush=True)
    if sys.argv[1:] == ["die"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1:] == ["wait"]:
        signal.pause()
"""


@pytest.fixture
def own_ovs(tmp_path, monkeypatch):
    """An Open vSwitch that is not the machine's: same programs, other directories."""
    if lacking := requirements.missing():
        if os.environ.get("CI"):
            pytest.fail("; ".join(lacking))
        pytest.skip("; ".join(lacking))
    for variable, name in (("SYSCONF", "etc"), ("DB", "db"), ("LOG", "log"), ("RUN", "run")):
        monkeypatch.setenv(f"OVS_{variable}DIR", str(tmp_path / name))
    monkeypatch.setenv("TIDEGATE_SCENARIO_RECORDS", str(tmp_path / "records"))
    (tmp_path / "etc").mkdir()
    yield tmp_path
    if openvswitch.down() != list(openvswitch.DAEMONS):
        subprocess.run([openvswitch.CONTROL, "stop"], capture_output=True, check=False)


def scenario(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def left(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_it_is_started_and_stopped_without_a_trace(own_ovs):
    """Where Open vSwitch did not run, nothing tells afterwards that it did."""
    process = scenario()
    assert process.communicate(timeout=60)[0] == "[]\n"
    assert openvswitch.down() == list(openvswitch.DAEMONS)
    assert left(own_ovs) == ["etc"]


def test_the_duty_to_stop_outlives_a_killed_run(own_ovs):
    """The next run finds it running and stops it, because a run now dead had started it."""
    killed = scenario("die")
    assert killed.communicate(timeout=60)[0] == "[]\n"
    assert openvswitch.down() == []
    scenario().communicate(timeout=60)
    assert left(own_ovs) == ["etc"]


def test_the_last_one_out_stops_it(own_ovs):
    """While another run needs Open vSwitch it stays; that one, ended by SIGTERM, stops it."""
    first = scenario("wait")
    assert first.stdout.readline() == "[]\n"
    scenario().communicate(timeout=60)
    assert openvswitch.down() == []
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert left(own_ovs) == ["etc"]


def test_one_that_runs_anyway_is_left_running(own_ovs):
    """What a scenario did not start it does not stop."""
    subprocess.run([openvswitch.CONTROL, "--system-id=random", "--no-record-hostname", "start"], check=True)
    before = left(own_ovs)
    scenario().communicate(timeout=60)
    assert openvswitch.down() == []
    assert left(own_ovs) == before
