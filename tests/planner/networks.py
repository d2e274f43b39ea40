"""Small networks to plan for: configurations, reports of speakers, samples of meters, executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from hypothesis import strategies as st

from planner.config import Config, parse
from planner.fleet import Fleet
from planner.loop import Planner
from planner.meter_ids import MeterIds
from planner.plan import Plan
from planner.policy import Policies
from planner.report import NetworkReport, SwitchFacts
from planner.structure import Structure, build
from telemetry.samples import CENSORED, GAP, EdgeSamples, MeterSamples, SampleBatch
from topology.groups import ResourceGroup
from topology.network import Host

#: Where everybody of ``small()`` is attached.
PLACES = {"anna": 0x11, "ben": 0x11, "carla": 0x12, "david": 0x21, "emma": 0x21}
START = 1_000_000.0
#: Classes 1 and 2; what is in neither is ``other``, number 0.
APPLICATIONS: dict[str, Any] = {
    "web": [{"protocol": "tcp", "ports": [80, 443]}],
    "names": [{"protocol": "udp", "ports": [53]}],
}


def mac_of(config: Config, user: str) -> str:
    """The first MAC of a user."""
    return config.users[user].macs[0]


def small(**blocks: Any) -> Config:
    """Two regions, three switches, five users; blocks replace what is there."""
    raw: dict[str, Any] = {
        "capacity_mbps": 60,
        "regions": {
            "west": {"dpids": [0x11, 0x12], "capacity_mbps": 36},
            "east": {"dpids": [0x21], "capacity_mbps": 36},
        },
        "users": {
            user: {"macs": [f"00:00:00:00:01:{number:02x}"], "guarantee_mbps": 1, "ceiling_mbps": 20}
            for number, user in enumerate(PLACES, 1)
        },
        "forecasting": {"step_s": 5, "horizons_s": [5, 15], "min_history_steps": 8},
        "grouping": {"enabled": False},
        "allocation": {"dead_band": 0.05},
    }
    return parse(raw | blocks)


def network(
    config: Config,
    places: Mapping[str, int] = PLACES,
    version: int = 1,
    max_meters: int = 1000,
    speaker: str = "speaker",
    n_tables: int = 12,
) -> NetworkReport:
    """A report with every configured switch connected and these users attached."""
    dpids = [dpid for region in config.regions.values() for dpid in region.dpids]
    hosts = {
        mac: Host(mac, frozenset(), dpid, 1 + port, START)
        for port, (user, dpid) in enumerate(places.items())
        for mac in [mac_of(config, user)]
    }
    facts = {dpid: SwitchFacts(n_tables, max_meters, "fake") for dpid in dpids}
    return NetworkReport(speaker, version, facts, hosts=hosts)


def structure_of(
    config: Config,
    report: NetworkReport | None = None,
    groups: Mapping[str, set[str]] | None = None,
    meter_ids: MeterIds | None = None,
    policies: Policies | None = None,
) -> Structure:
    """The structure for one report and these groups."""
    fleet = Fleet.of(config)
    fleet.report(report if report is not None else network(config), START)
    found = [
        ResourceGroup(name, frozenset(members), "operator", "active", START, "test")
        for name, members in (groups or {}).items()
    ]
    return build(
        config,
        policies or Policies(config),
        fleet.regions,
        fleet.attachments,
        found,
        meter_ids if meter_ids is not None else MeterIds(),
        fleet.max_meters,
        fleet.n_tables,
    )


Rate = Callable[[str, int], float]


def samples(
    plan: Plan,
    dpid: int,
    time: float,
    offered: Rate,
    lost: bool = False,
    censored: frozenset[str] = frozenset(),
    edges: EdgeSamples | None = None,
    endpoints: tuple[str, ...] = (),
) -> SampleBatch:
    """One poll: each meter says what its pool (by path and direction) offers; all gaps if ``lost``."""
    owners = plan.layouts[dpid].owners
    rate = np.array([offered(owner.pool, owner.direction) for owner in owners])
    flags = np.array([CENSORED if owner.pool in censored else 0 for owner in owners], np.uint8)
    meters = MeterSamples(
        np.array([owner.meter_id for owner in owners], np.uint32),
        np.full(len(owners), 5.0),
        np.full(len(owners), np.nan) if lost else rate,
        np.zeros(len(owners)),
        np.full(len(owners), GAP, np.uint8) if lost else flags,
    )
    return SampleBatch(dpid, time, meters, edges or EdgeSamples(), endpoints=endpoints)


class AtOnce(Executor):
    """Does the work while it is handed over."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future


class Never(Executor):
    """Takes work and never does it; notes what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(fn.__name__)
        return Future()


class Broken(Executor):
    """Has lost its workers."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise BrokenProcessPool("a worker died")


class Running:
    """A planner, a clock that the test moves, and hosts that offer what the test says (bit/s by user)."""

    def __init__(self, config: Config, executor: Executor | None = None, **more: Any) -> None:
        self.config = config
        self.planner = Planner(config, executor or Never(), **more)
        self.now = START
        self.offered: dict[str, float] = {}
        self.silent: set[int] = set()
        self.censored: frozenset[str] = frozenset()

    def connect(self, **more: Any) -> None:
        """The speaker reports the network."""
        self.planner.report(network(self.config, **more))

    def rate(self, path: str, direction: int) -> float:
        """What a pool offers; the meters of groups and regions are not asked here."""
        return self.offered.get(path.rpartition("/")[2], 0.0)

    def tick(self, seconds: float = 5.0, count: int = 1) -> Plan:
        """Let time pass, poll the switches and plan."""
        for _ in range(count):
            self.now += seconds
            plan = self.planner.snapshot.plan
            for dpid in plan.layouts:
                batch = samples(
                    plan, dpid, self.now, self.rate, lost=dpid in self.silent, censored=self.censored
                )
                self.planner.ingest(batch)
            plan = self.planner.tick(self.now)
        return plan

    def row(self, user: str) -> int:
        """Row of the pool whose path ends with this name."""
        return next(
            row for row, path in enumerate(self.planner.snapshot.pools.path) if path.split("/")[-1] == user
        )

    def grant(self, user: str) -> list[float]:
        """Upload and download grant of a pool, by the last part of its path."""
        grant: list[float] = self.planner.snapshot.pools.grant_bps[:, self.row(user)].tolist()
        return grant


@st.composite
def classes(draw: st.DrawFn, ceiling: int) -> dict[str, Any]:
    """The classes that a user of this ceiling names, of most users none."""
    named = draw(st.sampled_from([(), (), ("web",), ("web", "names"), ("other", "names")]))
    return {
        name: {
            "guarantee_mbps": (own := draw(st.integers(0, ceiling // 2))),
            "ceiling_mbps": draw(st.sampled_from([None, own + 1])),
            "weight": draw(st.sampled_from([0.3, 1, 2])),
        }
        for name in named
    }


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Config, NetworkReport, dict[str, set[str]]]:
    """Random regions, switches, users with any promises at any place, groups, and few or many meters and tables.

    Some users have application classes.
    """
    n_users = draw(st.integers(0, 14))
    rates = st.integers(0, 30)
    regions: dict[str, Any] = {}
    dpid = 1
    for number in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 3))
        regions[f"r{number}"] = {
            "dpids": list(range(dpid, dpid + count)),
            "capacity_mbps": {"up": draw(st.integers(1, 60)), "down": draw(st.integers(1, 60))},
            "weight": draw(st.sampled_from([0.5, 1, 3])),
        }
        dpid += count
    users: dict[str, Any] = {}
    for number in range(n_users):
        ceiling = draw(st.integers(1, 40))
        users[f"u{number}"] = {
            "macs": [f"00:00:00:00:0{device}:{number:02x}" for device in (1, 2)],
            "guarantee_mbps": draw(st.integers(0, ceiling)),
            "ceiling_mbps": draw(st.sampled_from([None, ceiling])),
            "weight": draw(st.sampled_from([0.3, 1, 2])),
            "applications": draw(classes(ceiling)),
        }
    config = parse(
        {
            "capacity_mbps": {"up": 1000, "down": 1000},
            "regions": regions,
            "users": users,
            "applications": APPLICATIONS,
            "group_defaults": {"guarantee_mbps": 0, "ceiling_mbps": draw(st.none() | st.integers(1, 30))},
            "grouping": {"enabled": False},
        }
    ).model_copy(update={"capacity_mbps": parse_capacity(draw(rates) + 1)})
    # One dpid more than regions have: a switch that only forwards.
    places = st.none() | st.integers(1, dpid)
    hosts = {}
    for user in users.values():
        for port, mac in enumerate(user["macs"]):
            at = draw(places)
            if at is not None:
                hosts[mac] = Host(mac, frozenset(), at, port + 1, START)
    facts = {
        at: SwitchFacts(draw(st.sampled_from([10, 12])), draw(st.sampled_from([0, 1, 3, 6, 9, 20, 1000])), "")
        for at in range(1, dpid + 1)
        if draw(st.integers(0, 9)) > 0
    }
    names = draw(st.lists(st.sampled_from(["a", "b", None]), min_size=n_users, max_size=n_users))
    groups: dict[str, set[str]] = {}
    for number, group in enumerate(names):
        if group is not None:
            groups.setdefault(group, set()).add(f"u{number}")
    return config, NetworkReport("s", 1, facts, hosts=hosts), groups


def parse_capacity(mbps: int) -> Any:
    """A capacity block for ``model_copy``, past the check that guarantees fit: places decide, not the file."""
    return parse({"capacity_mbps": mbps, "regions": {"r": {"dpids": [1], "capacity_mbps": 1}}}).capacity_mbps
