"""A switch's green thread against a switch that keeps state: bytes out, bytes in."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps import conversation, framework
from ryu_apps import switch as switch_module
from ryu_apps.conversation import SwitchSilentError
from ryu_apps.cookies import Kind, unpack_cookie
from ryu_apps.enforcer import Standing, Wanted
from ryu_apps.flows import wire_entry
from ryu_apps.framework import hub
from ryu_apps.pipeline import FlowEntry, Pipeline, pair_entry
from ryu_apps.switch import Applied
from telemetry.samples import GAP
from tests.ryu_apps.benches import TIMEOUT_S, Bench, user_entry, wanting
from tests.ryu_apps.fake_switch import FakeClock, FakeSwitch, split_messages
from tests.ryu_apps.networks import mac_of

OFP = framework.ofproto_v1_3


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(conversation, "_BARRIER_S", TIMEOUT_S)
    monkeypatch.setattr(switch_module, "_RETRY_S", 0.01)


def test_the_first_words_say_what_the_switch_is():
    """Tables and meters as the switch says; empty, so its ports are to be found afresh."""
    bench = Bench(FakeSwitch(1, n_tables=8, max_meters=77)).know()
    facts = bench.switch.facts
    assert (facts.n_tables, facts.max_meters, facts.description) == (8, 77, "test fake 2.17 Open vSwitch")
    assert bench.switch.pipeline == Pipeline.fitting(8)
    assert bench.world.recoveries == [([], True)]


def test_a_switch_with_too_few_tables_is_left_alone():
    """It is told nothing; the process goes on with the others."""
    bench = Bench(FakeSwitch(1, n_tables=3)).know()
    assert (bench.switch.alive, bench.switch.ready, bench.fake.flows) == (False, False, {})


def test_hosts_are_read_from_the_entries_of_an_earlier_process():
    """So a restart need not wait for each host to speak."""
    earlier = Bench().know()
    earlier.round(wanting({1: (100, 10), 2: (200, 20)}))
    later = Bench(earlier.fake).know()
    hosts, fresh = later.world.recoveries[0]
    assert not fresh
    assert {(s.mac, s.port_no, s.dpid) for s in hosts} == {(mac_of(1), 1, 1), (mac_of(2), 2, 1)}


def test_accounting_entries_of_an_earlier_process_are_deleted():
    """Their numbers mean nothing here."""
    earlier = Bench().know()
    earlier.switch.add_pairs([pair_entry(Pipeline(), mac_of(1), mac_of(2), 0, 1, 60)])
    assert len(earlier.fake.flows) == 1
    later = Bench(earlier.fake).know()
    assert later.fake.flows == {}
    assert later.world.recoveries == [([], True)]


METERS = st.dictionaries(st.integers(1, 6), st.tuples(st.integers(1, 900), st.integers(1, 90)), max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(METERS, min_size=1, max_size=4))
def test_one_round_brings_a_switch_to_each_plan(plans):
    """Entries and meters are exactly those wanted, no message was refused, and the report says in step."""
    bench = Bench().know()
    for version, meters in enumerate(plans):
        want = wanting(meters, version)
        bench.round(want)
        assert bench.holds(want)
        assert bench.world.reports[-1] == Applied(1, Standing(version, True, len(meters)), None, 0)
    assert bench.fake.errors == []


@settings(deadline=None, max_examples=30)
@given(METERS)
def test_a_switch_in_step_is_sent_questions_only(meters):
    """Level-triggered: nothing differs, nothing is done."""
    bench = Bench().know()
    bench.round(wanting(meters))
    bench.fake.journal.clear()
    bench.round(wanting(meters))
    assert {what for what, *_ in bench.fake.journal} == {"stats"}


def test_changes_come_in_the_order_that_never_oversubscribes():
    """Lower, barrier, raise, barrier, add, barrier, entries, barrier, old entries, barrier, old meters."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10), 2: (100, 10), 4: (50, 5)}))
    bench.fake.journal.clear()
    bench.round(wanting({1: (150, 10), 2: (50, 10), 3: (50, 5)}))
    acts = [
        (what, *rest[:1]) if what == "flow" else (what, *rest)
        for what, *rest in bench.fake.journal
        if what != "stats"
    ]
    assert acts == [
        ("meter", OFP.OFPMC_MODIFY, 2), ("barrier",),
        ("meter", OFP.OFPMC_MODIFY, 1), ("barrier",),
        ("meter", OFP.OFPMC_ADD, 3), ("barrier",),
        ("flow", OFP.OFPFC_ADD), ("barrier",),
        ("flow", OFP.OFPFC_DELETE), ("barrier",),
        ("meter", OFP.OFPMC_DELETE, 4), ("barrier",),
    ]  # fmt: skip


def test_an_entry_whose_meter_changes_is_replaced_and_never_missing():
    """Add first; its old self is overwritten by it, and the delete of the old cookie finds nothing."""
    bench = Bench().know()
    bench.round(Wanted((user_entry(1, 5),), {5: (10, 1)}, 1))
    before = len(bench.fake.flows)
    seen: list[int] = []
    original = bench.fake._flow_mod

    def watched(raw: bytes, xid: int) -> None:
        original(raw, xid)
        seen.append(len(bench.fake.flows))

    bench.fake._flow_mod = watched
    bench.round(Wanted((user_entry(1, 6),), {6: (10, 1)}, 2))
    assert seen == [before, before]
    assert bench.holds(bench.world.want)


def test_meters_deleted_behind_our_back_are_repaired():
    """And the entries that went with them."""
    bench = Bench().know()
    want = wanting({1: (100, 10), 2: (200, 20)})
    bench.round(want)
    bench.fake.meters.clear()
    bench.fake.flows.clear()
    bench.round()
    assert bench.holds(want)
    assert bench.world.standing.in_step


def test_a_meter_changed_behind_our_back_is_set_right():
    """Read back, not remembered."""
    bench = Bench().know()
    want = wanting({1: (100, 10)})
    bench.round(want)
    bench.fake.meters[1].rate = 9999
    bench.round()
    assert bench.holds(want)


def test_entries_of_others_are_left_alone():
    """Cookies of kind 0 are not ours."""
    bench = Bench().know()
    foreign = bytearray(wire_entry(FlowEntry(Kind.DEFAULT, 3, 77, goto_table=4)).add)
    foreign[8:16] = (42).to_bytes(8, "big")
    bench.fake.receive(bytes(foreign))
    bench.round(wanting({1: (1, 1)}))
    assert 42 in bench.fake.cookies()


def test_nothing_is_deleted_while_the_picture_is_incomplete():
    """A meter that is still wanted must not go because its host was not found again yet."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10), 2: (200, 20)}))
    bench.round(wanting({1: (50, 10)}, 2, complete=False))
    assert bench.fake.meter_rates() == {1: (50, 10), 2: (200, 20)}
    assert len(bench.fake.flows) == 3


def test_without_a_plan_metered_entries_and_meters_stay():
    """The planner has not spoken: what an earlier process enforced is enforced on."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10)}))
    unmetered = Wanted(
        (user_entry(1), user_entry(2), FlowEntry(Kind.FORWARDING, 9, 0, output=(3,))), {}, None
    )
    bench.round(unmetered)
    assert bench.fake.meter_rates() == {1: (100, 10)}
    kinds = sorted(unpack_cookie(cookie)[0] for cookie in bench.fake.cookies())
    assert kinds == [Kind.UPLOAD_USER, Kind.FORWARDING]
    assert bench.fake.flow(wire_entry(user_entry(1, 1)).cookie).meters == {1}
    assert bench.world.standing.in_step is None


def test_isolation_outlives_the_planner():
    """Who was isolated is not let back in because nobody speaks for a moment."""
    bench = Bench().know()
    match = (("in_port", 1), ("eth_src", mac_of(7)))
    isolated = FlowEntry(Kind.QUARANTINE, 0, 200, match)
    bench.round(wanting({}, 1, [isolated]))
    bench.round(wanting({}, None))
    assert wire_entry(isolated).cookie in bench.fake.cookies()
    bench.round(wanting({}, 2))
    assert wire_entry(isolated).cookie not in bench.fake.cookies()


def test_a_fresh_switch_forwards_without_a_plan():
    """There is nothing to keep, so hosts get entries that let them through."""
    bench = Bench().know()
    want = wanting({}, None, [user_entry(1)])
    bench.round(want)
    assert bench.holds(want)


def test_nothing_is_touched_while_the_process_wants_nothing_yet():
    """Warm-up: the switch is polled and left as it is."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10)}))
    bench.world.want = None
    before = dict(bench.fake.flows)
    bench.round()
    assert bench.fake.flows == before


def test_a_refused_meter_is_not_in_step_and_tried_again():
    """Until the meter is there its user's packets pass without one, and the controller is not asked about each."""
    bench = Bench().know()
    bench.fake.refuse_adds = 1
    want = wanting({1: (100, 10)})
    bench.round(want)
    assert bench.world.standing == Standing(1, False, 0, meters_differ=1, entries_differ=1)
    assert bench.fake.flow(wire_entry(user_entry(1)).cookie).meters == set()
    assert bench.switch._retry_in_s() <= 0.01
    bench.round()
    assert bench.holds(want)
    assert bench.world.standing.in_step
    assert bench.switch._retry_in_s() == math.inf


def test_an_entry_stays_until_its_new_meter_is_there():
    """A user that moves to a meter which the switch refuses keeps the old one."""
    bench = Bench().know()
    bench.round(Wanted((user_entry(1, 5),), {5: (10, 1)}, 1))
    bench.fake.refuse_adds = 1
    want = Wanted((user_entry(1, 6),), {6: (20, 1)}, 2)
    bench.round(want)
    assert bench.fake.flow(wire_entry(user_entry(1, 5)).cookie).meters == {5}
    assert bench.world.standing.meters_differ == 2
    bench.round()
    assert bench.holds(want)


def test_a_meter_that_another_plan_names_is_not_guessed():
    """Entries that speak of a meter without a rate pass without one until they agree."""
    bench = Bench().know()
    bench.round(Wanted((user_entry(1, 5),), {}, 1))
    assert bench.fake.flow(wire_entry(user_entry(1)).cookie).meters == set()
    assert bench.world.standing.entries_differ == 1


def test_a_new_meter_that_a_barrier_does_not_fence_is_tried_again():
    """Userspace Open vSwitch tells of a meter that entries cannot use yet."""
    bench = Bench().know()
    original, late = bench.fake._flow_mod, [True]

    def not_yet(raw: bytes, xid: int) -> None:
        meters = bench.fake.meters
        bench.fake.meters = {} if late.pop() else meters
        late.append(False)
        original(raw, xid)
        bench.fake.meters = meters

    bench.fake._flow_mod = not_yet
    want = Wanted((user_entry(1, 1),), {1: (100, 10)}, 1)
    bench.round(want)
    assert bench.fake.errors == [(OFP.OFPET_METER_MOD_FAILED, OFP.OFPMMFC_INVALID_METER)]
    assert bench.world.standing == Standing(1, False, 1, entries_differ=1)
    assert bench.switch._retry_in_s() <= 0.01
    bench.round()
    assert bench.holds(want)


def test_retries_wait_longer_each_time_and_begin_anew_after_a_good_round(monkeypatch):
    """A switch that always refuses is not asked as fast as it answers; one that recovered is served at once."""
    monkeypatch.setattr(switch_module, "_RETRY_S", 0.3)
    bench = Bench().know()
    bench.fake.refuse_adds = 10**6
    bench.world.want = wanting({1: (100, 10)})
    retries = []
    for _ in range(8):
        bench.round()
        retries.append(bench.switch._retry_in_s())
    longest = [min(0.3 * 2**n, 2.0) for n in range(8)]
    assert all(0.75 * most <= wait <= most for wait, most in zip(retries, longest, strict=True)), retries
    bench.fake.refuse_adds = 0
    bench.round()
    assert bench.switch._retry_in_s() == math.inf
    assert bench.holds(bench.world.want)
    bench.fake.meters.clear()
    bench.fake.refuse_adds = 1
    bench.round()
    assert bench.switch._retry_in_s() <= 0.3


def test_since_when_a_switch_differs_is_told():
    """The first moment, until it is in step again; what others changed is counted."""
    bench = Bench().know()
    want = wanting({1: (100, 10), 2: (50, 5)})
    bench.round(want)
    assert bench.world.reports[-1].differs_since is None
    bench.fake.meters.clear()
    bench.fake.flows.clear()
    bench.fake.refuse_adds = 10**6
    began = bench.fake.clock.now
    for _ in range(3):
        bench.round()
        bench.fake.pass_time(7)
    assert bench.world.reports[-1].differs_since == began
    assert (bench.world.standing.meters_differ, bench.world.standing.repairs) == (2, 5)
    bench.fake.refuse_adds = 0
    bench.round()
    assert bench.world.reports[-1].differs_since is None
    assert bench.world.standing == Standing(1, True, 2, repairs=5)


def test_a_switch_without_room_for_all_meters_is_not_in_step():
    """It holds what it could take, and says so."""
    bench = Bench(FakeSwitch(1, max_meters=1)).know()
    bench.round(wanting({1: (100, 10), 2: (100, 10)}))
    assert bench.world.standing.in_step is False
    assert (OFP.OFPET_METER_MOD_FAILED, OFP.OFPMMFC_OUT_OF_METERS) in bench.fake.errors


def test_a_silent_switch_is_a_lost_poll():
    """No batch is made of silence; the next one says how many were lost and spans the longer interval."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10)}))
    bench.fake.pass_time(5)
    bench.round()
    bench.fake.silent = True
    for _ in range(2):
        bench.fake.pass_time(5)
        with pytest.raises(SwitchSilentError, match=r"within 0\.02 s, got nothing"):
            bench.switch._poll()
    n_batches = len(bench.world.batches)
    bench.fake.silent = False
    bench.fake.pass_time(5)
    bench.fake.meters[1].bytes_in += 1500
    bench.round()
    batch = bench.world.batches[-1]
    assert len(bench.world.batches) == n_batches + 1
    assert batch.lost_polls == 2
    assert (batch.meters.interval_s[0], batch.meters.offered_bps[0]) == (15, 800)
    bench.round()
    assert bench.world.batches[-1].lost_polls == 0


def test_refused_statistics_are_not_empty_ones():
    """Flow entries refused are a lost poll; meters refused leave meters and their counters as they were known."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10)}))
    bench.fake.pass_time(5)
    bench.round()
    bench.fake.pass_time(5)
    bench.fake.refuse_stats = {OFP.OFPMP_METER, OFP.OFPMP_METER_CONFIG, OFP.OFPMP_PORT_STATS}
    bench.fake.journal.clear()
    bench.round()
    assert len(bench.world.batches[-1].meters.meter_id) == 0
    assert not [act for act in bench.fake.journal if act[0] == "meter"]
    bench.fake.refuse_stats = set()
    bench.fake.meters[1].bytes_in += 1000
    bench.fake.pass_time(5)
    bench.round()
    assert bench.world.batches[-1].meters.interval_s.tolist() == [10]
    bench.fake.refuse_stats = {OFP.OFPMP_FLOW}
    with pytest.raises(SwitchSilentError, match="refused"):
        bench.switch._poll()


def test_a_switch_without_meters_is_forwarding_all_the_same():
    """It refuses every question about meters and is told of none."""
    fake = FakeSwitch(1)
    fake.refuse_stats = {OFP.OFPMP_METER, OFP.OFPMP_METER_CONFIG, OFP.OFPMP_METER_FEATURES}
    bench = Bench(fake).know()
    assert bench.switch.facts.max_meters == 0
    bench.round(wanting({}, 1, [user_entry(1)]))
    assert bench.holds(bench.world.want)
    assert bench.world.standing.in_step


def test_meter_rates_are_sampled():
    """Bytes before the drop are offered load; what was dropped makes it censored."""
    bench = Bench().know()
    bench.round(wanting({1: (100, 10)}))
    assert bench.world.batches[-1].meters.meter_id.tolist() == []
    bench.fake.pass_time(4)
    bench.fake.meters[1].bytes_in, bench.fake.meters[1].bytes_dropped = 1000, 500
    bench.round()
    meters = bench.world.batches[-1].meters
    assert (meters.offered_bps[0], meters.dropped_bps[0]) == (2000, 1000)


@pytest.mark.parametrize("clears", [True, False])
def test_a_modified_meter_is_not_misread(clears):
    """Open vSwitch clears its counters and counts its age on; another switch does neither."""
    software = b"2.17 Open vSwitch" if clears else b"other"
    bench = Bench(FakeSwitch(1, clears_on_modify=clears, software=software)).know()
    bench.round(wanting({1: (100, 10)}))
    bench.fake.pass_time(4)
    bench.fake.meters[1].bytes_in = 10_000
    bench.round(wanting({1: (200, 10)}, 2))
    bench.fake.pass_time(4)
    bench.fake.meters[1].bytes_in += 1000
    bench.round()
    meters = bench.world.batches[-1].meters
    assert (meters.offered_bps[0], meters.flags[0]) == (2000, 0)
    bench.fake.pass_time(4)
    bench.fake.meters[1].bytes_in += 2000
    bench.round()
    assert bench.world.batches[-1].meters.offered_bps[0] == 4000


def test_an_unannounced_reset_is_a_gap():
    """A switch of another make that clears counters is not believed for one poll."""
    bench = Bench(FakeSwitch(1, software=b"other")).know()
    bench.round(wanting({1: (100, 10)}))
    bench.fake.pass_time(4)
    bench.fake.meters[1].bytes_in = 10_000
    bench.round(wanting({1: (200, 10)}, 2))
    bench.fake.pass_time(4)
    bench.fake.meters[1].bytes_in += 1000
    bench.round()
    meters = bench.world.batches[-1].meters
    assert meters.flags[0] == GAP
    assert math.isnan(meters.offered_bps[0])


def test_pairs_are_edges_and_hosts_that_send_are_alive():
    """Identity is in the cookies, over replies of several messages."""
    bench = Bench().know()
    bench.world.hosts = {1: (mac_of(1), 1), 2: (mac_of(2), 2)}
    bench.round(wanting({}, 1, [user_entry(1), user_entry(2)]))
    pair = (mac_of(1), mac_of(9), 2)
    entry = pair_entry(Pipeline(), *pair, bench.pairs.number(*pair, bench.fake.clock()), 60)
    bench.switch.add_pairs([entry])
    bench.fake.pass_time(4)
    bench.fake.count(wire_entry(entry).cookie, 500)
    bench.fake.count(wire_entry(user_entry(1)).cookie, 500)
    bench.round()
    batch = bench.world.batches[-1]
    assert [batch.endpoints[i] for i in (batch.edges.src[0], batch.edges.dst[0])] == list(pair[:2])
    assert (batch.edges.app[0], batch.edges.rate_bps[0]) == (2, 1000)
    assert [(s.mac, s.port_no) for s in bench.world.alive] == [(mac_of(1), 1)]


def test_a_pair_written_twice_does_not_make_a_burst():
    """A late packet-in writes the entry again: bytes and age begin anew together."""
    bench = Bench().know()
    bench.round(wanting())
    pair = (mac_of(1), mac_of(2), 0)
    entry = pair_entry(Pipeline(), *pair, bench.pairs.number(*pair, bench.fake.clock()), 60)
    bench.switch.add_pairs([entry])
    bench.fake.pass_time(4)
    bench.fake.count(wire_entry(entry).cookie, 10**9)
    bench.switch.add_pairs([entry])
    bench.fake.pass_time(1)
    bench.fake.count(wire_entry(entry).cookie, 125)
    bench.round()
    assert bench.world.batches[-1].edges.rate_bps.tolist() == [1000]


def test_a_number_given_to_another_pair_is_not_believed():
    """The entry of the pair that had it before is no edge of the new one, and is deleted."""
    bench = Bench().know()
    bench.round(wanting())
    old = (mac_of(1), mac_of(2), 0)
    entry = pair_entry(Pipeline(), *old, bench.pairs.number(*old, bench.fake.clock()), 0)
    bench.switch.add_pairs([entry])
    bench.fake.pass_time(100)
    bench.pairs.recycle(bench.fake.clock())
    assert bench.pairs.number(mac_of(3), mac_of(4), 0, bench.fake.clock()) == entry.series
    bench.fake.count(wire_entry(entry).cookie, 500)
    bench.round()
    assert len(bench.world.batches[-1].edges.src) == 0
    assert wire_entry(entry).cookie not in bench.fake.cookies()


def test_an_answer_that_comes_too_late_is_dropped():
    """It is of an old moment; nothing is kept of it, and the next question gets its own answer."""
    bench = Bench().know()
    held_back: list[Any] = []
    bench.fake.deliver = held_back.append
    with pytest.raises(SwitchSilentError):
        bench.switch._poll()
    bench.fake.deliver = bench.hear
    for message in held_back:
        bench.hear(message)
    assert bench.switch._talk._waiting == {}
    assert bench.switch._talk._assembler._waiting == {}
    bench.round(wanting({1: (1, 1)}))
    assert bench.holds(bench.world.want)


def test_half_an_answer_is_no_answer():
    """A reply of several messages counts when its last has come."""
    bench = Bench().know()
    bench.round(wanting(dict.fromkeys(range(1, 9), (1, 1))))
    flags = OFP.OFPMPF_REPLY_MORE
    bench.fake.deliver = lambda m: None if getattr(m, "flags", flags) & flags == 0 else bench.hear(m)
    with pytest.raises(SwitchSilentError):
        bench.switch._poll()
    assert bench.switch._talk._assembler._waiting == {}


FATES = ("whole", "twice", "lost", "answers lost", "late", "half")


class Trouble:
    """A connection on which each buffer meets a fate of its own."""

    def __init__(self, bench: Bench, fates):
        self.bench, self.fates = bench, iter(fates)
        self.late: list[bytes] = []
        bench.fake.datapath.send = self.send

    def send(self, raw: bytes) -> bool:
        fake, fate = self.bench.fake, next(self.fates, "whole")
        late, self.late = self.late, []
        for before in late:
            fake.receive(before)
        if fate == "late":
            self.late.append(raw)
        elif fate == "half":
            # The connection's buffer was cut: what came of it is worked off, barrier or not.
            messages = split_messages(raw)
            fake.receive(b"".join(messages[: len(messages) // 2]))
        elif fate == "answers lost":
            fake.silent = True
            fake.receive(raw)
            fake.silent = False
        elif fate != "lost":
            fake.receive(raw)
            if fate == "twice":
                fake.receive(raw)
        return True


@settings(deadline=None, max_examples=60)
@given(st.lists(METERS, min_size=1, max_size=3), st.lists(st.sampled_from(FATES), max_size=14))
def test_whatever_happens_to_batches_the_switch_comes_to_the_plan(plans, fates):
    """Each buffer may come twice, late, cut, or not at all: two quiet rounds later all is as wanted."""
    bench = Bench().know()
    trouble = Trouble(bench, fates)
    for version, meters in enumerate(plans):
        bench.world.want = wanting(meters, version)
        for _ in range(2):
            try:
                bench.round()
            except SwitchSilentError:
                continue
    trouble.fates = iter(())
    for _ in range(2):
        bench.round()
    assert bench.holds(bench.world.want)
    assert bench.world.standing.in_step


def test_batches_replayed_later_are_undone():
    """Everything ever sent, sent again: the next rounds bring the switch back to the newest plan."""
    bench = Bench().know()
    for version, meters in enumerate(({1: (10, 1), 2: (20, 2)}, {2: (5, 2), 3: (7, 1)}, {3: (9, 1)})):
        bench.round(wanting(meters, version))
    for raw in list(bench.fake.received):
        bench.fake.receive(raw)
    for _ in range(2):
        bench.round()
    assert bench.holds(bench.world.want)


def until(condition, deadline_s: float = 5.0) -> None:
    """Let green threads run until something is so."""
    for _ in range(int(deadline_s / 0.005)):
        if condition():
            return
        hub.sleep(0.005)
    raise AssertionError("it did not come to be in time")


@pytest.fixture
def running():
    bench = Bench()
    bench.world.want = wanting({1: (100, 10)})
    thread = hub.spawn(bench.switch.run)
    yield bench
    bench.switch.alive = False
    bench.switch.wake()
    thread.wait()


def test_the_thread_brings_the_switch_there_and_keeps_it_there(running):
    """Known, compared, brought there; and again when it wakes to a new plan."""
    until(lambda: running.holds(running.world.want))
    running.world.want = wanting({1: (50, 5)}, 2)
    running.switch.wake()
    until(lambda: running.holds(running.world.want))
    assert len(running.world.recoveries) == 1


def test_the_thread_outlives_errors_of_every_kind(running):
    """Silence, a reply that is no reply, and faults of our own: logged, counted, tried again."""
    until(lambda: running.world.reports)
    running.fake.silent = True
    until(lambda: running.switch._lost >= 1)
    running.fake.silent = False
    broken = itertools.count()

    def fail(dpid: int):
        next(broken)
        raise RuntimeError("a fault of our own")

    running.world.wanted = fail
    until(lambda: next(broken) > 2)
    del running.world.wanted
    running.world.want = replace(wanting({1: (70, 7)}), plan_version=3)
    until(lambda: running.holds(running.world.want))


def test_the_thread_retries_soon_after_a_refusal(running):
    """Before the next poll is due."""
    until(lambda: running.world.reports)
    running.fake.refuse_adds = 3
    running.world.want = wanting({1: (100, 10), 2: (1, 1)}, 2)
    running.switch.wake()
    until(lambda: running.holds(running.world.want) and running.world.standing.in_step)


def test_the_fake_switch_ages_by_its_clock():
    """The double keeps its own promises: an idle entry goes, and one that is used stays."""
    fake = FakeSwitch(1, clock=FakeClock())
    entry = wire_entry(pair_entry(Pipeline(), mac_of(1), mac_of(2), 0, 1, 60))
    fake.receive(entry.add)
    fake.pass_time(59)
    fake.count(entry.cookie, 10)
    fake.pass_time(59)
    assert fake.cookies() == [entry.cookie]
    fake.pass_time(1)
    assert fake.cookies() == []
