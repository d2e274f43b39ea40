"""What turns one meter table into another, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.codec.messages import MeterCommand
from ryu_apps.framework import take_xids
from ryu_apps.meters import meter_changes, write_meters
from tests.ryu_apps.fake_switch import FakeSwitch

TABLES = st.dictionaries(st.integers(1, 12), st.tuples(st.integers(1, 1000), st.integers(1, 50)), max_size=12)


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


def total(table, among) -> int:
    return sum(rate for meter, (rate, _) in table.items() if meter in among)


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
    assert set(changes.modified) == {
        meter for meter in installed.keys() & wanted.keys() if installed[meter] != wanted[meter]
    }


@given(TABLES, TABLES)
def test_a_switch_that_reads_the_bytes_holds_what_is_wanted(installed, wanted):
    """The meter-mods as sent, taken by a switch that keeps state, without one error."""
    switch = FakeSwitch(1)
    for table in (installed, wanted):
        changes = meter_changes(switch.meter_rates(), table)
        for command, meters in (
            (MeterCommand.MODIFY, changes.lower),
            (MeterCommand.MODIFY, changes.raise_),
            (MeterCommand.ADD, changes.add),
            (MeterCommand.DELETE, changes.delete),
        ):
            xids = take_xids(switch.datapath, len(meters))
            switch.receive(write_meters(command, meters, table, xids))
    assert switch.meter_rates() == wanted
    assert switch.errors == []
