"""A switch that rounds in a way nobody told us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.meters import FOREIGN, MeterSetting
from ryu_apps.rounding import Rounding


def settled(made_of, wanted: MeterSetting, rounds: int = 30) -> tuple[Rounding, MeterSetting, int]:
    """A switch that makes this of rates, asked until it is left alone; and how often it was."""
    rounding, found = Rounding(0.01, 30.0), MeterSetting(1, 1)
    for n in range(rounds):
        if rounding.is_close(wanted, found) or rounding.rests(wanted, found, 0.0):
            return rounding, found, n
        asked = rounding.asked(wanted)
        found = asked._replace(rate_kbps=made_of(asked.rate_kbps))
        rounding.note([(wanted, found)], 0.0)
    raise AssertionError("it is fought for ever")


STEPS = st.integers(2, 5000)
RATES = st.integers(1, 10**7)
MANNERS = {
    "down": lambda step: lambda rate: max(step, rate // step * step),
    "nearest": lambda step: lambda rate: max(step, (rate + step // 2) // step * step),
    "up": lambda step: lambda rate: -(-rate // step) * step,
}


@given(st.sampled_from(sorted(MANNERS)), STEPS, RATES)
def test_no_switch_is_fought_and_none_gives_much_more_than_wanted(manner, step, rate):
    """It ends at most one step above the tolerance where a lower rate exists at all."""
    wanted = MeterSetting(rate, 10)
    _, found, n = settled(MANNERS[manner](step), wanted)
    assert n <= 20
    if rate > 2 * step:
        assert found.rate_kbps <= rate * 1.01


def test_a_rate_within_the_tolerance_is_met_after_the_second_answer():
    """The first may have been a slip."""
    wanted, found = MeterSetting(1000, 10), MeterSetting(1008, 10)
    rounding = Rounding(0.01, 30.0)
    assert not rounding.is_close(wanted, found)
    assert rounding.note([(wanted, found), (wanted, found)], 0.0) == 0
    assert not rounding.is_close(wanted, found)
    assert rounding.note([(wanted, found)], 0.0) == 1
    assert rounding.is_close(wanted, found)
    assert rounding.note([(wanted, found)], 0.0) == 0
    assert not rounding.is_close(wanted, MeterSetting(1009, 10))


def test_a_burst_is_the_switchs_own_affair():
    """One that is cut twice is taken as it is: it harms no parent."""
    rounding = Rounding(0.01, 30.0)
    wanted, found = MeterSetting(1000, 90_000), MeterSetting(1000, 32_000)
    for _ in range(2):
        rounding.note([(wanted, found)], 0.0)
    assert rounding.is_close(wanted, found)


def test_a_rate_far_below_rests_and_is_tried_again_later():
    """It harms nobody above; it is not what was promised either."""
    rounding, found, _ = settled(lambda rate: min(rate, 600), MeterSetting(1000, 10))
    assert found.rate_kbps == 600
    assert not rounding.is_close(MeterSetting(1000, 10), found)
    assert rounding.rests(MeterSetting(1000, 10), found, 29.0)
    assert not rounding.rests(MeterSetting(1000, 10), found, 31.0)


def test_a_switch_that_takes_it_after_all_is_taken_at_its_word():
    """What was learnt of a setting goes when the switch holds exactly that."""
    rounding = Rounding(0.01, 30.0)
    wanted = MeterSetting(1000, 10)
    for _ in range(2):
        rounding.note([(wanted, MeterSetting(2000, 10))], 0.0)
    assert rounding.asked(wanted).rate_kbps < 1000
    rounding.note([(wanted, wanted)], 0.0)
    assert rounding.asked(wanted) == wanted


@pytest.mark.parametrize("found", [FOREIGN, MeterSetting(1000, 10), MeterSetting(1000, 10, 2)])
def test_another_shape_is_never_close(found):
    """A meter that drops is not one that marks."""
    rounding = Rounding(1.0, 30.0)
    wanted = MeterSetting(1000, 10, 1)
    for _ in range(4):
        rounding.note([(wanted, found)], 0.0)
    assert not rounding.is_close(wanted, found)
    assert rounding.rests(wanted, found, 1.0)


def test_memory_is_bounded():
    """Plans bring new rates for ever."""
    rounding = Rounding(0.01, 30.0)
    for rate in range(1, 60_000):
        rounding.note([(MeterSetting(rate, 1), MeterSetting(rate + 1, 1))], 0.0)
    assert len(rounding._seen) <= 50_000
