"""Flow entries on the wire, and the difference between two sets of them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps import framework
from ryu_apps.cookies import Kind, pack_cookie, unpack_cookie
from ryu_apps.flows import delete_by_cookie, flow_changes, wire_entry
from ryu_apps.pipeline import FlowEntry, Pipeline, pair_entry
from tests.ryu_apps.networks import discovered, entries_of, planned_networks

OFP = framework.ofproto_v1_3
ENTRY = FlowEntry(
    Kind.UPLOAD_USER, 1, 10, (("in_port", 3), ("eth_src", "0a:00:00:00:00:01")),
    meter_id=7, write_metadata=(9, 0xFFFF_FFFF), goto_table=2, series=5,
)  # fmt: skip
CHANGED = {
    "table": replace(ENTRY, table_id=0),
    "priority": replace(ENTRY, priority=11),
    "match": replace(ENTRY, match=(("in_port", 4), ("eth_src", "0a:00:00:00:00:01"))),
    "meter": replace(ENTRY, meter_id=8),
    "output": replace(ENTRY, output=(1,)),
    "punt": replace(ENTRY, to_controller=True),
    "metadata": replace(ENTRY, write_metadata=(8, 0xFFFF_FFFF)),
    "goto": replace(ENTRY, goto_table=3),
}


def read(raw: bytes):
    return framework.parse_message(framework.offline_datapath(), raw)


@pytest.mark.parametrize("what", CHANGED)
def test_the_cookie_changes_with_the_content(what):
    """An entry that says something else is seen to be another by its cookie alone."""
    assert wire_entry(CHANGED[what]).cookie != wire_entry(ENTRY).cookie


def test_the_cookie_says_what_the_entry_is_for():
    """Kind and series can be read by whoever has only the statistics."""
    assert unpack_cookie(wire_entry(ENTRY).cookie)[:2] == (Kind.UPLOAD_USER, 5)


def test_an_entry_on_the_wire_is_what_it_says():
    """Ryu reads back each field, the meter first and the jump last."""
    message = read(wire_entry(ENTRY).add)
    assert (message.table_id, message.priority, message.command) == (1, 10, OFP.OFPFC_ADD)
    assert dict(message.match.items()) == dict(ENTRY.match)
    kinds = [instruction.type for instruction in message.instructions]
    assert kinds == [OFP.OFPIT_METER, OFP.OFPIT_WRITE_METADATA, OFP.OFPIT_GOTO_TABLE]
    assert message.instructions[0].meter_id == 7


def test_an_added_entry_starts_its_counters_with_its_duration():
    """OpenFlow 1.3 keeps a replaced entry's counters but not its age, which would make rates out of nothing."""
    assert read(wire_entry(ENTRY).add).flags & OFP.OFPFF_RESET_COUNTS


def test_outputs_and_punts_are_actions_applied_before_the_jump():
    """A packet told to the controller goes its way at once; of it the first bytes are enough."""
    message = read(wire_entry(FlowEntry(Kind.FORWARDING, 9, 0, output=(1, 2), to_controller=True)).add)
    (instruction,) = message.instructions
    assert [(action.port, action.max_len) for action in instruction.actions][2] == (OFP.OFPP_CONTROLLER, 128)
    assert [action.port for action in instruction.actions][:2] == [1, 2]


def test_an_accounting_entry_goes_when_its_pair_falls_silent():
    """Nobody has to delete it."""
    message = read(wire_entry(pair_entry(Pipeline(), "0a:00:00:00:00:01", "0a:00:00:00:00:02", 2, 9, 60)).add)
    assert (message.idle_timeout, unpack_cookie(message.cookie)[:2]) == (60, (Kind.ACCOUNTING, 9))


def test_a_delete_names_one_cookie_in_every_table():
    """Ports and groups do not narrow it."""
    message = read(delete_by_cookie(0x1234))
    assert (message.cookie, message.cookie_mask) == (0x1234, 2**64 - 1)
    assert (message.table_id, message.command) == (OFP.OFPTT_ALL, OFP.OFPFC_DELETE)
    assert (message.out_port, message.out_group) == (OFP.OFPP_ANY, OFP.OFPG_ANY)


@settings(deadline=None, max_examples=30)
@given(planned_networks(), planned_networks())
def test_changes_turn_one_set_into_the_other(before, after):
    """Nothing to do for what is there already; applied, the changes leave exactly what is wanted."""
    one, other = (
        {entry.cookie: entry for entry in map(wire_entry, entries_of(discovered(wiring), plan)[1])}
        for wiring, plan in (before, after)
    )
    assert not flow_changes(one, one)
    changes = flow_changes(one, other)
    assert (one.keys() | {entry.cookie for entry in changes.add}) - set(changes.delete) == other.keys()
    assert not {entry.cookie for entry in changes.add} & set(changes.delete)


@given(st.lists(st.integers(0, 2**60 - 1)), st.lists(st.integers(0, 2**28 - 1)))
def test_accounting_and_foreign_entries_are_left_alone(foreign, series):
    """They are no business of this comparison."""
    accounting = [pack_cookie(Kind.ACCOUNTING, number, 1) for number in series]
    assert not flow_changes([*foreign, *accounting], {})
