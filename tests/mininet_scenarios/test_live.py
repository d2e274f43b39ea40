import io

import pytest
from rich.console import Console

from mininet_scenarios import live
from mininet_scenarios.demo import Outcome
from mininet_scenarios.readback import Comparison
from mininet_scenarios.schedule import demo_schedule
from mininet_scenarios.traffic import Measured

UNKNOWN = {"offered_bps": None, "delivered_bps": None, "p50_bps": None, "p90_bps": None, "grant_bps": None}
KNOWN = {"offered_bps": 12.34e6, "delivered_bps": 0.0, "p50_bps": 5e6, "p90_bps": 7e6, "grant_bps": 8e6}
POOLS = [
    {"path": "global", "level": "global", "up": KNOWN, "down": UNKNOWN},
    {"path": "global/west", "level": "region", "up": KNOWN, "down": UNKNOWN},
    {"path": "global/west/g1/anna", "level": "user", "up": KNOWN, "down": UNKNOWN},
]


@pytest.mark.parametrize(("rate", "said"), [(12.34e6, "12.3"), (0, "0.0"), (None, "-"), (float("nan"), "-")])
def test_unknown_is_not_zero(rate, said):
    """Nothing known is a dash; nothing sent is 0.0."""
    assert live.mbps(rate) == said


def test_the_table_shows_every_pool():
    """Each pool has a row, indented by its depth, with upload and download."""
    output = io.StringIO()
    Console(file=output, width=160).print(live.screen("here", POOLS))
    text = output.getvalue()
    assert "here" in text
    assert "      anna" in text
    assert text.count("12.3") == 3


def test_plain_lines_leave_users_out():
    """A log gets the status, regions and groups; users are in the summary."""
    lines = live.plain("here", POOLS)
    assert lines[0] == "here"
    assert len(lines) == 3
    assert "offered 12.3 p50 5.0 p90 7.0 grant 8.0 measured 0.0" in lines[1]


def outcome(equal, received):
    flow = demo_schedule(200)[0]
    difference = () if equal else ("dp 0000000000000011 meter 1: differs",)
    return Outcome([Comparison(1, 5, difference)], [Measured(flow, rate) for rate in received])


def test_the_demo_passes_only_on_evidence():
    """Equal meters and arriving traffic; no reading and no flow prove nothing."""
    assert outcome(True, [1e6] * 10).meters_equal
    assert outcome(True, [1e6] * 10).flowed
    assert not outcome(False, [1e6]).meters_equal
    assert not outcome(True, [1e6] * 8 + [float("nan")] * 2).flowed
    assert not Outcome().meters_equal
    assert not Outcome().flowed
