"""One application-side switch wired to one that keeps state, driven a round at a time."""

from dataclasses import dataclass, field

from ryu_apps import framework
from ryu_apps.accounting import PairNumbers
from ryu_apps.cookies import Kind
from ryu_apps.enforcer import Standing, Wanted
from ryu_apps.flows import wire_entry
from ryu_apps.order import DecreasesFirst
from ryu_apps.pipeline import FlowEntry
from ryu_apps.switch import Applied, Switch
from telemetry.samples import SampleBatch
from tests.ryu_apps.fake_switch import FakeSwitch
from tests.ryu_apps.networks import config, mac_of
from topology.learning import Sighting

TIMEOUT_S = 0.02
POLLING = {"interval_s": 0.05, "jitter": 0, "timeout_s": TIMEOUT_S}
CONFIG = config(polling=POLLING)


@dataclass
class World:
    """The rest of the process: what it wants, and what it was told."""

    want: Wanted | None = None
    hosts: dict[int, tuple[str, int]] = field(default_factory=dict)
    batches: list[SampleBatch] = field(default_factory=list)
    alive: list[Sighting] = field(default_factory=list)
    reports: list[Applied] = field(default_factory=list)
    recoveries: list[tuple[list[Sighting], bool]] = field(default_factory=list)
    changed_facts: int = 0
    order: DecreasesFirst = field(default_factory=DecreasesFirst)

    @property
    def standing(self) -> Standing:
        """How the switch stood last."""
        return self.reports[-1].standing

    def wanted(self, dpid: int) -> Wanted | None:
        return self.want

    def lowered(self, dpid: int, plan_version: int | None) -> bool:
        self.order.lowered(dpid, plan_version)
        return self.order.may_raise(plan_version)

    def host_of_series(self, dpid: int, series: int) -> tuple[str, int] | None:
        return self.hosts.get(series)

    def sampled(self, batch: SampleBatch, alive: list[Sighting]) -> None:
        self.batches.append(batch)
        self.alive = alive

    def applied(self, applied: Applied) -> None:
        self.reports.append(applied)

    def facts_changed(self, dpid: int) -> None:
        self.changed_facts += 1

    def recovered(self, dpid: int, hosts: list[Sighting], fresh: bool) -> None:
        self.recoveries.append((hosts, fresh))


class Bench:
    """One application-side switch wired to one fake, driven a round at a time."""

    def __init__(self, fake: FakeSwitch | None = None, pairs: PairNumbers | None = None, settings=CONFIG):
        self.fake = fake or FakeSwitch(1)
        self.world = World()
        self.pairs = pairs or PairNumbers()
        self.switch = Switch(self.fake.datapath, settings, self.world, self.pairs, clock=self.fake.clock)
        self.fake.deliver = self.hear

    def hear(self, message) -> None:
        """What the application's event handlers do."""
        if isinstance(message, framework.ofproto_v1_3_parser.OFPMultipartReply):
            self.switch.on_stats(message)
        elif isinstance(message, framework.ofproto_v1_3_parser.OFPErrorMsg):
            self.switch.on_error(message)
        else:
            self.switch.on_reply(message.xid, message)

    def know(self):
        self.switch._get_to_know()
        return self

    def round(self, want: Wanted | None = None) -> None:
        """A poll, and what follows from it."""
        if want is not None:
            self.world.want = want
        self.switch._poll()
        self.switch._reconcile()

    def holds(self, want: Wanted) -> bool:
        return (
            self.fake.cookies() == sorted(wire_entry(e).cookie for e in want.flows)
            and self.fake.meter_rates() == want.meters
        )


def user_entry(host: int, meter: int = 0, table: int = 1) -> FlowEntry:
    match = (("in_port", host), ("eth_src", mac_of(host)))
    return FlowEntry(Kind.UPLOAD_USER, table, 10, match, meter_id=meter, goto_table=table + 1, series=host)


def wanting(meters=None, version: int | None = 1, entries=(), complete: bool = True) -> Wanted:
    """A default entry, one for each meter's user, and these."""
    meters = meters or {}
    users = [user_entry(meter, meter) for meter in meters]
    floor = FlowEntry(Kind.FORWARDING, 9, 0, output=(1, 2))
    return Wanted((floor, *users, *entries), meters, version, complete)
