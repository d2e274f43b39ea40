"""Numbers for pairs of hosts, and what they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.accounting import PairNumbers, application_ports
from ryu_apps.pipeline import ApplicationPort
from telemetry.samples import EdgeSamples
from tests.ryu_apps.networks import config, mac_of

A, B, C = mac_of(1), mac_of(2), mac_of(300)


def edges_of(pairs: PairNumbers, numbers) -> tuple[tuple[str, ...], EdgeSamples]:
    src, dst, app = pairs.columns(np.array(numbers, np.uint32))
    rates = np.arange(len(numbers), dtype=float)
    return pairs.named(EdgeSamples(src=src, dst=dst, app=app, interval_s=rates, rate_bps=rates))


def test_ranges_are_written_out_port_by_port():
    """OpenFlow 1.3 matches one port or all of them; classes count from 1, since 0 is other."""
    assert application_ports(config()) == (
        ApplicationPort(1, "tcp", 80), ApplicationPort(1, "tcp", 8080), ApplicationPort(1, "tcp", 8081),
        ApplicationPort(2, "udp", 53), ApplicationPort(2, "tcp", 53), ApplicationPort(3, "icmp", 0),
    )  # fmt: skip


def test_a_pair_keeps_its_number():
    """Both directions and every class are pairs of their own."""
    pairs = PairNumbers()
    numbers = [pairs.number(*pair, 0.0) for pair in ((A, B, 0), (B, A, 0), (A, B, 1), (A, B, 0))]
    assert numbers[3] == numbers[0]
    assert len({*numbers}) == len(pairs) == 3
    assert 0 not in numbers


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=60))
def test_edges_name_the_ends_of_their_pairs(triples):
    """Through numbers and columns and back, each edge has its own source, destination and class."""
    pairs = PairNumbers()
    wanted = [(mac_of(s), mac_of(d), app) for s, d, app in triples]
    numbers = [pairs.number(*pair, 0.0) for pair in wanted]
    names, edges = edges_of(pairs, numbers)
    rows = zip(edges.src.tolist(), edges.dst.tolist(), edges.app.tolist(), strict=True)
    assert [(names[s], names[d], app) for s, d, app in rows] == wanted
    assert set(names) == {mac for s, d, _ in wanted for mac in (s, d)}


def test_no_edges_name_nobody():
    """A silent switch reports no endpoints."""
    names, edges = edges_of(PairNumbers(), [])
    assert (names, len(edges.src)) == ((), 0)


def test_a_number_that_no_switch_reports_is_used_again():
    """Numbers do not grow for ever where hosts come and go."""
    pairs = PairNumbers()
    first, second = pairs.number(A, B, 0, 0.0), pairs.number(B, A, 0, 0.0)
    pairs.seen(np.array([second], np.uint32), 100.0)
    pairs.recycle(unseen_since=50.0)
    assert len(pairs) == 1
    assert pairs.number(A, C, 0, 101.0) == first
    assert pairs.number(B, A, 0, 101.0) == second
    assert edges_of(pairs, [first])[0] == (A, C)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_there_are_never_many_more_numbers_than_pairs_alive(talk):
    """Each pair falls silent after two steps; the greatest number stays within twice those alive at once."""
    pairs, last_used, greatest = PairNumbers(), {}, 0
    for now, which in enumerate(talk):
        number = pairs.number(A, mac_of(which), 0, now)
        pairs.seen(np.array([number], np.uint32), now)
        last_used[which] = now
        alive = [w for w, used in last_used.items() if used >= now - 2]
        pairs.recycle(now - 2)
        assert len(pairs) == len(alive) <= 3
        assert len({pairs.number(A, mac_of(w), 0, now) for w in alive}) == len(alive)
        greatest = max(greatest, number)
    assert greatest <= 4


@pytest.mark.parametrize(("made_at", "theirs"), [(100.0, True), (97.0, True), (60.0, False)])
def test_an_entry_older_than_its_numbers_use_is_of_another_pair(made_at, theirs):
    """An earlier process, or a switch that was not heard for long, may hold it."""
    pairs = PairNumbers()
    number = pairs.number(A, B, 0, 100.0)
    mask = pairs.are_theirs(np.array([number], np.uint32), np.array([made_at]))
    assert mask.tolist() == [theirs]


def test_numbers_that_nobody_has_are_nobodys():
    """Zero, a free one, and one beyond all that were given."""
    pairs = PairNumbers()
    number = pairs.number(A, B, 0, 100.0)
    pairs.recycle(200.0)
    numbers = np.array([0, number, 9_999], np.uint32)
    assert pairs.are_theirs(numbers, np.full(3, 1e9)).tolist() == [False] * 3
