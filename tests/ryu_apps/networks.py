"""Random networks, as a ``Fabric`` discovers them, and plans for them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from planner.config import Config, parse
from planner.plan import Binding, Plan, SwitchLayout
from planner.report import SwitchFacts
from ryu_apps.fabric import Fabric
from ryu_apps.pipeline import FlowEntry, Pipeline, switch_flows
from topology.learning import Sighting
from topology.network import Port

Place = tuple[int, int]
BROADCAST = "ff:ff:ff:ff:ff:ff"
STRANGER = "0a:00:00:00:99:99"
CONFIG = {
    "capacity_mbps": 100,
    "regions": {"all": {"dpids": [1], "capacity_mbps": 100}},
    "applications": {
        "web": [{"protocol": "tcp", "ports": [80, "8080-8081"]}],
        "dns": [{"protocol": "udp", "ports": [53]}, {"protocol": "tcp", "ports": [53]}],
        "ping": [{"protocol": "icmp"}],
    },
}
START = 1000.0
SETTLED = START + 10.0


def config(**blocks: object) -> Config:
    """A small configuration, with these blocks in place of its own."""
    return parse({**CONFIG, **blocks})


def mac_of(number: int) -> str:
    """A unicast MAC by number."""
    return f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}"


@dataclass(frozen=True)
class Wiring:
    """Cables both ways, hosts by MAC, and edge ports without a host that was seen."""

    switches: tuple[int, ...]
    cables: Mapping[Place, Place]
    hosts: Mapping[str, Place]
    silent: tuple[Place, ...] = ()

    @property
    def edge_ports(self) -> frozenset[Place]:
        """Where hosts may be."""
        return frozenset({*self.hosts.values(), *self.silent})


@st.composite
def wirings(draw: st.DrawFn) -> Wiring:
    """Connected networks with loops, parallel cables, and several hosts on one port."""
    n = draw(st.integers(1, 5))
    pairs = [(draw(st.integers(1, i - 1)), i) for i in range(2, n + 1)]
    ends = st.tuples(st.integers(1, n), st.integers(1, n)).filter(lambda e: e[0] != e[1])
    pairs += draw(st.lists(ends, max_size=4)) if n > 1 else []
    used = dict.fromkeys(range(1, n + 1), 0)

    def place(dpid: int) -> Place:
        used[dpid] += 1
        return dpid, used[dpid]

    cables: dict[Place, Place] = {}
    for one, other in pairs:
        a, b = place(one), place(other)
        cables |= {a: b, b: a}
    edges = [place(dpid) for dpid in draw(st.lists(st.integers(1, n), min_size=2, max_size=6))]
    hosts = {mac_of(i): draw(st.sampled_from(edges)) for i in range(1, draw(st.integers(2, 6)) + 1)}
    silent = tuple(e for e in edges if e not in hosts.values())
    return Wiring(tuple(range(1, n + 1)), cables, hosts, silent)


def discovered(wiring: Wiring) -> Fabric:
    """The picture after discovery has found all of it."""
    fabric = Fabric.of(config())
    for dpid in wiring.switches:
        fabric.switch_up(dpid, SwitchFacts(254, 1000, ""), START)
    for dpid, port_no in {*wiring.cables, *wiring.edge_ports}:
        fabric.port(Port(dpid, port_no, f"p{port_no}", 0.0, True), START)
    for source, at in wiring.cables.items():
        fabric.heard(source, at, SETTLED)
    fabric.settle(SETTLED)
    fabric.seen([Sighting(mac, None, *place) for mac, place in wiring.hosts.items()], SETTLED)
    return fabric


@st.composite
def plans(draw: st.DrawFn, wiring: Wiring) -> Plan:
    """Plans in which each meter id says what it is: 1xx user, 2xx group, 3xx region, 4xx class; odd is upload."""
    layouts = {}
    for dpid in wiring.switches:
        local = sorted(mac for mac, place in wiring.hosts.items() if place[0] == dpid)
        bindings = []
        for i, mac in enumerate(local):
            if not draw(st.integers(0, 4)):
                continue
            group = 200 + 2 * draw(st.integers(0, 2))
            binding = Binding(f"u{i}", mac, wiring.hosts[mac][1], (101 + 2 * i, 102 + 2 * i))
            if draw(st.booleans()):
                binding = replace(binding, group_meter=(group + 1, group + 2))
            named = draw(st.sampled_from([(), (), (1,), (1, 3), (2, 3)]))
            apps = ((app, 401 + 10 * i + 2 * app, 402 + 10 * i + 2 * app) for app in (0, *named) if named)
            bindings.append(replace(binding, applications=tuple(apps)))
        region = draw(st.sampled_from([(0, 0), (301, 302)]))
        groups = sorted({binding.group_meter for binding in bindings} - {(0, 0)})
        strangers = [group for group in groups if draw(st.booleans())]
        others = tuple((group, (301 + group[0], 301 + group[1])) for group in strangers)
        layouts[dpid] = SwitchLayout(tuple(bindings), region_meter=region, other_regions=others)
    return Plan(1, START, layouts=layouts)


@st.composite
def planned_networks(draw: st.DrawFn) -> tuple[Wiring, Plan]:
    """A network and a plan for it."""
    wiring = draw(wirings())
    return wiring, draw(plans(wiring))


def entries_of(fabric: Fabric, plan: Plan | None, n_tables: int = 254) -> dict[int, list[FlowEntry]]:
    """What each switch shall hold where some users have classes."""
    pipeline = Pipeline.fitting(n_tables, applications=True)
    return {d: list(switch_flows(fabric.view(d, pipeline, plan, True))) for d in fabric.known}
