"""Networks on the machine's Open vSwitch, with nothing left afterwards."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mininet_scenarios import leftovers
from mininet_scenarios.network import HostSpec, NetworkError, NetworkSpec, build, demo_network, host_spec
from mininet_scenarios.schedule import Flow
from mininet_scenarios.traffic import Traffic, read_result
from tests.e2e.conftest import wait_until

#: Without a controller the switches learn by themselves, so no loops.
SMALL = NetworkSpec(
    switches={"s1": 0xA1, "s2": 0xA2},
    links=(("s1", "s2"),),
    hosts={"h1": host_spec("s1", 1, 1), "h2": host_spec("s2", 2, 1), "h3": host_spec("s2", 2, 2)},
    fail_mode="standalone",
)

SCRIPT = """
import os, signal, sys
from mininet_scenarios import leftovers
from mininet_scenarios.network import build
from tests.mininet_scenarios.test_network import SMALL
at = sys.argv[1]
with leftovers.run() as run:
    print(run.id, flush=True)
    if at == "early":
        print("up", flush=True)
    with build(SMALL, None, run) as net:
        net.execute("h1", ["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        print("up", flush=True)
        signal.pause()
"""


def traces(run_id):
    """Everything of a run that the machine still shows."""
    return {
        "processes": leftovers.marked(run_id),
        "bridges": [name for name in leftovers.bridges_present() or () if name.startswith(f"{run_id}-")],
        "links": [p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(f"{run_id}-")],
        "files": [str(p) for p in Path("/tmp").glob(f"tidegate-{run_id}-*")],
        "records": [str(p) for p in leftovers.records().glob(f"{run_id}*")],
    }


NOTHING: dict[str, list[str]] = {"processes": [], "bridges": [], "links": [], "files": [], "records": []}


@pytest.fixture
def net(scenario):
    return scenario.build(SMALL, controlled=False)


def reachable(net, source, target, version=4):
    return wait_until(lambda: net.reaches(source, target, version), 15, f"{source} reaches {target}")


def test_hosts_reach_one_another(net):
    """IPv4 and IPv6 pass between hosts of different switches."""
    assert reachable(net, "h1", "h2")
    assert reachable(net, "h3", "h1", version=6)


def test_a_link_is_cut_and_restored(net):
    """Both ends lose the carrier, and get it back."""
    reachable(net, "h1", "h2")
    net.set_link("s1", "s2", up=False)
    assert not net.reaches("h1", "h2")
    net.set_link("s1", "s2", up=True)
    assert reachable(net, "h1", "h2")


def test_a_link_is_removed_and_added(net):
    """A link that is added again has new ports at both ends."""
    before = net.port_no("s1", "s2")
    net.remove_link("s1", "s2")
    assert not net.reaches("h1", "h2")
    net.add_link("s1", "s2")
    assert reachable(net, "h1", "h2")
    assert net.port_no("s1", "s2") != before


def test_a_switch_is_deleted_and_started_again(net):
    """It comes back with its ports and its datapath id."""
    net.delete_switch("s2")
    assert not net.reaches("h1", "h2")
    net.start_switch("s2")
    assert reachable(net, "h1", "h2")
    read = subprocess.run(
        ["ovs-vsctl", "get", "Bridge", net.bridge("s2"), "datapath_id"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stdout.strip() == '"00000000000000a2"'


def test_a_host_changes_its_address_and_its_switch(net):
    """Afterwards it is reached at the new address on the new switch."""
    net.set_host("h2", HostSpec("s1", "00:00:00:00:02:01", "10.0.9.9/16", "fd00:9::9/16"))
    assert net.address("h2") == "10.0.9.9"
    assert reachable(net, "h3", "h2")
    assert reachable(net, "h3", "h2", version=6)


def test_ports_of_switches_have_no_address(net):
    """The machine's own IPv6 does not speak on the switches' ports, as if it were a host."""
    for name in leftovers.links_of(net.run.bridges):
        assert (
            "inet6"
            not in subprocess.run(["ip", "a", "s", name], capture_output=True, text=True, check=True).stdout
        )


def test_traffic_arrives_as_sent(net, tmp_path):
    """TCP and UDP, over both IP versions, are measured by their receivers; nothing runs afterwards."""
    flows = [
        Flow("a", "h1", "h2", "udp", 5202, 2e6, 0.0, 2.0),
        Flow("a", "h2", "h3", "tcp", 5201, 2e6, 0.2, 2.0, ip_version=6),
        # Comes while the server is busy with the first, so it has to try again.
        Flow("b", "h3", "h2", "udp", 5202, 2e6, 1.0, 4.0),
    ]
    traffic = Traffic(net, flows, tmp_path)
    traffic.start_servers("h3")
    started = time.monotonic()

    def done():
        traffic.step(time.monotonic() - started)
        return traffic.done

    wait_until(done, 30, "the traffic ends")
    traffic.stop()
    assert [m.error for m in traffic.measured] == ["", "", ""]
    for measured in traffic.measured:
        assert measured.received_bps == pytest.approx(2e6, rel=0.25)
    assert list(tmp_path.iterdir()) == []
    commands = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in leftovers.marked(net.run.id)]
    assert set(commands) == {"bash"}


def test_a_result_that_is_none_is_not_zero():
    """Where iperf3 gives no result, the rate is unknown and the reason is kept."""
    flow = Flow("a", "h1", "h2", "udp", 5202, 2e6, 0.0, 2.0)
    for output, reason in ((b"", "no result"), (b'{"error": "unable to connect"}', "unable to connect")):
        measured = read_result(flow, output)
        assert not measured.received_bps >= 0
        assert reason in measured.error


def test_two_runs_leave_nothing(ovs):
    """A network is gone when its block ends, so the next finds the machine as the first did."""
    for _ in range(2):
        with leftovers.run() as run, build(demo_like(), None, run):
            assert len(traces(run.id)["processes"]) == 17
        assert traces(run.id) == NOTHING


def demo_like():
    star = tuple(link for link in demo_network().links if "core" in link)
    return replace(demo_network(), links=star, fail_mode="standalone")


@pytest.mark.parametrize("at", ["early", "late"])
@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 3])
def test_an_interrupted_run_leaves_nothing(ovs, signals, at):
    """Ctrl-C, SIGTERM and an impatient second and third Ctrl-C, while building or later."""
    process, run_id = other_process(at)
    for signum in signals:
        process.send_signal(signum)
        time.sleep(0.02)
    assert process.wait(30) != 0
    assert traces(run_id) == NOTHING


def test_a_record_cut_short_goes_with_its_run():
    """A signal while a record is written leaves a draft; the run's end takes it away."""
    with leftovers.run() as run:
        (leftovers.records() / f"{run.id}.draft").touch()
    assert traces(run.id)["records"] == []


def test_the_next_run_sweeps_after_a_killed_one(ovs):
    """After kill -9 bridges and hosts stay, until a sweep; another's run is not swept."""
    process, run_id = other_process("late")
    with leftovers.run() as living:
        process.kill()
        process.wait()
        left = traces(run_id)
        assert left["processes"]
        assert len(left["bridges"]) == 2
        assert run_id in leftovers.sweep()
        assert traces(run_id) == NOTHING
        assert traces(living.id)["records"]


def other_process(at):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, at], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline() == "up\n"
    return process, run_id


def test_one_id_has_one_live_run(ovs):
    """A second demo says that the first is under way, and leaves it alone."""
    with leftovers.run("tonce") as run:
        with pytest.raises(leftovers.AlreadyRunning, match=f"process {os.getpid()}"), leftovers.run("tonce"):
            pass
        assert traces(run.id)["records"]


def test_a_bridge_of_that_name_is_left_alone(ovs):
    """A bridge that the run did not make stops the build instead of being replaced."""
    with leftovers.run() as run:
        name = f"{run.id}-s1"
        subprocess.run(
            ["ovs-vsctl", "add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev"], check=True
        )
        try:
            with pytest.raises(NetworkError, match="names must be free"), build(SMALL, None, run):
                pass
            assert name in (leftovers.bridges_present() or ())
        finally:
            subprocess.run(["ovs-vsctl", "--if-exists", "del-br", name], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"links": (("s1", "s9"),)}, "links must join two of the switches, got s1-s9"),
        ({"hosts": {"h": host_spec("s9", 1, 1)}}, r"hosts\.h\.switch must be one of the switches, got 's9'"),
    ],
)
def test_wrong_descriptions_are_refused(change, message):
    """The error names the entry, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_the_demo_numbers_its_hosts_by_edge():
    """Host j of edge i has the addresses that config/demo.yaml writes for the user of its name."""
    hosts = demo_network().hosts
    assert len(hosts) == 12
    assert hosts["felix"] == HostSpec("edge2", "00:00:00:00:02:03", "10.0.2.3/16", "fd00:2::3/16")
