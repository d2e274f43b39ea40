"""Plans and reports on the wire: what went in comes out, and nonsense is a ValueError and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.plan import Binding, MeterOwner, MeterTable, Plan, SwitchLayout, decode_plan, encode_plan
from planner.report import (
    AppliedReport,
    NetworkReport,
    SwitchFacts,
    decode_applied,
    decode_network,
    encode_applied,
    encode_network,
)
from topology.network import Host, Link, Port

u32 = st.integers(0, 2**32 - 1)
dpids = st.integers(1, 2**64 - 1)
names = st.text(max_size=12)
times = st.floats(0, 2e9)
pairs = st.tuples(u32, u32)


@st.composite
def tables(draw: st.DrawFn) -> MeterTable:
    ids = sorted(draw(st.sets(u32, max_size=5)))
    columns = [np.array([draw(u32) for _ in ids], np.uint32) for _ in range(2)]
    return MeterTable(np.array(ids, np.uint32), *columns)


layouts = st.builds(
    SwitchLayout,
    st.lists(st.builds(Binding, names, names, u32, pairs, pairs), max_size=3).map(tuple),
    st.lists(st.builds(MeterOwner, u32, names, st.integers(0, 1)), max_size=3).map(tuple),
    pairs,
    st.lists(names, max_size=2).map(tuple),
    st.lists(st.tuples(pairs, pairs), max_size=2).map(tuple),
)
plans = st.builds(
    Plan,
    st.integers(0, 2**40),
    times,
    st.sampled_from(["live", "shadow"]),
    st.integers(0, 2**40),
    st.dictionaries(dpids, layouts, max_size=3),
    st.dictionaries(dpids, tables(), max_size=3),
)
hosts = st.builds(Host, names, st.frozensets(names, max_size=3), dpids, u32, times)
networks = st.builds(
    NetworkReport,
    names,
    st.integers(0, 2**40),
    st.dictionaries(dpids, st.builds(SwitchFacts, st.integers(0, 254), u32, names), max_size=3),
    st.lists(st.builds(Port, dpids, u32, names, times, st.booleans()), max_size=3).map(tuple),
    st.frozensets(st.builds(Link, dpids, u32, dpids, u32), max_size=3),
    st.lists(hosts, max_size=3).map(lambda found: {host.mac: host for host in found}),
)
applied = st.builds(
    AppliedReport,
    names,
    dpids,
    st.none() | u32,
    st.none() | st.booleans(),
    *[u32] * 6,
    st.none() | times,
)


def same(one: Plan, other: Plan) -> bool:
    """Equal plans; arrays have no truth value of their own."""
    rates = [{dpid: table.rates() for dpid, table in plan.meters.items()} for plan in (one, other)]
    heads = [(p.version, p.time, p.mode, p.layout_version, p.layouts) for p in (one, other)]
    return heads[0] == heads[1] and rates[0] == rates[1]


@given(plans)
def test_plan_comes_back(plan: Plan):
    """Every value of a plan survives the wire."""
    assert same(decode_plan(encode_plan(plan)), plan)


@given(plans)
def test_known_layout_stays_at_home(plan: Plan):
    """Where the layout is known it is left out, taken from what is known, and missed where nothing is."""
    body = encode_plan(plan, plan.layout_version)
    assert b"layouts" not in body
    assert same(decode_plan(body, plan), plan)
    with pytest.raises(ValueError, match="not known here"):
        decode_plan(body)
    assert b"layouts" in encode_plan(plan, plan.layout_version - 1)


def test_a_layout_of_an_older_planner_isolates_nobody():
    """Processes of two releases meet at the seam while one is being replaced."""
    body = msgpack.unpackb(encode_plan(Plan(layouts={1: SwitchLayout()})), strict_map_key=False)
    del body["layouts"][1]["isolated"]
    assert decode_plan(msgpack.packb(body)).layouts == {1: SwitchLayout()}


@given(networks)
def test_network_report_comes_back(report: NetworkReport):
    """Every value of a network report survives the wire."""
    assert decode_network(encode_network(report)) == report


@given(applied)
def test_applied_report_comes_back(report: AppliedReport):
    """Every value of an applied report survives the wire."""
    assert decode_applied(encode_applied(report)) == report


def test_an_applied_report_of_an_older_release_is_read():
    """It tells no more than whether the switch is in step."""
    body = msgpack.packb(msgpack.unpackb(encode_applied(AppliedReport("s", 1, 2, True, 3, 4, 5, 6)))[:6])
    assert decode_applied(body) == AppliedReport("s", 1, 2, True, 3, 4)


@pytest.mark.parametrize(
    ("version", "time", "delayed"),
    [(1, 10, True), (1, 30, False), (3, 10, False), (2, 20, False), (1, 20, False)],
)
def test_a_plan_is_delayed_where_it_is_older_in_every_way(version: int, time: float, delayed: bool):
    """A planner that lost its memory counts anew, one whose clock was set back goes on counting: both are followed."""
    assert Plan(version, time).is_delayed(Plan(2, 20)) is delayed


DECODERS: list[Callable[[bytes], Any]] = [decode_plan, decode_network, decode_applied]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


def refuses_or_reads(decode: Callable[[bytes], Any], body: bytes) -> None:
    try:
        decode(body)
    except ValueError:
        return


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=60))
@example(b"")
@example(b"\x81\x90\x01")  # a list as a key
@example(b"\x91" * 2000)  # deeper than anybody goes
@example(b"\xc7\x0c\xff" + b"\xff" * 12)  # a time out of range
def test_any_bytes_are_refused_or_read(decode: Callable[[bytes], Any], body: bytes):
    """Bytes that are not a message raise ValueError and nothing else."""
    refuses_or_reads(decode, body)


@settings(max_examples=300)
@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decode_plan, msgpack.unpackb(encode_plan(Plan(1, 2.0, layouts={1: SwitchLayout((Binding("a", "m", 1),))}, meters={1: MeterTable()})), strict_map_key=False)),
        (decode_network, msgpack.unpackb(encode_network(NetworkReport("s", 1, {1: SwitchFacts(1, 2, "d")}, (Port(1, 1, "p", 1.0, True),), frozenset({Link(1, 1, 2, 1)}), {"m": Host("m", frozenset({"a"}), 1, 1, 0.0)})), strict_map_key=False)),
        (decode_applied, msgpack.unpackb(encode_applied(AppliedReport("s", 1, 2, True, 3, 0)))),
    ],
    ids=["plan", "network", "applied"],
)  # fmt: skip
@given(st.data())
def test_one_wrong_value_is_refused_or_read(decode: Callable[[bytes], Any], body: Any, data: st.DataObject):
    """A good message with any one part replaced by anything: ValueError, or a message of proper kinds."""

    def broken(part: Any) -> Any:
        if isinstance(part, dict) and part and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(sorted(part, key=str)))
            return {**part, key: broken(part[key])}
        if isinstance(part, list) and part and data.draw(st.booleans()):
            place = data.draw(st.integers(0, len(part) - 1))
            return [*part[:place], broken(part[place]), *part[place + 1 :]]
        return data.draw(values)

    refuses_or_reads(decode, msgpack.packb(broken(body)))


@pytest.mark.parametrize(
    "fault",
    [
        {"switches": {1: [10, "many", "d"]}},
        {"switches": {1: [10, -1, "d"]}},
        {"hosts": [["m", ["a"], 1, 1, None]]},
        {"hosts": [["m", ["a"], "west", 1, 0.0]]},
        {"version": float("inf")},
    ],
)
def test_text_for_a_number_does_not_reach_the_loop(fault: dict[str, Any]):
    """What the loop reckons with is a number when it comes in: else every later tick would fail."""
    good = msgpack.unpackb(encode_network(NetworkReport("s", 1)), strict_map_key=False)
    with pytest.raises(ValueError, match="network report is malformed"):
        decode_network(msgpack.packb(good | fault))
