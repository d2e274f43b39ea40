"""Meter ids: stable while wanted, within the budget, the same after a restart."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.meter_ids import SHARED, MeterIds

first_owners = st.lists(st.sampled_from([f"pool{i}" for i in range(6)]), unique=True)
then_owners = st.lists(
    st.tuples(st.sampled_from([f"user{i}" for i in range(12)]), st.integers(0, 1)),
    unique_by=lambda owner: owner,
)
calls = st.lists(st.tuples(first_owners, then_owners, st.integers(0, 16)), min_size=1, max_size=8)


def named(then: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """As the structure names them: an owner is a series and a direction."""
    return [(f"{name}:{direction}", direction) for name, direction in then]


@settings(max_examples=300)
@given(calls)
def test_ids_are_within_the_budget_and_one_for_each_owner(sequence):
    """Whatever comes and goes: ids are 1..budget, nobody shares but through the shared meters."""
    ids = MeterIds()
    for first, then, budget in sequence:
        given_ids = ids.assign(7, first, named(then), budget)
        assert all(1 <= number <= budget for number in given_ids.values())
        shared = {given_ids[name] for name in SHARED if name in given_ids}
        alone = [number for number in given_ids.values() if number not in shared]
        assert len(set(alone)) == len(alone)
        # Those that must have a meter come before all that may share.
        assert set(first[:budget]) <= given_ids.keys()
        if budget >= len(first) + len(then):
            assert given_ids.keys() == {*first, *(name for name, _ in named(then))}


@settings(max_examples=200)
@given(calls)
def test_owners_keep_their_ids(sequence):
    """An owner with a meter of its own before and after has the same one, if the budget still holds it."""
    ids = MeterIds()
    before: dict[str, int] = {}
    for first, then, budget in sequence:
        now = ids.assign(7, first, named(then), budget)
        for name, number in now.items():
            own = now.get(SHARED[0]) != number != now.get(SHARED[1])
            was_own = before.get(SHARED[0]) != before.get(name) != before.get(SHARED[1])
            if name in before and own and was_own and before[name] <= budget:
                assert number == before[name], name
        before = now


@settings(max_examples=100)
@given(calls, calls)
def test_a_successor_gives_the_same_ids(past, future):
    """State through JSON and back: both go on alike."""
    ids = MeterIds()
    for first, then, budget in past:
        ids.assign(7, first, named(then), budget)
    successor = MeterIds.restore(json.loads(json.dumps(ids.state())))
    for first, then, budget in future:
        assert ids.assign(7, first, named(then), budget) == successor.assign(7, first, named(then), budget)


def test_freed_ids_rest_until_no_other_is_left():
    """A packet on its way may still go through a meter that was freed, so the next id is a new one."""
    ids = MeterIds()
    assert ids.assign(1, ["a", "b"], [], 4) == {"a": 1, "b": 2}
    assert ids.assign(1, ["b", "c"], [], 4) == {"b": 2, "c": 3}
    assert ids.assign(1, ["b", "d"], [], 4) == {"b": 2, "d": 4}
    assert ids.assign(1, ["b", "e"], [], 4) == {"b": 2, "e": 1}


def test_switches_are_separate():
    """Each switch counts its own meters."""
    ids = MeterIds()
    assert ids.assign(1, ["a"], [], 4) == ids.assign(2, ["a"], [], 4) == {"a": 1}
