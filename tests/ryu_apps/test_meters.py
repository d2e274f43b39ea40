"""What turns one meter table into another, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.codec.body import StatsBody
from ryu_apps.codec.messages import MeterCommand
from ryu_apps.codec.meter_stats import decode_meter_configs
from ryu_apps.framework import take_xids
from ryu_apps.meters import FOREIGN, MeterSetting, meter_changes, settings_read, write_meters
from tests.ryu_apps.fake_switch import FakeSwitch, Meter

#: One shape is what drops, one what marks, one what does both.
RATE, BURST = st.integers(1, 1000), st.integers(1, 50)
SETTINGS = st.one_of(
    st.tuples(RATE, BURST),
    st.tuples(RATE, BURST, st.integers(1, 3)),
    st.tuples(RATE, BURST, st.just(1), RATE, BURST),
).map(lambda parts: MeterSetting(*parts))
TABLES = st.dictionaries(st.integers(1, 12), SETTINGS, max_size=12)


def applied(installed, wanted):
    """The meter table after each step of the changes, in their order."""
    changes, now = meter_changes(installed, wanted), dict(installed)
    for meter in changes.lower + changes.raise_:
        assert meter in now
        now[meter] = wanted[meter]
        yield dict(now)
    for meter in changes.add:
        assert meter not in now
        now[meter] = wanted[meter]
        yield dict(now)
    for meter in changes.delete:
        del now[meter]
        yield dict(now)


def total(table, among):
    return sum(setting.limit_kbps for meter, setting in table.items() if meter in among)


@given(TABLES, TABLES)
def test_changes_lead_to_what_is_wanted_and_never_oversubscribe(installed, wanted):
    """At no moment do the meters that stay allow more together than before or after, whichever is more."""
    steps = list(applied(installed, wanted))
    assert (steps[-1] if steps else installed) == wanted
    stay = installed.keys() & wanted.keys()
    most = max(total(installed, stay), total(wanted, stay))
    assert all(total(step, stay) <= most for step in steps)
    both = wanted.keys() | installed.keys()
    assert all(
        total(step, both) <= max(most, total(wanted, both)) + total(installed, installed.keys() - stay)
        for step in steps
    )


@given(TABLES)
def test_equal_tables_need_no_change(table):
    """A plan that says what is there sends nothing."""
    assert not meter_changes(table, dict(table))


@given(TABLES, TABLES)
def test_each_meter_is_in_one_kind_of_change(installed, wanted):
    """What stays is modified in place, so there is no moment without it."""
    changes = meter_changes(installed, wanted)
    every = changes.lower + changes.raise_ + changes.add + changes.delete
    assert len(every) == len(set(every))
    assert set(changes.lower + changes.raise_) == {
        meter for meter in installed.keys() & wanted.keys() if installed[meter] != wanted[meter]
    }


def held(switch: FakeSwitch) -> dict[int, MeterSetting]:
    """What the switch answers when asked for its meters."""
    return settings_read(decode_meter_configs([StatsBody(memoryview(b"".join(switch._meter_configs())))]))


@pytest.mark.parametrize(
    "bands",
    [[], [(1, 5, 5, 0)] * 2, [(2, 5, 5, 0)], [(2, 5, 5, 1)] * 3, [(0xFFFF, 5, 5, 0)], [(2, 5, 5, 1)] * 2],
)
def test_a_meter_of_a_shape_that_is_not_ours_equals_nothing_wanted(bands):
    """Whatever its first band says, it is set anew, and counts as one that lets everything through."""
    switch = FakeSwitch(1, meters={3: Meter(bands, 5, 0.0), 4: Meter([(1, 5, 5, 0)], 2, 0.0)})
    assert held(switch) == {3: FOREIGN, 4: FOREIGN}
    assert meter_changes(held(switch), dict.fromkeys((3, 4), MeterSetting(2**32 - 1, 0))).lower == (3, 4)


@given(TABLES, TABLES, st.booleans())
def test_a_switch_that_reads_the_bytes_holds_what_is_wanted(installed, wanted, turns):
    """The meter-mods as sent, taken by a switch that keeps state, without one error; in whatever order it tells
    the bands.
    """
    switch = FakeSwitch(1, takes_bands=frozenset({1, 2}), turns_bands=turns)
    for table in (installed, wanted):
        changes = meter_changes(held(switch), table)
        for command, meters in (
            (MeterCommand.MODIFY, changes.lower),
            (MeterCommand.MODIFY, changes.raise_),
            (MeterCommand.ADD, changes.add),
            (MeterCommand.DELETE, changes.delete),
        ):
            xids = take_xids(switch.datapath, len(meters))
            switch.receive(write_meters(command, meters, table, xids))
    assert held(switch) == wanted
    assert switch.errors == []
