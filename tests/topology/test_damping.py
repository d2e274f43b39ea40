from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import network_of, networks
from topology.damping import DampingRules, FlapDamping, cable, steady_cables, without_held
from topology.happenings import TopologyLog
from topology.network import Link, Network
from topology.paths import switch_graph

RULES = DampingRules(half_life_s=10.0, hold_above=2.0, release_below=1.0, most=8.0)


def flap(damping: FlapDamping[str], times: int, start: float, every_s: float = 1.0) -> float:
    """Down and up again so often; when it was last up."""
    now = start
    damping.observe(["a"], now)
    for _ in range(times):
        damping.observe([], now)
        damping.observe(["a"], now + every_s / 2)
        now += every_s
    return now


def test_what_flaps_is_held_and_let_go_when_it_has_been_steady() -> None:
    """Two goings down are an incident, three in a row a habit; the hold ends by itself."""
    damping: FlapDamping[str] = FlapDamping(RULES)
    damping.observe(["a", "b"], 0.0)
    now = flap(damping, 2, 1.0)
    assert damping.held == frozenset()
    now = flap(damping, 1, now)
    assert damping.held == {"a"}
    assert not damping.observe(["a"], now + 10.0)
    assert damping.observe(["a"], now + 20.0)
    assert damping.held == frozenset()


def test_rare_goings_down_are_never_held() -> None:
    """One in a while is no flapping, however often it comes."""
    damping: FlapDamping[str] = FlapDamping(RULES)
    flap(damping, 50, 0.0, every_s=30.0)
    assert damping.held == frozenset()


def test_a_hold_has_a_longest_time() -> None:
    """A thousand flaps are forgiven as soon as eight."""
    damping: FlapDamping[str] = FlapDamping(RULES)
    now = flap(damping, 1000, 0.0)
    damping.observe(["a"], now + 10.0 * 3 + 1)
    assert damping.held == frozenset()


def test_a_clock_set_back_neither_forgives_nor_blames() -> None:
    """The penalty stays."""
    damping: FlapDamping[str] = FlapDamping(RULES)
    now = flap(damping, 3, 1000.0)
    assert not damping.observe(["a"], now - 900.0)
    assert damping.held == {"a"}


@pytest.mark.parametrize(
    "bad", [{"half_life_s": 0}, {"hold_above": 0.5}, {"most": 2.0}, {"release_below": 0}]
)
def test_rules_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    """Each names its bound."""
    with pytest.raises(ValueError, match="must"):
        DampingRules(**bad)


@settings(max_examples=60, deadline=None)
@given(networks(), st.data())
def test_leaving_out_held_links_parts_nothing(network: Network, data: st.DataObject) -> None:
    """Whoever could reach another still can; and no held cable is used that is not needed."""
    cables = sorted(steady_cables(network.links))
    held = set(data.draw(st.lists(st.sampled_from(cables), unique=True))) if cables else set()
    after = without_held(network, held)
    before_parts = {frozenset(part) for part in nx.connected_components(switch_graph(network))}
    assert {frozenset(part) for part in nx.connected_components(switch_graph(after))} == before_parts
    assert {link for link in network.links if cable(link) not in held} <= after.links <= network.links
    for link in [link for link in after.usable_links if cable(link) in held]:
        parted = after.without_link(link).without_link(link.reverse)
        assert nx.number_connected_components(switch_graph(parted)) > len(before_parts)


def test_a_network_without_held_links_is_the_same_object() -> None:
    """So that nobody reckons paths anew."""
    network = network_of(nx.cycle_graph([1, 2, 3]))
    assert without_held(network, [Link(7, 1, 8, 1)]) is network


def names(log: TopologyLog, after: int = 0) -> list[str]:
    return [f"{event.name} {event.change} {event.detail}".strip() for event in log.since(after)[0]]


def test_changes_come_once_with_rising_ids() -> None:
    """Up, down, a user that moved; what stays is no event, nor is a user's first place."""
    log = TopologyLog()
    log.observe([("switch", "s1"), ("switch", "s2")], {"anna": "s1/1"}, 1.0)
    log.observe([("switch", "s1")], {"anna": "s2/4"}, 2.0)
    log.observe([("switch", "s1")], {}, 3.0)
    assert names(log) == ["s1 up", "s2 up", "s2 down", "anna moved s1/1 -> s2/4"]
    assert [event.id for event in log.since()[0]] == [1, 2, 3, 4]
    assert names(log, 3) == ["anna moved s1/1 -> s2/4"]
    assert log.last == 4


def test_what_flaps_is_told_twice_however_often_it_does() -> None:
    """Once that it flaps, once how it is now that it is steady."""
    log = TopologyLog(rules=RULES)
    for second in range(200):
        log.observe([("link", "l")] if second % 2 else [], {}, float(second))
    assert names(log) == ["l up", "l down", "l up", "l down", "l up", "l flapping"]
    log.observe([("link", "l")], {}, 300.0)
    assert names(log, 6) == ["l steady up"]


def test_the_stream_is_bounded_and_says_what_was_forgotten() -> None:
    """A reader who comes late is told that something is missing; one from before a restart gets all."""
    log = TopologyLog(keep=3)
    for second in range(10):
        log.observe([("switch", f"s{second}")], {}, float(second))
    events, complete = log.since(0)
    assert (len(events), len(log), complete) == (3, 3, False)
    assert log.since(log.last - 1)[1]
    assert log.since(10**6)[0] == events
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        TopologyLog(keep=0)
