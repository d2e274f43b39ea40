"""Isolation: by rule, of few, never of the protected, and never for ever."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.config_remediation import IsolationBlock, IsolationRule
from planner.remediation.isolation import Isolate, Isolator, Release, Suspect

RULES = IsolationBlock(mode="act", for_s=60, max_users=2)


def suspect(user: str = "anna", alarm: int = 1, times: int = 1, **more: Any) -> Suspect:
    values: dict[str, Any] = {
        "kind": "fan_out", "severity": "critical", "realised": 400.0, "high": 20.0, **more,
    }  # fmt: skip
    return Suspect(user, alarm, times, **values)


def users(actions: list[Isolate | Release]) -> list[str]:
    return [one.suspect.user if isinstance(one, Isolate) else f"-{one.user}" for one in actions]


def test_a_severe_alarm_isolates_once_and_for_a_time():
    """While the alarm stands the user is free again after its time, and the same opening isolates no more."""
    isolator = Isolator(RULES)
    assert users(isolator.step(0, [suspect()], ())) == ["anna"]
    assert isolator.step(59, [suspect()], ()) == []
    (release,) = isolator.step(60, [suspect()], ())
    assert release == Release("anna", 1, helped=False)
    assert isolator.step(120, [suspect()], ()) == []
    assert users(isolator.step(125, [suspect(times=2)], ())) == ["anna"]


def test_an_alarm_that_closed_meanwhile_was_helped():
    """As far as anybody can tell."""
    isolator = Isolator(RULES)
    isolator.step(0, [suspect()], ())
    assert isolator.step(60, [], ()) == [Release("anna", 1, helped=True)]


@pytest.mark.parametrize(
    ("rules", "more", "isolates"),
    [
        ((), {}, True),
        ((), {"severity": "major"}, False),
        ((), {"kind": "spike", "realised": 200.0}, True),
        ((), {"kind": "spike", "realised": 199.0}, False),
        ((), {"kind": "spike", "realised": math.nan}, False),
        ((), {"kind": "spike", "high": 0.0}, True),
        ((), {"kind": "shift"}, False),
        ((IsolationRule(kind="shift", severity="minor"),), {"kind": "shift", "severity": "minor"}, True),
        ((IsolationRule(kind="shift", severity="minor"),), {}, False),
    ],
)
def test_rules_say_whom(rules: tuple[IsolationRule, ...], more: dict[str, Any], isolates: bool):
    """Kind, severity, and how far beyond what was expected; what is not known isolates nobody."""
    isolator = Isolator(RULES.model_copy(update={"rules": rules}))
    assert bool(isolator.step(0, [suspect(**more)], ())) is isolates


def test_the_worst_come_first_where_there_is_not_room_for_all():
    """The others wait, and are isolated when there is room and their alarms still stand."""
    isolator = Isolator(RULES)
    found = [suspect(f"u{n}", n, realised=100.0 * n) for n in range(1, 5)]
    assert users(isolator.step(0, found, ())) == ["u4", "u3"]
    assert sorted(users(isolator.step(60, found, ()))) == ["-u3", "-u4", "u1", "u2"]


def test_protected_users_are_never_isolated_and_at_once_released():
    """Also when they become protected later."""
    isolator = Isolator(RULES)
    assert isolator.step(0, [suspect()], {"anna"}) == []
    assert users(isolator.step(5, [suspect()], ())) == ["anna"]
    assert users(isolator.step(10, [suspect()], {"anna"})) == ["-anna"]


def test_proposals_isolate_nobody():
    """Each is made once."""
    isolator = Isolator(RULES)
    (proposed,) = isolator.step(0, [suspect()], (), acting=False)
    assert isinstance(proposed, Isolate)
    assert not proposed.acting
    assert isolator.held == {}
    assert isolator.step(5, [suspect()], (), acting=False) == []


def test_lifted_by_hand_is_left_alone_for_a_while():
    """Who was lifted is not isolated again by the next alarm at once."""
    isolator = Isolator(RULES)
    isolator.step(0, [suspect()], ())
    assert isolator.lift("anna")
    assert not isolator.lift("anna")
    assert isolator.step(30, [suspect(alarm=2)], ()) == []
    assert users(isolator.step(60, [suspect(alarm=3)], ())) == ["anna"]


def test_a_successor_goes_on_with_the_same_end():
    """Through JSON; what passed meanwhile counts."""
    isolator = Isolator(RULES)
    isolator.step(0, [suspect()], ())
    after = Isolator(RULES)
    after.restore(json.loads(json.dumps(isolator.state())))
    assert after.held == isolator.held
    assert after.step(59, [suspect()], ()) == []
    assert users(after.step(60, [suspect()], ())) == ["-anna"]
    with pytest.raises(ValueError, match="remediation state is malformed"):
        after.restore({"held": 3})


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 3),
    st.lists(
        st.tuples(
            st.sampled_from([5.0, 5.0, 30.0, 0.0, -1000.0, 1e6]),
            st.sets(st.integers(0, 7)),
            st.sets(st.integers(0, 7), max_size=2),
            st.booleans(),
        ),
        max_size=60,
    ),
)
def test_never_too_many_never_the_protected_never_for_ever(most: int, ticks: list[Any]):
    """Whatever alarms come and however the clock jumps."""
    isolator = Isolator(RULES.model_copy(update={"max_users": most}))
    now = 0.0
    held: set[str] = set()
    for at, (delta, alarmed, safe, acting) in enumerate([*ticks, *[(30.0, set(), set(), True)] * 3]):
        now += delta
        protected = {f"u{n}" for n in safe}
        found = [suspect(f"u{n}", alarm=10 * at + n) for n in sorted(alarmed)]
        for action in isolator.step(now, found, protected, acting):
            if isinstance(action, Release):
                held.remove(action.user)
            elif action.acting:
                assert action.suspect.user not in held
                held.add(action.suspect.user)
        assert held == set(isolator.held)
        assert len(held) <= most
        assert not held & protected
    assert held == set()
