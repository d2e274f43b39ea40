import pytest

from mininet_scenarios.readback import ReadBackError, compare, parse_meters, planned_meters, read_back

DUMP = """OFPST_METER_CONFIG reply (OF1.3) (xid=0x2):
meter=1 kbps burst stats bands=
type=drop rate=1000 burst_size=150

meter=20 kbps burst stats bands=
type=drop rate=20500 burst_size=2050
"""


def plan(version=1, rate=1000):
    meters = [
        {
            "meter_id": 1,
            "rate_kbps": rate,
            "burst_kbit": 150,
            "pool": "global/west/g/anna",
            "direction": "up",
        },
        {"meter_id": 20, "rate_kbps": 20500, "burst_kbit": 2050, "pool": "global/west", "direction": "down"},
    ]
    return {"version": version, "switches": {"0000000000000011": {"in_step": True, "meters": meters}}}


def test_meters_are_parsed():
    """Rate and burst of each meter, by id."""
    assert parse_meters(DUMP) == {1: (1000, 150), 20: (20500, 2050)}


def test_a_switch_without_meters_has_none():
    """An empty reply is an empty table, not an error."""
    assert parse_meters("OFPST_METER_CONFIG reply (OF1.3) (xid=0x2):\n") == {}


def test_a_meter_without_burst_has_none():
    """The burst is left out of the dump where it is not set."""
    assert parse_meters("meter=3 kbps bands=\ntype=drop rate=64\n") == {3: (64, 0)}


@pytest.mark.parametrize(
    "dump",
    [
        "meter=3 pktps bands=\ntype=drop rate=64\n",
        "meter=3 kbps bands=\ntype=dscp_remark rate=64 prec_level=1\n",
        "meter=3 kbps bands=\ntype=drop rate=64\ntype=drop rate=128\n",
    ],
)
def test_other_kinds_of_meters_are_named(dump):
    """A meter that Tidegate cannot have made is an error that names it."""
    with pytest.raises(ReadBackError, match="meter 3 must have one drop band in kbps"):
        parse_meters(dump)


def test_equal_tables_have_no_differences():
    """Plan and switch agree when id, rate and burst do."""
    result = compare(plan(), {0x11: parse_meters(DUMP)})
    assert result.equal
    assert result.n_meters == 2


def test_differences_are_told():
    """A missing, an extra and a changed meter each make a line."""
    held = {1: (900, 150), 7: (5, 1)}
    assert compare(plan(), {0x11: held}).differences == (
        "dp 0000000000000011 meter 1: plan 1000 kbit/s burst 150 kbit, switch 900 kbit/s burst 150 kbit",
        "dp 0000000000000011 meter 7: plan has none, switch 5 kbit/s burst 1 kbit",
        "dp 0000000000000011 meter 20: plan 20500 kbit/s burst 2050 kbit, switch has none",
    )


def test_no_meters_at_all_is_no_agreement():
    """An empty plan next to empty switches proves nothing."""
    assert not compare({"version": 0, "switches": {}}, {0x11: {}}).equal
    assert planned_meters({"version": 0, "switches": {}}, 0x11) == {}


def test_a_plan_that_moves_meanwhile_is_read_again(monkeypatch):
    """A difference that is gone at the second look does not count."""
    monkeypatch.setattr("mininet_scenarios.readback.read_meters", lambda bridge: parse_meters(DUMP))
    plans = iter([plan(1, rate=5), plan(2)])
    result = read_back(lambda: next(plans), {0x11: "any"})
    assert result.equal
    assert result.plan_version == 2


def test_a_difference_that_stays_counts(monkeypatch):
    """After the deadline the last reading stands."""
    monkeypatch.setattr("mininet_scenarios.readback.read_meters", lambda bridge: {})
    result = read_back(plan, {0x11: "any"}, deadline_s=0.0)
    assert len(result.differences) == 2
