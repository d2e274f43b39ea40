"""Counters of two polls in, rates out, against a plain reference of one row at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps.collector import (
    AT_LIMIT,
    MIN_INTERVAL_S,
    CounterMemory,
    Counters,
    edge_samples,
    increase,
    meter_samples,
    port_samples,
)
from telemetry.samples import CENSORED, GAP

NAN = math.nan
#: A duration of all ones seconds: the switch keeps none.
NO_DURATION = float(0xFFFF_FFFF)


def counters(rows, time: float, width: int = 2) -> Counters:
    """Counters of (id, duration, values ...)."""
    values = np.array([row[2:] for row in rows], float).reshape(len(rows), width)
    return Counters.sorted([row[0] for row in rows], values, np.array([row[1] for row in rows], float), time)


def meters(before, now, limits=None, restarted=None):
    return meter_samples(before, now, limits or {}, restarted or {})


def plain_increase(before: Counters | None, now: Counters, restarted, row: int) -> tuple[float, list[float]]:
    """Interval and increases of one row, in so many words."""
    number, age, values = int(now.ids[row]), float(now.duration_s[row]), now.values[row].tolist()
    nothing = NAN, [NAN] * len(values)
    if number in restarted:
        interval, amounts = now.time - restarted[number], values
    elif before is None:
        return nothing
    else:
        places = [i for i, known in enumerate(before.ids) if known == number]
        elapsed = now.time - before.time
        keeps_age = 0 < age < NO_DURATION
        interval, amounts = NAN, [NAN] * len(values)
        if places:
            then = places[0]
            then_age = float(before.duration_s[then])
            grown = age - then_age if keeps_age and 0 < then_age < NO_DURATION else elapsed
            if grown > 0:
                interval = grown
                amounts = [new - old for new, old in zip(values, before.values[then].tolist(), strict=True)]
        if math.isnan(interval) and keeps_age and age <= elapsed + 1.0:
            interval, amounts = age, values
    if not interval > 0:
        return interval, [NAN] * len(values)
    return interval, [amount if amount >= 0 else NAN for amount in amounts]


COUNT = st.one_of(st.integers(0, 1000), st.integers(0, 2**63), st.just(NAN)).map(float)
AGE = st.one_of(
    st.integers(0, 20_000).map(lambda ms: ms / 1e3),
    st.integers(0, 10**6).map(float),
    st.sampled_from([0.0, NO_DURATION, MIN_INTERVAL_S]),
    st.just(4.0),
)


@st.composite
def polls(draw, time, width=2):
    ids = draw(st.lists(st.integers(1, 8), unique=True, max_size=8))
    rows = [(i, draw(AGE), *(draw(COUNT) for _ in range(width))) for i in ids]
    return counters(rows, time, width)


@settings(max_examples=400)
@given(st.data())
def test_increases_equal_those_reckoned_row_by_row(data):
    """Any two polls: known, new, made anew, reset, restarted, not kept, with and without durations."""
    before = data.draw(st.none() | polls(100.0))
    now = data.draw(polls(data.draw(st.sampled_from([99.0, 100.0, 100.3, 105.0, 4000.0]))))
    restarted = data.draw(st.dictionaries(st.integers(1, 8), st.floats(90, 110), max_size=3))
    rise = increase(before, now, restarted)
    for row in range(len(now.ids)):
        interval, amounts = plain_increase(before, now, restarted, row)
        np.testing.assert_equal(rise.interval_s[row], interval)
        np.testing.assert_equal(rise.amount[row], amounts)


@settings(max_examples=300)
@given(st.data())
def test_a_meter_is_a_gap_or_a_rate_and_never_a_made_up_zero(data):
    """NaN goes with GAP and GAP with NaN; a zero is said only where the counter stood still."""
    before, now = data.draw(st.none() | polls(100.0)), data.draw(polls(105.0))
    samples = meters(before, now, dict.fromkeys(range(1, 9), 1e3))
    gap = samples.flags & GAP > 0
    assert (gap == np.isnan(samples.offered_bps)).all()
    assert not (gap & (samples.flags & CENSORED > 0)).any()
    assert (samples.interval_s[~gap] >= MIN_INTERVAL_S).all()
    rise = increase(before, now)
    assert (rise.amount[samples.offered_bps == 0, 0] == 0).all()


def test_rates_come_from_the_switchs_own_durations():
    """A late answer makes our clock's interval longer, not the traffic less."""
    before = counters([(7, 10.0, 0, 0)], 100)
    now = counters([(7, 14.0, 4e6, 0)], 109)
    samples = meters(before, now)
    assert samples.offered_bps[0] == 8e6
    assert samples.interval_s[0] == 4


@pytest.mark.parametrize("age", [0.0, NO_DURATION])
def test_a_switch_without_durations_is_measured_by_our_clock(age):
    """Taken at its word, all ones for seconds would make every rate nearly zero."""
    samples = meters(counters([(7, age, 0, 0)], 100), counters([(7, age, 5e6, 0)], 105))
    assert (samples.offered_bps[0], samples.flags[0]) == (8e6, 0)


GAPS = {
    "first sight": (None, (7, 5.0, 1e6, 0)),
    "a counter not kept": ((7, 5.0, NAN, 0), (7, 10.0, NAN, 0)),
    "a counter that went back": ((7, 5.0, 2e6, 0), (7, 10.0, 1e6, 0)),
    "an interval too short to say": ((7, 5.0, 0, 0), (7, 5.4, 1e6, 0)),
    "a meter that is old and was not in the last answer": ((8, 5.0, 0, 0), (7, 500.0, 1e6, 0)),
    "a meter deleted and added by others": ((7, 50.0, 9e6, 0), (7, 3.0, 1e6, 0)),
}


@pytest.mark.parametrize("what", GAPS)
def test_what_is_not_known_is_a_gap(what):
    """NaN with its flag; a zero would be forecast as no demand."""
    then, row = GAPS[what]
    samples = meters(counters([then], 100) if then else None, counters([row], 105))
    assert samples.flags[0] == GAP
    assert np.isnan([samples.offered_bps[0], samples.dropped_bps[0]]).all()


def test_an_unused_meter_is_no_gap():
    """It was read twice and counted nothing: that is a zero."""
    samples = meters(counters([(7, 5.0, 9, 0)], 100), counters([(7, 10.0, 9, 0)], 105))
    assert (samples.offered_bps[0], samples.flags[0]) == (0, 0)


def test_a_new_meter_counts_from_its_beginning():
    """It was made between the polls and its first seconds are not lost."""
    samples = meters(counters([(8, 5.0, 0, 0)], 100), counters([(7, 2.0, 1e6, 0), (8, 10.0, 0, 0)], 105))
    assert samples.offered_bps.tolist() == [4e6, 0]


@pytest.mark.parametrize(("offered", "dropped", "censored"), [
    (0.5, 0, False), (AT_LIMIT - 0.01, 0, False), (AT_LIMIT, 0, True), (0.5, 1, True), (3, 2e6, True),
])  # fmt: skip
def test_usage_at_the_limit_or_cut_is_censored(offered, dropped, censored):
    """Who was held back may have wanted more than what was seen."""
    limit = 1e6
    now = counters([(7, 10.0, offered * limit / 8 * 4, dropped)], 104)
    samples = meters(counters([(7, 6.0, 0, 0)], 100), now, {7: limit})
    assert bool(samples.flags[0] & CENSORED) is censored


def test_a_drop_without_a_known_limit_is_censored_too():
    """The band dropped, whatever its rate was."""
    samples = meters(counters([(7, 6.0, 0, 0)], 100), counters([(7, 10.0, 10, 1)], 104))
    assert samples.flags[0] == CENSORED


def test_a_restarted_meter_counts_from_its_restart():
    """Open vSwitch clears a modified meter and counts its duration on: the interval is ours since then."""
    before, now = counters([(7, 100.0, 9e9, 9e6)], 200), counters([(7, 105.0, 1e6, 0)], 205)
    samples = meters(before, now, restarted={7: 203.0})
    assert (samples.offered_bps[0], samples.interval_s[0]) == (4e6, 2)
    # Even where it has counted more since than it had before.
    samples = meters(counters([(7, 100.0, 10, 0)], 200), now, restarted={7: 203.0})
    assert samples.offered_bps[0] == 4e6


def test_a_restart_just_before_the_poll_is_a_gap():
    """Half a second of traffic says more about when we asked."""
    samples = meters(
        counters([(7, 100.0, 10, 0)], 200), counters([(7, 105.0, 20, 0)], 205), restarted={7: 204.8}
    )
    assert samples.flags[0] == GAP


def test_restarts_are_told_to_the_poll_that_shows_them():
    """What was sent after the request is not in its answer, and is kept for the next one."""
    memory = CounterMemory()
    memory.meters_modified([1, 2], 10.0)
    memory.meters_modified([2], 12.0)
    assert memory.restarts_before(11.0) == {1: 10.0}
    assert memory.restarts_before(13.0) == {2: 12.0}
    assert memory.restarts_before(14.0) == {}


def test_edges_are_left_out_where_nothing_is_known_or_sent():
    """Silence of a pair is no edge; columns stay aligned with what is left."""
    before = counters([(1, 5.0, 0), (2, 5.0, 100), (3, 5.0, 500)], 100, 1)
    now = counters([(1, 9.0, 400), (2, 9.0, 100), (3, 9.0, 50), (4, 2.0, 100)], 104, 1)
    columns = (np.arange(10, 14, dtype=np.uint32), np.arange(20, 24, dtype=np.uint32), np.zeros(4, np.uint32))
    edges = edge_samples(before, now, columns)
    assert edges.src.tolist() == [10, 13]
    assert edges.dst.tolist() == [20, 23]
    assert edges.rate_bps.tolist() == [800, 400]
    assert edges.interval_s.tolist() == [4, 2]


def test_port_rates_are_nan_where_a_counter_is_not_kept():
    """One counter may be missing and the others known."""
    before, now = counters([(1, 5.0, 0, NAN, 0)], 100, 3), counters([(1, 9.0, 400, NAN, 8)], 104, 3)
    ports = port_samples(before, now)
    assert (ports.rx_bps[0], ports.dropped_pps[0]) == (800, 2)
    assert np.isnan(ports.tx_bps[0])


@given(polls(100.0), st.permutations(range(8)))
def test_the_order_of_the_switchs_answer_does_not_matter(poll, order):
    """Switches list meters as they like, and not the same way twice."""
    shuffled = [i for i in order if i < len(poll.ids)]
    again = Counters.sorted(poll.ids[shuffled], poll.values[shuffled], poll.duration_s[shuffled], 100.0)
    assert again.ids.tolist() == poll.ids.tolist()
    np.testing.assert_equal(again.values, poll.values)
    later = replace(poll, time=105.0, duration_s=poll.duration_s + 5)
    np.testing.assert_equal(increase(again, later).amount, increase(poll, later).amount)
