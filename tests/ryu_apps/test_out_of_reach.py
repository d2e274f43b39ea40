"""A pool on several switches, of which some are cut off: together they never enforce more than its grant."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.plan import Plan
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from ryu_apps.conversation import SwitchSilentError
from ryu_apps.order import DecreasesFirst
from tests.planner.networks import START, Rate, Running, samples, small
from tests.ryu_apps.benches import Bench, wanting
from tests.ryu_apps.channels import Simulation
from tests.ryu_apps.fake_switch import FakeSwitch, split_messages
from topology.network import Host

DPIDS = (0x11, 0x12, 0x21)
USERS = {"anna": (0x11,), "ben": (0x12,), "carla": (0x21,), "david": DPIDS}
#: The sum may be above the grant by this for each switch, where those out of reach hold all of it.
FLOOR_BPS = 1e5
#: Longer than any of these stories: what is promised holds until shares are given up.
FOR_EVER = 1e6


def group_of_three_switches(ceiling_mbps: int = 9) -> Running:
    """A planner of one group with a user on each of three switches, and one who is on all of them."""
    config = small(
        regions={"west": {"dpids": list(DPIDS), "capacity_mbps": 36}},
        users={
            user: {"macs": [f"00:00:00:00:0{n}:{dpid:02x}" for dpid in dpids], "ceiling_mbps": 20}
            for n, (user, dpids) in enumerate(USERS.items(), 1)
        },
        groups={"crew": {"members": list(USERS), "ceiling_mbps": ceiling_mbps}},
        enforcement={"alarm_after_s": FOR_EVER, "hold_lost_s": FOR_EVER},
        allocation={"dead_band": 0.05, "min_rate_mbps": FLOOR_BPS / 1e6},
        # Grants follow what is offered: nothing of this is about forecasts.
        forecasting={"step_s": 60, "horizons_s": [60, 120], "min_history_steps": 8},
    )
    return Running(config)


class Network:
    """The planner, what one OpenFlow process does with its plans, and three switches, in simulated time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = group_of_three_switches()
        self.simulation = Simulation()
        self.simulation.install(monkeypatch)
        self.order = DecreasesFirst(bound_s=math.inf)
        self.fakes = {dpid: FakeSwitch(dpid) for dpid in DPIDS}
        self.benches: dict[int, Bench] = {}
        self.outbox: list[NetworkReport | AppliedReport] = []
        self.plans: dict[int, Plan] = {}
        #: By version and pool, upload and download.
        self.grants: dict[int, dict[str, list[float]]] = {}
        self.plan: Plan | None = None
        #: By version, the oldest plan that a switch may still hold a share of.
        self.since: dict[int, int] = {}
        #: The newest plan that each switch was seen to hold in full.
        self.reached: dict[int, int] = {}
        self.faults: list[str] = []
        self.n_reports = 0
        self._load: dict[str, float] = dict.fromkeys(USERS, 4e6)
        self._shift = 0
        for dpid in DPIDS:
            self.connect(dpid)
        for _ in range(3):
            self.tick()
            self.follow()
            for dpid in DPIDS * 2:
                self.round(dpid)
        assert self.in_step()
        for fake in self.fakes.values():
            fake.watch = self.check

    # The planner.

    def deliver(self) -> None:
        """What the process has said reaches the planner."""
        for report in self.outbox:
            if isinstance(report, NetworkReport):
                self.running.planner.report(report)
            else:
                self.running.planner.applied(report)
        self.outbox.clear()

    def tick(self) -> None:
        """Those connected are polled; a new plan is made."""
        running = self.running
        running.now += 5
        plan = running.planner.snapshot.plan
        for dpid in self.benches.keys() & plan.layouts.keys():
            running.planner.ingest(samples(plan, dpid, running.now, self.offered(dpid)))
        self.deliver()
        made = running.planner.tick(running.now)
        self.plans[made.version] = made
        # What is held was granted before: back to what the switches had reached when the first went out of reach.
        oldest = min(self.reached.values(), default=0)
        self.since[made.version] = (
            min(oldest, self.since.get(made.version - 1, oldest)) if made.away else oldest
        )
        pools = running.planner.snapshot.pools
        self.grants[made.version] = dict(zip(pools.path, pools.grant_bps.T.tolist(), strict=True))

    def load(self, user: str, bps: float) -> None:
        """A user sends as much from now on."""
        self._load[user] = bps

    def shift(self) -> None:
        """The user on all switches goes on mostly through another."""
        self._shift += 1

    def offered(self, dpid: int) -> Rate:
        """What the meters of a switch are offered."""

        def rate(path: str, direction: int) -> float:
            user = path.rpartition("/")[2]
            # The one on all of them sends mostly through one.
            elsewhere = user == "david" and DPIDS.index(dpid) != self._shift % 3
            return self._load.get(user, 0.0) * (0.1 if elsewhere else 1.0)

        return rate

    # The process.

    def say_network(self) -> None:
        """Which switches are connected."""
        self.n_reports += 1
        facts = {dpid: SwitchFacts(12, 1000, "") for dpid in self.benches}
        config = self.running.config
        hosts = {
            mac: Host(mac, frozenset(), dpid, 1, START)
            for user, dpids in USERS.items()
            for mac, dpid in zip(config.users[user].macs, dpids, strict=True)
        }
        self.outbox.append(NetworkReport("speaker", self.n_reports, facts, hosts=hosts))

    def connect(self, dpid: int) -> None:
        """A connection begins; nothing is known of an earlier one."""
        if dpid not in self.benches:
            bench = Bench(self.fakes[dpid])
            bench.world.order = self.order
            bench.fake.datapath.send = bench.fake.receive
            self.benches[dpid] = bench.know()
            self.order.connected(dpid)
            self.say_network()

    def cut(self, dpid: int) -> None:
        """The connection ends."""
        if self.benches.pop(dpid, None):
            self.say_network()

    def follow(self) -> None:
        """The newest plan comes."""
        newest = self.running.planner.snapshot.plan
        if newest is not self.plan and newest.layouts:
            self.plan = newest
            self.order.begin(newest.version, newest.layouts, newest.away, self.simulation.now)

    def round(self, dpid: int, messages: int | None = None) -> None:
        """One round of a switch. With ``messages``: the channel loses all that comes after so many of the
        next buffers, one message in the middle of a buffer too, and is reset: so TCP loses messages.
        """
        bench = self.benches.get(dpid)
        if bench is None or self.plan is None or dpid not in self.plan.layouts:
            return
        fake, before = bench.fake, len(bench.world.reports)
        left = [messages]

        def send(raw: bytes) -> bool:
            if left[0] is None:
                return fake.receive(raw)
            taken = split_messages(raw)[: left[0]]
            left[0] -= len(taken)
            return fake.receive(b"".join(taken)) if taken else True

        fake.datapath.send = send
        with suppress(SwitchSilentError):
            bench.round(wanting(self.plan.meters[dpid].rates(), self.plan.version))
        if messages is not None:
            self.cut(dpid)
            return
        for said in bench.world.reports[before:]:
            stands = said.standing
            self.outbox.append(AppliedReport("s", dpid, stands.plan_version, stands.in_step, 0, 0))
            if stands.in_step and stands.plan_version is not None:
                self.reached[dpid] = stands.plan_version

    def wait(self, seconds: float) -> None:
        """Time passes; the process sees who is late."""
        self.simulation.now += seconds
        for dpid in self.order.late(self.simulation.now):
            self.outbox.append(AppliedReport("s", dpid, None, None, 0, 0, behind=True))

    # What is promised.

    def in_step(self) -> bool:
        """Whether every switch was seen to hold the newest plan."""
        assert self.plan is not None
        return all(self.reached.get(dpid) == self.plan.version for dpid in DPIDS)

    def installed(self) -> dict[tuple[str, int], int]:
        """What the switches enforce together, kbit/s by pool and direction."""
        total: dict[tuple[str, int], int] = defaultdict(int)
        for dpid, fake in self.fakes.items():
            plan = self.plan
            assert plan is not None
            for owner in plan.layouts[dpid].owners:
                if owner.meter_id in fake.meters:
                    total[owner.pool, owner.direction] += fake.meters[owner.meter_id].rate
        return total

    def check(self) -> None:
        """Together the switches enforce at most what the pool was granted since what the slowest holds was."""
        oldest = min(self.reached.values())
        since = min(at for version, at in self.since.items() if version >= oldest)
        standing = [version for version in self.grants if version >= min(oldest, since)]
        floor = FLOOR_BPS * (len(DPIDS) - 1) * any(self.plans[version].away for version in standing)
        for (pool, direction), kbps in self.installed().items():
            most = max(self.grants[version][pool][direction] for version in standing) + floor
            if kbps * 1e3 > most:
                self.faults.append(f"{pool} {direction}: {kbps} of {most / 1e3:.0f} kbit/s")


SWITCHES = st.sampled_from(DPIDS)
ACTS = st.one_of(
    st.tuples(st.just("tick")),
    st.tuples(st.just("follow")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("round"), SWITCHES),
    st.tuples(st.just("round"), SWITCHES, st.integers(0, 12)),
    st.tuples(st.just("cut"), SWITCHES),
    st.tuples(st.just("connect"), SWITCHES),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 4.0])),
    st.tuples(st.just("load"), st.sampled_from(sorted(USERS)), st.sampled_from([0.0, 1e6, 1e7])),
    st.tuples(st.just("shift")),
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(ACTS, min_size=20, max_size=60))
def test_a_pools_parts_fit_its_grant_whoever_is_cut_off(monkeypatch, acts):
    """Connections are lost and reset at any message, plans and reports come late, load moves: at every moment all
    meters of a pool together fit what it was granted. When all is whole again every switch follows the plan.
    """
    network = Network(monkeypatch)
    for name, *arguments in acts:
        getattr(network, name)(*arguments)
    assert not network.faults
    for dpid in DPIDS:
        network.connect(dpid)
    for _ in range(3):
        network.deliver()
        network.tick()
        network.follow()
        for dpid in DPIDS * 2:
            network.round(dpid)
    assert not network.faults
    assert network.in_step()
    assert not network.running.planner.away.dpids
