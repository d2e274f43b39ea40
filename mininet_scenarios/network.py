"""Networks of Mininet hosts and userspace Open vSwitch bridges, from a description.

Mininet makes the nodes and the links. Taking down is done by name and process
mark (``leftovers``) and not by Mininet, whose shells cannot be used any more
once a signal came in the middle of a command.
"""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mininet_scenarios import leftovers
from mininet_scenarios.interrupts import raising, shielded
from mininet_scenarios.leftovers import MARK, Run

OPENFLOW_PORT = 6653
#: The kernel's limit on interface names.
NAME_LENGTH = 15
#: Every host has one interface, of this name in its own namespace.
HOST_INTERFACE = "eth0"


class NetworkError(Exception):
    """The network cannot be built, or a command in it failed."""


@dataclass(frozen=True)
class HostSpec:
    """A host: where it attaches, and its addresses with prefix lengths (``10.0.1.1/16``)."""

    switch: str
    mac: str
    ipv4: str
    ipv6: str


@dataclass(frozen=True)
class NetworkSpec:
    """Switches by name with their datapath ids, links between them, hosts by name."""

    switches: Mapping[str, int]
    links: tuple[tuple[str, str], ...]
    hosts: Mapping[str, HostSpec]
    #: What a switch does without a controller: ``standalone`` learns as a plain
    #: switch does (no loops then), ``secure`` keeps the tables that it has.
    fail_mode: Literal["secure", "standalone"] = "secure"

    def __post_init__(self) -> None:
        for a, b in self.links:
            if a == b or a not in self.switches or b not in self.switches:
                raise ValueError(f"links must join two of the switches, got {a}-{b}")
        for name, host in self.hosts.items():
            if host.switch not in self.switches:
                raise ValueError(f"hosts.{name}.switch must be one of the switches, got {host.switch!r}")


def host_spec(switch: str, i: int, j: int) -> HostSpec:
    """Host ``j`` of edge switch ``i`` by the demo's numbering."""
    return HostSpec(switch, f"00:00:00:00:{i:02x}:{j:02x}", f"10.0.{i}.{j}/16", f"fd00:{i:x}::{j:x}/16")


#: The demo's users by edge switch, in the order of their addresses.
DEMO_USERS = (
    ("anna", "ben", "carla"),
    ("david", "emma", "felix"),
    ("gina", "hugo", "ines"),
    ("jonas", "kira", "names"),
)


def demo_network() -> NetworkSpec:
    """The network of ``config/demo.yaml``: a core, two regions of two edges each, and loops.

    The cross links give each region a way round when a link to the core fails.
    """
    edges = ("edge1", "edge2", "edge3", "edge4")
    return NetworkSpec(
        switches={"core": 0x1, "edge1": 0x11, "edge2": 0x12, "edge3": 0x21, "edge4": 0x22},
        links=(*(("core", edge) for edge in edges), ("edge1", "edge2"), ("edge3", "edge4")),
        hosts={
            user: host_spec(edge, i, j)
            for i, (edge, users) in enumerate(zip(edges, DEMO_USERS, strict=True), start=1)
            for j, user in enumerate(users, start=1)
        },
    )


class Net:
    """A running network. Made by ``build``."""

    def __init__(self, run: Run, spec: NetworkSpec, controller_port: int | None) -> None:
        self.run = leftovers.with_bridges(run, tuple(f"{run.id}-{name}" for name in spec.switches))
        self.spec = spec
        self._links: dict[frozenset[str], Any] = {}
        self._attachments: dict[str, Any] = {}
        self._refuse_taken_names()
        self._mininet = _empty_mininet(controller_port)
        self._nodes: dict[str, Any] = {}

    def bridge(self, switch: str) -> str:
        """Name of a switch's bridge, for ``ovs-ofctl`` and ``ovs-vsctl``."""
        return f"{self.run.id}-{switch}"

    def host_pid(self, host: str) -> int:
        """A process in the host's namespace."""
        return int(self._nodes[host].pid)

    def address(self, host: str, version: int = 4) -> str:
        """The host's IPv4 or IPv6 address."""
        spec = self.spec.hosts[host]
        return (spec.ipv4 if version == 4 else spec.ipv6).partition("/")[0]

    def port_no(self, switch: str, peer: str) -> int:
        """The switch's OpenFlow port towards a host or another switch."""
        return int(self._port(switch, peer)[1])

    def inside(self, host: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in a host."""
        return ["mnexec", "-a", str(self.host_pid(host)), *command]

    def execute(
        self, host: str, command: Sequence[str], timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a host until it ends; its exit status is the caller's to judge."""
        return subprocess.run(
            self.inside(host, command),
            env=self.run.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def reaches(self, source: str, target: str, version: int = 4, timeout_s: int = 1) -> bool:
        """Whether a ping is answered."""
        command = ["ping", f"-{version}", "-n", "-c1", f"-W{timeout_s}", self.address(target, version)]
        return self.execute(source, command).returncode == 0

    def add_link(self, a: str, b: str) -> None:
        """Join two switches."""
        link = self._make_link(a, b)
        for interface in (link.intf1, link.intf2):
            self._plug(interface)

    def remove_link(self, a: str, b: str) -> None:
        """Unplug a link between two switches at both ends."""
        self._remove(self._links.pop(frozenset((a, b))))

    def set_link(self, a: str, b: str, up: bool) -> None:
        """Cut a link between two switches, or restore it; both ends lose their carrier."""
        link = self._links[frozenset((a, b))]
        for interface in (link.intf1, link.intf2):
            _command(["ip", "link", "set", "dev", interface.name, "up" if up else "down"])

    def delete_switch(self, switch: str) -> None:
        """Remove a bridge with all its tables and meters."""
        _command(["ovs-vsctl", "--timeout=20", "--if-exists", "del-br", self.bridge(switch)])

    def start_switch(self, switch: str) -> None:
        """Make a switch's bridge, empty, with the ports it had and the same datapath id."""
        self._nodes[switch].start(self._mininet.controllers)
        if self.bridge(switch) not in (leftovers.bridges_present() or ()):
            raise NetworkError(f"bridge {self.bridge(switch)} must be there after ovs-vsctl add-br, got none")

    def set_host(self, host: str, changed: HostSpec) -> None:
        """Give a host other addresses, or move it to another switch."""
        before = self.spec.hosts[host]
        self.spec = replace(self.spec, hosts={**self.spec.hosts, host: changed})
        if changed.switch != before.switch:
            self._remove(self._attachments.pop(host))
            self._plug(self._attach(host).intf1)
        self._configure_host(host)

    def start(self) -> None:
        """Make everything that the description says."""
        with _marked_environment(self.run):
            for name, dpid in self.spec.switches.items():
                self._nodes[name] = self._mininet.addSwitch(
                    self.bridge(name),
                    dpid=f"{dpid:016x}",
                    datapath="user",
                    protocols="OpenFlow13",
                    failMode=self.spec.fail_mode,
                )
            for name in self.spec.hosts:
                self._nodes[name] = self._mininet.addHost(f"{self.run.id}-{name}", ip=None)
        for a, b in self.spec.links:
            self._make_link(a, b)
        for name in self.spec.hosts:
            self._attach(name)
            self._configure_host(name)
        for name in self.spec.switches:
            self.start_switch(name)

    def close(self) -> None:
        """Remove the network; what others made stays. May be repeated."""
        leftovers.kill_marked(self.run.id)
        leftovers.delete_bridges(self.run.bridges)
        for name in leftovers.links_of(self.run.bridges):
            subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
        for node in self._mininet.values():
            if getattr(node, "shell", None):
                # Reaps the shell, which is dead by now, and closes its terminal.
                node.cleanup()

    def _refuse_taken_names(self) -> None:
        """Mininet would silently delete another's bridge of the same name."""
        taken = sorted(set(leftovers.bridges_present() or ()) & set(self.run.bridges))
        taken += leftovers.links_of(self.run.bridges)
        if taken:
            raise NetworkError(f"names must be free, got {', '.join(taken)} which this run did not make")

    def _make_link(self, a: str, b: str) -> Any:
        link = self._link(a, b, None)
        self._links[frozenset((a, b))] = link
        return link

    def _attach(self, host: str) -> Any:
        self._attachments[host] = self._link(self.spec.hosts[host].switch, host, HOST_INTERFACE)
        return self._attachments[host]

    def _link(self, switch: str, peer: str, peer_interface: str | None) -> Any:
        """A veth pair whose ends on switches are named BRIDGE-PORT."""
        numbers = [self._nodes[switch].newPort(), self._nodes[peer].newPort()]
        names = [f"{self.bridge(switch)}-{numbers[0]}", peer_interface or f"{self.bridge(peer)}-{numbers[1]}"]
        for name in names:
            if len(name) > NAME_LENGTH:
                raise NetworkError(
                    f"interface names must have at most {NAME_LENGTH} characters, got {name!r}"
                )
        link = self._mininet.addLink(
            self._nodes[switch],
            self._nodes[peer],
            port1=numbers[0],
            port2=numbers[1],
            intfName1=names[0],
            intfName2=names[1],
        )
        for name in names if peer_interface is None else names[:1]:
            # The port's own router solicitations would look like a host's.
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        return link

    def _plug(self, interface: Any) -> None:
        """Give a running bridge one more port."""
        node, name = interface.node, interface.name
        number = node.ports[interface]
        command = ["ovs-vsctl", "--timeout=20", "add-port", node.name, name]
        _command([*command, "--", "set", "Interface", name, f"ofport_request={number}"])
        _command(["ip", "link", "set", "dev", name, "up"])

    def _remove(self, link: Any) -> None:
        # One end goes with the other, so only the first is deleted.
        for interface in (link.intf1, link.intf2):
            node = interface.node
            if interface.name != HOST_INTERFACE:
                _command(["ovs-vsctl", "--timeout=20", "--if-exists", "del-port", node.name, interface.name])
            node.intfs.pop(node.ports.pop(interface), None)
            node.nameToIntf.pop(interface.name, None)
        _command(["ip", "link", "del", link.intf1.name])
        self._mininet.links.remove(link)

    def _port(self, switch: str, peer: str) -> tuple[str, int]:
        link = self._attachments.get(peer) or self._links[frozenset((switch, peer))]
        node = self._nodes[switch]
        interface = link.intf1 if link.intf1.node is node else link.intf2
        return interface.name, node.ports[interface]

    def _configure_host(self, host: str) -> None:
        spec, name = self.spec.hosts[host], HOST_INTERFACE
        script = "\n".join(
            (
                "set -e",
                "ip link set lo up",
                f"ip link set dev {name} down",
                f"ip address flush dev {name}",
                f"ip link set dev {name} address {spec.mac}",
                f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_ra",
                f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_dad",
                f"echo 0 >/proc/sys/net/ipv6/conf/{name}/router_solicitations",
                f"ip link set dev {name} up",
                f"ip address add {spec.ipv4} dev {name}",
                f"ip address add {spec.ipv6} dev {name} nodad",
                # The userspace datapath forwards frames as they are: without
                # this TCP's checksums would never be filled in.
                f"ethtool -K {name} tx off >/dev/null",
            )
        )
        reply = self.execute(host, ["sh", "-c", script])
        if reply.returncode:
            raise NetworkError(f"host {host} must take its addresses, got {reply.stderr.strip()}")


@contextmanager
def build(
    spec: NetworkSpec, controller_port: int | None = OPENFLOW_PORT, run: Run | None = None
) -> Iterator[Net]:
    """The network, up, with its switches pointed at a controller on this machine.

    Taken down when the block ends, also after a failure, Ctrl-C or SIGTERM.

    Parameters
    ----------
    controller_port : None: the switches have no controller.
    run : whose network it is; absent: a run of its own.

    Raises
    ------
    NetworkError : if it cannot be built (not root, names too long or taken).
    """
    if os.geteuid() != 0:
        raise NetworkError(f"networks must be built as root, got user id {os.geteuid()}")
    if run is None:
        with leftovers.run() as own, build(spec, controller_port, own) as net:
            yield net
        return
    with raising():
        net = Net(run, spec, controller_port)
        try:
            net.start()
            yield net
        finally:
            with shielded():
                net.close()


def _empty_mininet(controller_port: int | None) -> Any:
    """A Mininet object that knows the controller and nothing else."""
    try:
        library, node = importlib.import_module("mininet.net"), importlib.import_module("mininet.node")
    except ImportError as error:
        raise NetworkError(f"Mininet must be importable (make setup), got {error}") from None
    # Its start-up would raise kernel limits that stay raised after the run ...
    library.Mininet.inited = True
    importlib.import_module("mininet.log").setLogLevel("error")
    # ... and would end the process where ovs-vsctl takes longer than a second.
    node.OVSSwitch.isSetup, node.OVSSwitch.isOldOVS = True, staticmethod(lambda: False)
    # It would ask by telnet, where that is installed, and take the controller's hello for text.
    node.RemoteController.checkListening = lambda self: None
    mininet = library.Mininet(topo=None, controller=None, build=False, switch=node.OVSSwitch)
    if controller_port is not None:
        mininet.addController("controller", node.RemoteController, ip="127.0.0.1", port=controller_port)
    return mininet


@contextmanager
def _marked_environment(run: Run) -> Iterator[None]:
    """Shells that Mininet starts meanwhile are marked as the run's."""
    before = os.environ.get(MARK)
    os.environ[MARK] = run.id
    try:
        yield
    finally:
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before


def _command(arguments: Sequence[str]) -> None:
    reply = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    if reply.returncode:
        raise NetworkError(f"{' '.join(arguments)} must succeed, got {reply.stderr.strip()}")
