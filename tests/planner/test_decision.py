"""The reserve that a decision keeps, by what kind of traffic a pool has and how urgent it is."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.burstiness import BURSTY, STEADY, VARYING
from planner.config import Buffer
from planner.decision import _reserve
from planner.snapshot import Level
from tests.planner.networks import small, structure_of

QUANTILE = np.array([0.5, 0.9, 0.95, 0.98])


def reserve_of(kind: int | None, priority: int = 4) -> float:
    """What west keeps whose own quantiles are 10, 11, 12, 13 Mbit/s."""
    regions = {
        "west": {"dpids": [0x11, 0x12], "capacity_mbps": 36, "priority": priority},
        "east": {"dpids": [0x21], "capacity_mbps": 36},
    }
    s = structure_of(small(regions=regions))
    n = len(s.path)
    curve = np.tile([10e6, 11e6, 12e6, 13e6], (n, 1))
    kinds = None if kind is None else np.full(n, kind, np.uint8)
    kept = _reserve(Buffer(max_fraction=0.5), s, curve, QUANTILE, curve[:, 0], kinds, 0)
    assert (kept[s.level == Level.USER] == 0).all()
    return float(kept[s.path.index("global/west")])


@pytest.mark.parametrize(("kind", "kept"), [(STEADY, 1e6), (VARYING, 2e6), (None, 2e6), (BURSTY, 3e6)])
def test_bursty_traffic_keeps_more_of_its_tail(kind: int | None, kept: float):
    """To 0.9, 0.95 and as far as the forecast goes."""
    assert reserve_of(kind) == kept


def test_an_urgent_class_keeps_as_much_as_bursty_traffic():
    """Whatever its traffic was so far."""
    assert reserve_of(STEADY, priority=1) == 3e6
