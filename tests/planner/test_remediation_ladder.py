"""The ladder: in order, rarely enough, never too wide, and nothing that did not help stays."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.config_remediation import Congestion
from planner.remediation.elapsed import Elapsed
from planner.remediation.ladder import End, Remedy, Take, at_most
from planner.remediation.steps import Measures, Option, Rung, Signal, Standing, World

NAN = math.nan
TICK_S = 5.0
WORLD = World(users=40, groups=10, regions=4)
RULES = Congestion(
    mode="act", raise_ticks=3, clear_ticks=2, judge_ticks=4, cooldown_s=20, hold_s=300, scale_every_s=400
)


def options(user: str = "anna", group: str = "g1", region: str = "west") -> tuple[Option, ...]:
    """One of each rung."""
    return (
        Option(Rung.REALLOCATE, Measures(limits={user: (1e6, 1e6)}, regions=(region,)), "hold"),
        Option(
            Rung.RECOMPOSE, Measures(apart=(user,), regroup=True, groups=(group,), regions=(region,)), "move"
        ),
        Option(Rung.SCALE, Measures(), "call"),
    )


def signal(value: float, place: str = "global/west", offered: tuple[Option, ...] | None = None) -> Signal:
    return Signal("unmet_demand", place, 0, value, 0.1, 0.08, {}, options() if offered is None else offered)


@dataclass
class Run:
    """A remedy, a clock, and what came of it."""

    remedy: Remedy = field(default_factory=lambda: Remedy(RULES))
    now: float = 1e6
    log: list[tuple[float, object]] = field(default_factory=list)

    def tick(self, value: float | None, count: int = 1, acting: bool = True) -> list[str]:
        """So many ticks with this figure; None: no figure at all. Gives what was done, in words."""
        said = []
        for _ in range(count):
            self.now += TICK_S
            for action in self.remedy.step(self.now, [] if value is None else [signal(value)], WORLD, acting):
                self.log.append((self.now, action))
                rung = action.option.rung.value if isinstance(action, Take) else "end"
                said.append(f"{rung} {action.standing.value}")
        return said


def test_nothing_is_done_before_it_lasted():
    """Two ticks are no trouble, three are; one good tick between begins the count anew."""
    run = Run()
    assert run.tick(0.5, 2) + run.tick(0.09) + run.tick(0.5, 2) == []
    assert run.tick(0.5) == ["reallocate tried"]


def test_what_does_not_help_is_undone_and_the_next_rung_is_tried():
    """The whole ladder, in order; a scaling event is raised again only after its own time."""
    run = Run()
    said = run.tick(0.5, 40)
    assert said == [
        "reallocate tried", "end undone", "recompose tried", "end undone", "scale raised",
    ]  # fmt: skip
    assert run.tick(0.5, 60) == ["scale raised"]
    assert run.remedy.in_force() == []


def test_cooldown_lies_between_an_undo_and_the_next_step():
    """A place is left alone for as long as is configured."""
    run = Run()
    run.tick(0.5, 40)
    moments = [(at, type(action)) for at, action in run.log]
    for (before, kind), (after, then) in pairwise(moments):
        if kind is End and then is Take:
            assert after - before >= RULES.cooldown_s


def test_what_helped_is_kept_for_its_time_and_then_taken_back():
    """Well again: helped; after ``hold_s`` it ends by itself."""
    run = Run()
    assert run.tick(0.5, 3) == ["reallocate tried"]
    assert run.tick(0.01, 2) == ["end helped"]
    assert run.tick(0.01, 57) == []
    assert run.tick(0.01, 1) == ["end ended"]
    run.tick(0.01, 10)
    assert run.remedy.troubles == {}


def test_less_but_still_too_much_is_help_and_goes_on():
    """A fall by more than the configured share counts; the next rung comes on top of it."""
    run = Run()
    assert run.tick(0.5, 3) == ["reallocate tried"]
    assert run.tick(0.3, 4) == ["end helped", "recompose tried"]
    assert {one.rung for one in run.remedy.in_force()} == {Rung.REALLOCATE, Rung.RECOMPOSE}


def test_help_of_less_than_the_configured_share_is_none():
    """From 0.5 to 0.42 is 16 %, with 20 % asked for."""
    run = Run()
    run.tick(0.5, 3)
    assert run.tick(0.42, 4) == ["end undone"]
    end = run.log[-1][1]
    assert isinstance(end, End)
    assert end.value == pytest.approx(0.42)
    assert end.reason == "it fell by 16%, less than 20%"


@pytest.mark.parametrize("gap", [NAN, None])
def test_what_is_not_known_moves_nothing_until_time_is_up(gap: float | None):
    """No judgement on no figures; after ``hold_s`` what nobody can judge is taken back."""
    run = Run()
    run.tick(0.5, 3)
    assert run.tick(gap, 59) == []
    assert run.tick(gap) == ["end undone"]
    end = run.log[-1][1]
    assert isinstance(end, End)
    assert math.isnan(end.value)


def test_gaps_do_not_count_as_congestion():
    """However many NaN come, nothing is done."""
    run = Run()
    run.tick(0.5, 2)
    assert run.tick(NAN, 20) == []
    assert run.tick(0.5) == ["reallocate tried"]


def test_observing_proposes_every_rung_and_takes_none():
    """What would be done is on record; only the scaling event is real."""
    run = Run()
    said = run.tick(0.5, 20, acting=False)
    assert said == ["reallocate proposed", "recompose proposed", "scale raised"]
    assert run.remedy.in_force() == []


def test_rungs_that_have_nothing_to_offer_are_passed_over():
    """Where nothing can be reallocated the ladder begins higher."""
    remedy, now, said = Remedy(RULES), 0.0, []
    for _ in range(30):
        now += TICK_S
        said += remedy.step(now, [signal(0.5, offered=options()[2:])], WORLD)
    assert [action.option.rung for action in said if isinstance(action, Take)] == [Rung.SCALE]


def test_configured_ladder_is_followed():
    """Only the rungs that are named, in their order; without scaling it ends."""
    remedy = Remedy(RULES.model_copy(update={"ladder": ("recompose", "reallocate")}))
    now, rungs = 0.0, []
    for _ in range(200):
        now += TICK_S
        rungs += [a.option.rung for a in remedy.step(now, [signal(0.5)], WORLD) if isinstance(a, Take)]
    assert rungs == [Rung.RECOMPOSE, Rung.REALLOCATE]


def test_undo_by_order_takes_it_back_and_cools_down():
    """What an operator undid is not judged any more, and nothing else is tried at once."""
    run = Run()
    run.tick(0.5, 3)
    (doing,) = run.remedy.in_force()
    assert run.remedy.undo(doing.number)
    assert not run.remedy.undo(doing.number)
    assert run.tick(0.5, 3) == []
    assert run.tick(0.5, 1) == ["recompose tried"]


def test_a_successor_goes_on_where_it_was():
    """Through JSON, in mid-judgement: the same end at the same tick, and downtime counts as time."""
    run, twin = Run(), Run()
    for one in (run, twin):
        one.tick(0.5, 5)
    measures = {doing.number: doing.measures for doing in run.remedy.in_force()}
    after = Remedy(RULES)
    after.restore(json.loads(json.dumps(run.remedy.state())), measures)
    assert after.troubles == run.remedy.troubles
    run.remedy = after
    assert run.tick(0.5, 40) == twin.tick(0.5, 40)
    late = Remedy(RULES)
    late.restore(json.loads(json.dumps(after.state())), {})
    late.step(run.now + 1000, [], WORLD)
    assert late.troubles == {}


@pytest.mark.parametrize("state", [{}, {"troubles": 1}, {"troubles": [["a", 0, {}]], "elapsed": [0, None], "number": 1}])  # fmt: skip
def test_a_state_that_is_none_is_a_value_error(state: dict[str, object]):
    """And nothing changes."""
    remedy = Remedy(RULES)
    with pytest.raises(ValueError, match="remediation state is malformed"):
        remedy.restore(state, {})
    assert remedy.troubles == {}


def test_elapsed_never_goes_back():
    """A clock set back by a day costs the day and no more."""
    elapsed = Elapsed()
    for now in (100.0, 110.0, NAN, 10.0, 15.0):
        elapsed.until(now)
    assert elapsed.seconds == 15.0


@pytest.mark.parametrize(("share", "n", "most"), [(0, 10, 0), (0.05, 10, 1), (0.2, 10, 2), (0.29, 10, 2), (1, 3, 3), (0.1, 0, 1)])  # fmt: skip
def test_at_most(share: float, n: int, most: int):
    """One at least where a share is allowed at all; rounding never adds one."""
    assert at_most(share, n) == most


figures = st.one_of(
    st.none(), st.sampled_from([NAN, 0.0, 0.05, 0.09, 0.1, 0.3, 0.5, math.inf]), st.floats(0, 2)
)
ticks = st.lists(
    st.tuples(
        st.sampled_from([TICK_S, TICK_S, TICK_S, 0.0, -3600.0, 1.0, 86_400.0]),
        st.lists(figures, min_size=5, max_size=5),
        st.booleans(),
    ),
    max_size=60,
)
rules = st.builds(
    Congestion,
    mode=st.just("act"),
    raise_ticks=st.integers(1, 3),
    clear_ticks=st.integers(1, 3),
    judge_ticks=st.integers(1, 5),
    cooldown_s=st.sampled_from([0.0, 12.0, 60.0]),
    hold_s=st.sampled_from([20.0, 200.0]),
    max_users=st.sampled_from([0.0, 0.05, 0.1]),
    max_groups=st.sampled_from([0.0, 0.2, 1.0]),
    max_regions=st.sampled_from([0.25, 0.5, 1.0]),
)


def places(values: list[float | None]) -> list[Signal]:
    """Five places in three regions, each with users and a group of its own."""
    return [
        signal(value, f"place{at}", options(f"u{at}", f"g{at}", f"r{at % 3}"))
        for at, value in enumerate(values)
        if value is not None
    ]


@settings(max_examples=300, deadline=None)
@given(rules, ticks)
def test_whatever_comes_the_ladder_keeps_its_promises(rules: Congestion, ticks: list[Any]):
    """Within the blast radius; every step ends helped, ended or undone; cooldowns hold; clocks may jump."""
    remedy, now, elapsed = Remedy(rules), 1e6, Elapsed()
    tried: dict[int, Standing] = {}
    last: dict[tuple[str, int], float] = {}
    calm = [(TICK_S, [0.0] * 5, True)] * (60 + round(rules.hold_s / TICK_S))
    for delta, values, acting in [*ticks, *calm]:
        now += delta
        elapsed.until(now)
        for action in remedy.step(now, places(values), WORLD, acting):
            key = action.signal.key if isinstance(action, Take) else action.key
            if isinstance(action, Take):
                assert elapsed.seconds - last.get(key, -math.inf) >= rules.cooldown_s
                assert action.signal.value >= action.signal.high
                assert acting or action.standing is not Standing.TRIED
                if action.standing is Standing.TRIED:
                    assert action.number not in tried
                    tried[action.number] = Standing.TRIED
                last[key] = elapsed.seconds
            else:
                assert tried[action.number] in (Standing.TRIED, Standing.HELPED)
                tried[action.number] = action.standing
                if action.standing is not Standing.HELPED:
                    last[key] = elapsed.seconds
        doing = [one.measures for one in remedy.in_force()]
        assert len({user for one in doing for user in one.users}) <= at_most(rules.max_users, WORLD.users)
        assert len({group for one in doing for group in one.groups}) <= at_most(
            rules.max_groups, WORLD.groups
        )
        assert len({r for one in doing for r in one.regions}) <= at_most(rules.max_regions, WORLD.regions)
    # All has been well for longer than anything is held: nothing is left, and nothing is open.
    assert remedy.in_force() == []
    assert set(tried.values()) <= {Standing.ENDED, Standing.UNDONE}
    assert remedy.troubles == {}
