"""Traffic shapes in a real planner: whom they concern, what they give, and how they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.memory import Memory
from planner.policies import PoolPolicy
from planner.shaping import AddressRange, TrafficShape, priority_of_dscp
from planner.snapshot import Refused
from tests.planner.networks import PLACES, Running, small

NUMBERS = {"anna": 1, "ben": 2, "carla": 3, "david": 4, "emma": 5}


def running() -> Running:
    """Five users with addresses, who all want more than any shape here leaves them."""
    users = {
        user: {
            "macs": [f"00:00:00:00:01:{number:02x}"],
            "addresses": [f"10.0.0.{number}"],
            "guarantee_mbps": 1,
            "ceiling_mbps": 20,
        }
        for user, number in NUMBERS.items()
    }
    made = Running(small(users=users))
    made.offered = dict.fromkeys(PLACES, 9e6)
    made.connect()
    made.tick(count=3)
    return made


def put(made: Running, shape: TrafficShape) -> bool:
    """As the desk does."""
    new = made.planner.shapes.put(shape, made.now)
    made.planner.restructure()
    return new


def shape_of(addresses: str, **more: object) -> TrafficShape:
    return TrafficShape("s", AddressRange.parse(addresses), **more)  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_prefix_holds_what_python_says(number: int, length: int):
    """First and last of a prefix, and nothing beside."""
    mask = (2**32 - 1) << (32 - length) & (2**32 - 1)
    base = ".".join(str((number & mask) >> shift & 255) for shift in (24, 16, 8, 0))
    found = AddressRange.parse(f"{base}/{length}")
    assert found.size == 2 ** (32 - length)
    assert found.first in found
    assert found.last in found
    assert "2001:db8::1" not in found


def test_limit_holds_for_each_user_inside_and_nobody_else():
    """Two are in the range; the third is not, and has what it had."""
    made = running()
    assert put(made, shape_of("10.0.0.1-10.0.0.2", limit_bps=(3e6, 2e6)))
    made.tick(count=2)
    assert made.grant("anna") == made.grant("ben") == [3e6, 2e6]
    assert made.grant("carla")[0] > 3e6
    assert "shape s" in made.planner.policies.names("user:anna")
    assert not put(made, shape_of("10.0.0.1/32", limit_bps=(4e6, 4e6)))
    made.tick(count=2)
    assert made.grant("anna") == [4e6, 4e6]
    assert made.grant("ben")[0] > 4e6


def test_users_that_come_into_the_range_later_are_shaped():
    """An address that is bound to somebody afterwards counts from the next tick on."""
    made = running()
    put(made, shape_of("10.9.0.0/16", limit_bps=(3e6, 3e6)))
    made.tick()
    fleet = made.planner.fleet
    fleet.bindings.give("carla", [], ["10.9.0.7"], made.now)
    fleet.rebind(made.now)
    made.tick(count=2)
    assert made.grant("carla") == [3e6, 3e6]


def test_users_together_draw_on_one_limit():
    """They are a group while the shape lasts, and no group after it."""
    made = running()
    put(made, shape_of("10.0.0.1-10.0.0.2", scope="together", limit_bps=(6e6, 6e6), end=made.now + 12))
    made.tick()
    assert made.grant("shape-s") == [6e6, 6e6]
    assert sum(made.grant(user)[0] for user in ("anna", "ben")) <= 6e6
    made.tick(count=3)
    assert made.planner.shapes.shapes == {}
    assert all(group.id != "shape-s" for group in made.planner.grouping.groups)
    assert made.grant("anna")[0] > 6e6


def test_users_of_another_operators_group_are_not_taken_from_it():
    """The refusal names who and where; nothing is kept of it."""
    made = running()
    made.planner.grouping.pin("crew", ("anna", "carla"), made.now)
    with pytest.raises(Refused, match="anna of crew"):
        put(made, shape_of("10.0.0.0/24", scope="together", limit_bps=(6e6, 6e6)))
    assert made.planner.shapes.shapes == {}


def test_guarantees_must_fit_beside_all_others():
    """Two users of 40 are more than the network's 60."""
    made = running()
    with pytest.raises(Refused, match=r"guarantee_mbps\.up"):
        put(made, shape_of("10.0.0.1-10.0.0.2", guarantee_bps=(40e6, 1e6)))


def test_shapes_outlive_a_restart():
    """A successor shapes the same users."""
    made = running()
    put(made, shape_of("10.0.0.1/32", limit_bps=(3e6, 3e6), dscp=8))
    body = made.planner.memory().to_bytes()
    successor = running()
    successor.planner.restore(Memory.from_bytes(body))
    successor.tick(count=2)
    assert successor.planner.shapes.shapes == made.planner.shapes.shapes
    assert successor.grant("anna") == [3e6, 3e6]


def test_shape_sets_and_its_limit_holds():
    """What it sets stands in place of what was; no guarantee is above the ceiling that is left."""
    shape = shape_of("10.0.0.0/24", guarantee_bps=(5e6, 5e6), limit_bps=(4e6, 9e6), weight=3.0, dscp=46)
    policy = shape.within(shape.over(PoolPolicy((1e6, 1e6), (20e6, 20e6))))
    assert policy == PoolPolicy((4e6, 5e6), (4e6, 9e6), 3.0, 1)


@pytest.mark.parametrize(("dscp", "priority"), [(0, 4), (1, 7), (8, 6), (46, 1), (48, 0), (63, 0)])
def test_markings_stand_for_classes(dscp: int, priority: int):
    """Best effort is normal, lower effort last, expedited forwarding before all but control."""
    assert priority_of_dscp(dscp) == priority
