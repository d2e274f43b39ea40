"""What events do to forecasts, and what is learnt of them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forecasting.event import MAX_UPLIFT, Event
from forecasting.events import (
    MAX_KINDS,
    NO_PHASE,
    Phase,
    Places,
    Shift,
    UpliftLearner,
    apply,
    log_sigma,
    phases,
)

QUANTILES = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
LEVEL = np.zeros(8, np.int64)
EVERYBODY = np.ones((1, 8), bool)


def event(name: str = "e", start: float = 100.0, end: float = 200.0, **more: Any) -> Event:
    return Event(name, more.pop("kind", "match"), start, end, **more)


# One event.


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"kind": ""},
        {"end": 100.0},
        {"end": math.inf},
        {"expected_uplift": 0.0},
        {"start": math.nan},
    ],
)
def test_event_that_breaks_a_rule_is_refused(wrong: dict[str, Any]):
    """An event checks itself: nothing behind it has to."""
    with pytest.raises(ValueError):
        Event(**{"id": "e", "kind": "match", "start": 100.0, "end": 200.0, **wrong})


def test_phase_follows_from_where_the_edges_lie():
    """Only an edge between what was known and what is said of makes a forecast wrong."""
    one = [event()]
    assert phases(one, 90, [95, 100, 199, 200]).tolist() == [[NO_PHASE, Phase.ONSET, Phase.ONSET, NO_PHASE]]
    assert phases(one, 150, [160, 250]).tolist() == [[Phase.DURING, Phase.AFTER]]
    assert phases(one, 200, [210]).tolist() == [[NO_PHASE]]


# Whom it concerns.

PATH = ("global", "global/w", "global/e", "global/w/lab", "global/e/lab", "global/e/x",
        "global/w/lab/anna", "global/w/lab/ben", "global/e/lab/carl", "global/e/x/dora", "global/e/x/emma")  # fmt: skip
PARENT = np.array([-1, 0, 0, 1, 2, 2, 3, 3, 4, 5, 5])


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ((), set(PATH)),
        (("w",), {"global/w", "global/w/lab", "global/w/lab/anna", "global/w/lab/ben"}),
        (("e/x",), {"global/e", "global/e/x", "global/e/x/dora", "global/e/x/emma"}),
        (("user:carl",), {"global/e/lab", "global/e/lab/carl"}),
        (("group:lab",), set(PATH) - {"global/e", "global/e/x", "global/e/x/dora", "global/e/x/emma"}),
        (("user:zoe", "nowhere", "group:w", "user:lab"), set()),
    ],
)
def test_scope_concerns_pools_below_and_those_mostly_in_it(scope: tuple[str, ...], expected: set[str]):
    """All pools below, and those above of which it is at least half."""
    covered = Places(PATH, PARENT).covered(scope)
    assert {path for path, is_in in zip(PATH, covered, strict=True) if is_in} == expected


def test_tree_without_pools_concerns_nobody():
    """Before the first structure there is nothing to cover."""
    places = Places((), np.empty(0, np.int64))
    assert places.covered(("w",)).shape == (0,)
    assert places.top_depth(()) is None


# The forecast with it.

demands = hnp.arrays(
    np.float32, (3, 2, 6), elements=st.floats(0, 2.0**39, width=32) | st.sampled_from([0.0, 2.0**-90])
).map(lambda demand: np.sort(demand, axis=-1))


def shift_of(mean: float, variance: float, acts: bool = True) -> Shift:
    shape = (2, 2)
    return Shift(np.array([0, 2]), np.full(shape, mean), np.full(shape, variance), np.full(shape, acts))


@given(demands, st.floats(-50, 50), st.floats(0, 100))
def test_quantiles_stay_finite_and_do_not_cross(demand: np.ndarray, mean: float, variance: float):
    """Whatever an event is said to do, the result is a forecast."""
    adjusted = apply(demand, QUANTILES, shift_of(mean, variance))
    assert np.isfinite(adjusted).all()
    assert (adjusted >= 0).all()
    assert (np.diff(adjusted, axis=-1) >= 0).all()


@given(demands, st.floats(-5, 5), st.floats(0, 4))
def test_nothing_changes_where_no_event_acts(demand: np.ndarray, mean: float, variance: float):
    """Bit for bit: other series, other horizons, and the array that was given."""
    before = demand.copy()
    assert apply(demand, QUANTILES, None) is demand
    acting = shift_of(mean, variance)
    acting.acts[:, 1] = False
    adjusted = apply(demand, QUANTILES, acting)
    assert adjusted[1].tobytes() == before[1].tobytes()
    assert adjusted[:, 1].tobytes() == before[:, 1].tobytes()
    assert demand.tobytes() == before.tobytes()


@given(
    demands.map(lambda demand: np.minimum(demand, 1e9) + np.float32(1)),
    st.floats(-2, 2),
    st.floats(0, 2),
    st.floats(0.01, 2),
)
def test_more_uncertainty_is_wider(demand: np.ndarray, mean: float, variance: float, more: float):
    """The unsure forecast holds the sure one inside, and both have one median."""
    sure = apply(demand, QUANTILES, shift_of(mean, variance))[0].astype(float)
    unsure = apply(demand, QUANTILES, shift_of(mean, variance + more))[0].astype(float)
    assert (unsure[:, 0] <= sure[:, 0] * 1.00001).all()
    assert (unsure[:, -1] >= sure[:, -1] * 0.99999).all()
    np.testing.assert_allclose(unsure[:, 2], sure[:, 2], rtol=1e-5)


def test_two_normal_causes_give_the_quantiles_of_their_sum():
    """A forecast that is lognormal by 0.3 and an event by 0.4 are lognormal by 0.5."""
    z = np.array([-1.2815515655, -0.6744897502, 0.0, 0.6744897502, 1.2815515655, 2.0537489106])
    demand = np.exp(10 + 0.3 * z).astype(np.float32)[None, None]
    shift = Shift(np.array([0]), np.full((1, 1), 1.0), np.full((1, 1), 0.16), np.ones((1, 1), bool))
    np.testing.assert_allclose(apply(demand, QUANTILES, shift)[0, 0], np.exp(11 + 0.5 * z), rtol=1e-4)
    np.testing.assert_allclose(log_sigma(demand * 1e6, QUANTILES), 0.3, rtol=1e-3)


def test_no_rate_beyond_any_link():
    """However large the factor, the rate is bounded."""
    demand = np.full((3, 2, 6), 9e8, np.float32)
    assert apply(demand, QUANTILES, shift_of(4, 1), 1e9).max() <= 1e9


# What is learnt.


def hold(learner: UpliftLearner, name: str, factor: float, **more: Any) -> None:
    """One event of so many steps, which multiplied eight series by a factor."""
    rng = more.pop("rng", None)
    steps, phase = more.pop("steps", 10), more.pop("phase", Phase.ONSET)
    one = [event(name, **more)]
    for _ in range(steps):
        noise = np.exp(rng.normal(0, 0.1, 8)) if rng is not None else np.ones(8)
        made = np.full(8, 1e7)
        learner.observe(
            one, EVERYBODY, np.array([phase]), made * factor * noise, made, np.full(8, 0.1), LEVEL
        )
    learner.close(1000.0, 0.0)


def test_without_past_events_nothing_is_certain():
    """No shift, but a band; an announced factor is the middle of as wide a one."""
    learner = UpliftLearner()
    unknown = learner.effect("match", 0)
    assert (unknown.mean, unknown.n_events) == (0.0, 0.0)
    assert unknown.factor(0.9) > 1.5
    announced = learner.effect("match", 0, expected_uplift=3.0)
    assert announced.factor() == pytest.approx(3.0)
    assert announced.variance == unknown.variance
    assert learner.effect("match", 0, Phase.AFTER, 3.0).factor() == pytest.approx(1 / 3)
    assert learner.effect("match", 0, Phase.DURING, 3.0).mean == 0.0


def test_learning_converges_on_what_events_do():
    """After many events of a factor near 2, that is what is expected, and ever more surely."""
    learner, rng = UpliftLearner(), np.random.default_rng(1)
    sigma = [learner.effect("match", 0).variance]
    for number in range(40):
        hold(learner, f"e{number}", 2.0 * math.exp(rng.normal(0, 0.05)), rng=rng)
        sigma.append(learner.effect("match", 0).variance)
    effect = learner.effect("match", 0)
    assert effect.factor() == pytest.approx(2.0, rel=0.06)
    assert sigma[-1] < sigma[10] < sigma[1]
    assert math.sqrt(effect.variance) < 0.2


def test_scatter_between_events_stays():
    """Where events differ for good, no number of them makes the next one certain."""
    learner, rng = UpliftLearner(), np.random.default_rng(2)
    for number in range(200):
        hold(learner, f"e{number}", math.exp(rng.normal(0, 0.5)), steps=1)
    assert math.sqrt(learner.effect("match", 0).variance) == pytest.approx(0.5, rel=0.15)


def test_an_hour_is_one_observation():
    """Sixty minutes of one event weigh as much as one minute."""
    short, long = UpliftLearner(), UpliftLearner()
    hold(short, "e", 4.0, steps=1)
    hold(long, "e", 4.0, steps=60)
    assert long.effect("match", 0) == short.effect("match", 0)
    assert long.effect("match", 0).n_events == 1.0
    assert long.effect("match", 0).factor() < 3.0


def test_one_surprising_event_does_not_make_sure():
    """After a first event far from what was thought, less is certain than before."""
    learner = UpliftLearner()
    before = learner.effect("match", 0).variance
    hold(learner, "e", 8.0)
    assert learner.effect("match", 0).variance > before


def test_evidence_overrules_what_was_announced():
    """An operator who always says 10 where it is 1.5 is heeded less and less."""
    learner = UpliftLearner()
    for number in range(30):
        hold(learner, f"e{number}", 1.5, expected_uplift=10.0)
    assert learner.effect("match", 0, expected_uplift=10.0).factor() == pytest.approx(1.5, rel=0.1)


def test_kinds_phases_and_levels_are_apart():
    """What a match does to a region says nothing of exams, of its end, or of users."""
    learner = UpliftLearner()
    hold(learner, "e", 4.0)
    fresh = UpliftLearner().effect("match", 0)
    assert learner.effect("match", 0).mean > 0.5
    assert learner.effect("exam", 0) == learner.effect("match", 1) == fresh
    assert learner.effect("match", 0, Phase.AFTER).mean == 0.0
    assert (learner.kinds, learner.levels("match")) == (("match",), (0,))


def test_event_counts_once_it_is_over():
    """What is under way moves nothing yet: half an event is not an observation."""
    learner = UpliftLearner()
    made = np.full(8, 1e7)
    learner.observe([event()], EVERYBODY, np.array([Phase.ONSET]), 4 * made, made, np.zeros(8), LEVEL)
    learner.close(200.0, 30.0)
    assert learner.effect("match", 0).n_events == 0
    learner.close(231.0, 30.0)
    assert learner.effect("match", 0).n_events == 1


def test_gaps_and_idle_series_say_nothing():
    """NaN is no sample, and nothing over nothing no factor."""
    learner = UpliftLearner()
    came = np.array([np.nan] * 4 + [5000.0] * 4)
    made = np.array([1e7] * 4 + [10.0] * 4)
    learner.observe([event()], EVERYBODY, np.array([Phase.ONSET]), came, made, np.zeros(8), LEVEL)
    learner.close(1000.0, 0.0)
    assert learner.kinds == ()


def test_series_that_wakes_up_counts_within_bounds():
    """From nothing to much is a large factor, not an infinite one."""
    learner = UpliftLearner()
    learner.observe(
        [event()], EVERYBODY, np.array([Phase.ONSET]), np.full(8, 1e9), np.zeros(8), np.zeros(8), LEVEL
    )
    learner.close(1000.0, 0.0)
    assert learner.effect("match", 0).factor() == pytest.approx(math.sqrt(MAX_UPLIFT))


def test_overlapping_events_share_what_happened():
    """Their means and variances add, and what came is credited by how unsure each was."""
    learner = UpliftLearner()
    for number in range(30):
        hold(learner, f"e{number}", 3.0)
    two = [event("a"), event("b", kind="storm")]
    cover = np.ones((2, 8), bool)
    known, unknown = (learner.effect(kind, 0) for kind in ("match", "storm"))
    shift = learner.shift(two, cover, np.zeros((2, 1), np.int8), LEVEL)
    assert shift is not None
    np.testing.assert_allclose(shift.mean, known.mean + unknown.mean)
    np.testing.assert_allclose(shift.variance, known.variance + unknown.variance)
    made = np.full(8, 1e7)
    learner.observe(two, cover, np.zeros(2, np.int8), 6 * made, made, np.zeros(8), LEVEL)
    learner.close(1000.0, 0.0)
    storm = learner.effect("storm", 0)
    # The match explains a factor of 3; the storm, of which nothing was known, the rest.
    assert 1.2 < storm.factor() < 2.0
    assert 0.7 < storm.n_events < 1.0
    assert learner.effect("match", 0).n_events == pytest.approx(31 - storm.n_events)


def test_shift_names_only_series_and_horizons_that_events_reach():
    """Somebody else's event is no event."""
    learner = UpliftLearner()
    cover = np.zeros((1, 8), bool)
    assert learner.shift([event()], cover, np.zeros((1, 2), np.int8), LEVEL) is None
    cover[0, 3] = True
    shift = learner.shift([event()], cover, np.array([[NO_PHASE, Phase.ONSET]], np.int8), LEVEL)
    assert shift is not None
    assert (shift.rows.tolist(), shift.acts.tolist()) == ([3], [[False, True]])
    assert learner.shift([event()], cover, np.array([[NO_PHASE, NO_PHASE]], np.int8), LEVEL) is None


def test_kinds_are_bounded():
    """Tags are free text of others; the least seen are forgotten."""
    learner = UpliftLearner()
    for _ in range(2):
        hold(learner, "keep", 2.0, steps=1, kind="keep")
    for number in range(MAX_KINDS + 5):
        hold(learner, f"e{number}", 2.0, steps=1, kind=f"kind-{number:04d}")
    assert len(learner.kinds) == MAX_KINDS
    assert "keep" in learner.kinds


# Restarts.


def test_state_survives_as_json():
    """Evidence and events under way are as before, through JSON."""
    learner = UpliftLearner()
    hold(learner, "e", 3.0)
    made = np.full(8, 1e7)
    learner.observe([event("f")], EVERYBODY, np.array([Phase.AFTER]), made / 2, made, np.zeros(8), LEVEL)
    other = UpliftLearner()
    other.restore(json.loads(json.dumps(learner.state())))
    for one in (learner, other):
        one.close(1000.0, 0.0)
    assert other.state() == learner.state()
    assert other.effect("match", 0, Phase.AFTER).n_events == 1


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"evidence": 3, "open": []},
        {"evidence": [["match", 0, 0, {"weight": math.nan}]], "open": []},
        {"evidence": [["match", 0, 0, {"weight": -1.0}]], "open": []},
        {"evidence": [["match", 0, 0, {"mean": 1e5}]], "open": []},
        {"evidence": [["match", 9, 0, {}]], "open": []},
        {"evidence": [["match", 0, -1, {}]], "open": []},
        {"evidence": [["", 0, 0, {}]], "open": []},
        {"evidence": [["match", 0, 0, {"x": 1.0}]], "open": []},
        {"evidence": [["match", 0, 0, {"mean": "1"}]], "open": []},
        {"evidence": [], "open": [["e", "match", 9.0, [[0, 0, {"steps": 0}]]]]},
    ],
)
def test_damaged_state_changes_nothing(state: dict[str, Any]):
    """A swapped file can lose what was learnt, not put nonsense in its place."""
    learner = UpliftLearner()
    hold(learner, "e", 3.0)
    before = learner.state()
    with pytest.raises(ValueError, match="malformed"):
        learner.restore(state)
    assert learner.state() == before
