"""What a switch can do, from its own words, its make and the operator's; and settings as it will read them back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.config_enforcement import Enforcement
from ryu_apps.framework import ofproto_v1_3 as ofp
from ryu_apps.meters import MeterSetting
from ryu_apps.quirks import MeterFeatures, Quirks, differences, learnt, quirks_of

FEATURES = MeterFeatures(max_meters=1000, band_types=1 << ofp.OFPMBT_DROP, capabilities=15, max_bands=8)


def quirks(description: str = "", features: MeterFeatures = FEATURES, **settings: object) -> Quirks:
    return quirks_of(0xA1, description, 12, features, Enforcement.model_validate(settings))


def test_what_a_switch_says_is_believed():
    """Bands, units, counters, how many."""
    assert quirks() == Quirks(max_meters=1000, max_bands=8, max_tables=12)
    can_remark = replace(FEATURES, band_types=1 << ofp.OFPMBT_DROP | 1 << ofp.OFPMBT_DSCP_REMARK)
    assert quirks(features=can_remark).remark
    packets = replace(FEATURES, capabilities=ofp.OFPMF_PKTPS)
    assert (quirks(features=packets).kbps, quirks(features=packets).budget) == (False, 0)
    plain = quirks(features=replace(FEATURES, capabilities=ofp.OFPMF_KBPS))
    assert (plain.burst, plain.counters, plain.flags) == (False, False, ofp.OFPMF_KBPS)


def test_a_switch_that_states_no_unit_states_nothing():
    """Zeroes in the features are a switch's silence, not its poverty."""
    assert quirks(features=MeterFeatures(10, 0, 0, 0)) == Quirks(max_meters=10, max_tables=12)


def test_known_makes_are_recognised():
    """By what stands in their description."""
    assert quirks("Nicira, Inc. Open vSwitch 3.1.0").clears_on_modify
    centec = quirks("Centec V350")
    assert (centec.min_burst_kbit, centec.max_burst_kbit) == (1024, 32_000)
    assert quirks("NoviFlow Inc NS21100 NW400.6.4").settable(MeterSetting(1000, 9999)) == (
        1000,
        1005,
        0,
        0,
        0,
    )


def test_the_operator_has_the_last_word():
    """Over the make, which is over what the switch says; the switch's own entry is over its make's."""
    told = quirks(
        "Centec V350",
        makes={"Centec": {"max_burst_kbit": 64_000, "rate_step_kbps": 8}, "Other": {"modify": False}},
        switches={
            "00000000000000a1": {"rate_step_kbps": 64, "max_meters": 10, "max_tables": 5},
            "a2": {"kbps": False},
        },
    )
    assert (told.max_burst_kbit, told.min_burst_kbit, told.rate_step_kbps) == (64_000, 1024, 64)
    assert (told.max_meters, told.max_tables, told.modify, told.kbps) == (10, 5, True, True)


def test_room_for_a_plan():
    """Ids of others are not ours, and where nothing can be modified every meter needs two."""
    assert Quirks(max_meters=100).budget == 100
    assert Quirks(max_meters=100, first_meter_id=32).budget == 69
    assert Quirks(max_meters=100, first_meter_id=32, modify=False).budget == 34
    assert Quirks(max_meters=10, first_meter_id=32).budget == 0


TRAITS = st.builds(
    Quirks,
    rate_step_kbps=st.integers(1, 100),
    min_rate_kbps=st.integers(1, 200),
    max_rate_kbps=st.integers(1000, 10**6),
    burst_step_kbit=st.integers(1, 100),
    min_burst_kbit=st.integers(0, 200),
    max_burst_kbit=st.integers(1000, 10**6),
    max_burst_s=st.floats(0.01, 10),
    burst=st.booleans(),
)
RATES = st.integers(1, 2**32 - 1)
WANTED = st.builds(MeterSetting, RATES, RATES, st.just(0), st.just(0), st.just(0)) | st.builds(
    MeterSetting, RATES, RATES, st.integers(1, 3), RATES, RATES
)


@given(TRAITS, WANTED)
def test_a_setting_is_one_that_the_switch_has_and_never_above_what_is_wanted(traits, wanted):
    """Except that no rate is below the least; and what is settable stays as it is."""
    setting = traits.settable(wanted)
    least = -(-traits.min_rate_kbps // traits.rate_step_kbps) * traits.rate_step_kbps
    assert setting.rate_kbps % traits.rate_step_kbps == 0
    assert least <= setting.rate_kbps <= max(wanted.rate_kbps, least)
    assert setting.rate_kbps <= traits.max_rate_kbps
    assert setting.burst_kbit % traits.burst_step_kbit == 0
    assert traits.settable(setting) == setting
    assert traits.as_read(setting) == setting
    if not traits.burst:
        assert (setting.burst_kbit, setting.drop_burst_kbit) == (0, 0)


def test_a_switch_without_quirks_takes_everything_as_it_is():
    """Nothing is lost where nothing needs to be."""
    for setting in (MeterSetting(1, 0), MeterSetting(2**32 - 1, 2**32 - 1), MeterSetting(7, 8, 1, 9, 10)):
        assert Quirks().settable(setting) == setting


@pytest.mark.parametrize(
    ("code", "modifying", "lost"),
    [
        (ofp.OFPMMFC_BAD_COMMAND, True, "modify True -> False"),
        (ofp.OFPMMFC_BAD_COMMAND, False, ""),
        (ofp.OFPMMFC_BAD_FLAGS, False, "burst True -> False"),
        (ofp.OFPMMFC_BAD_BAND, True, "remark True -> False"),
        (ofp.OFPMMFC_OUT_OF_BANDS, False, "remark True -> False"),
        (ofp.OFPMMFC_UNKNOWN_METER, True, ""),
        (ofp.OFPMMFC_BAD_RATE, True, ""),
    ],
)
def test_a_refusal_teaches(code, modifying, lost):
    """What the switch said it could and cannot is not tried again."""
    before = Quirks(remark=True)
    assert differences(before, learnt(before, code, modifying)) == lost


def test_flags_are_given_up_one_by_one():
    """Bursts first, the unit last: without it nothing can be metered."""
    now, given_up = Quirks(max_meters=9), []
    for _ in range(4):
        now, before = learnt(now, ofp.OFPMMFC_BAD_FLAGS, False), now
        given_up.append(differences(before, now))
    assert given_up == ["burst True -> False", "counters True -> False", "kbps True -> False", ""]
    assert now.budget == 0
