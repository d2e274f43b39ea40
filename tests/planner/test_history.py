"""The ring of demand: a column for good, refilled from the store, groups seeded by their members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from planner.config import Forecasting
from planner.history import DemandHistory
from planner.structure import Structure
from telemetry.ring import Window
from tests.planner.networks import PLACES, START, network, small, structure_of

STEP = Forecasting(step_s=5, train_steps=32, window_steps=16)


def fill(history: DemandHistory, s: Structure, now: float, steps: int = 8) -> float:
    """Every user offers its row number in Mbit/s, in both directions; groups offer 0 to tell them apart."""
    columns = history.columns(s, now)
    offered = np.where(s.level == 3, np.arange(len(s.path)) * 1e6, 0.0)
    for _ in range(steps):
        now += 5
        history.add(now, columns, np.stack([offered, offered]), np.zeros((2, len(s.path)), bool), 5.0)
    return now


def of(history: DemandHistory, s: Structure, series: str, now: float, steps: int = 8) -> list[float]:
    """A series' upload history."""
    recent = history.recent(s, history.columns(s, now), now, steps)
    values: list[float] = recent.demand_bps[:, s.series.index(series)].tolist()
    return values


def test_series_keep_their_columns():
    """Who moves or is away for a while finds its past where it was."""
    config = small()
    history = DemandHistory(STEP, 10)
    s = structure_of(config)
    now = fill(history, s, START)
    anna = s.series.index("user/anna") * 1e6
    moved = structure_of(config, network(config, {"anna": 0x21}))
    assert of(history, moved, "user/anna", now) == [anna] * 8
    assert of(history, s, "user/anna", now) == [anna] * 8


def test_new_group_has_the_past_of_its_members():
    """After a re-clustering a new group's history is the sum of its members', not empty."""
    config = small()
    history = DemandHistory(STEP, 10)
    s = structure_of(config)
    now = fill(history, s, START)
    after = structure_of(config, groups={"studio": {"anna", "carla"}, "lab": {"david", "emma"}})
    for group, members in {"studio@west": ("anna", "carla"), "lab@east": ("david", "emma")}.items():
        wanted = sum(s.series.index(f"user/{member}") for member in members) * 1e6
        assert of(history, after, f"group/{group}", now) == [wanted] * 8


def test_group_with_an_unknown_member_is_unknown():
    """The past of a group is not made up from the members that were there."""
    config = small()
    history = DemandHistory(STEP, 10)
    s = structure_of(config, network(config, {"ben": 0x11}))
    now = fill(history, s, START)
    after = structure_of(config, network(config, PLACES), {"studio": {"anna", "ben"}})
    assert np.isnan(of(history, after, "group/studio@west", now)).all()


def test_seeding_leaves_measured_groups_alone():
    """A group that has a past of its own keeps it when members come."""
    config = small()
    history = DemandHistory(STEP, 10)
    s = structure_of(config, groups={"studio": {"anna"}})
    now = fill(history, s, START)
    after = structure_of(config, groups={"studio": {"anna", "ben"}})
    assert of(history, after, "group/studio@west", now) == [0.0] * 8


def test_new_group_is_censored_where_most_of_it_was():
    """A seeded step is censored if more than half of what members offered was."""
    config = small()
    history = DemandHistory(STEP, 10)
    s = structure_of(config)
    columns = history.columns(s, START)
    offered = np.full((2, len(s.path)), 1e6)
    flagged = np.zeros((2, len(s.path)), bool)
    anna, ben = s.series.index("user/anna"), s.series.index("user/ben")
    offered[:, anna], offered[1, ben] = 3e6, 7e6
    flagged[:, anna] = True
    history.add(START + 5, columns, offered, flagged, 5.0)
    after = structure_of(config, groups={"studio": {"anna", "ben"}})
    recent = history.recent(after, history.columns(after, START + 5), START + 5, 1)
    studio = after.series.index("group/studio@west")
    assert recent.censored[0, [studio, studio + len(after.path)]].tolist() == [True, False]


def test_store_refills_new_series():
    """After a restart every series is asked of the store, each direction for itself."""
    asked = []

    def load(since: float, until: float, step_s: int, names: Sequence[str], direction: int) -> Window:
        asked.append((step_s, direction, len(names)))
        steps = int(until // step_s) - int(-(-since // step_s))
        demand = np.full((steps, len(names)), 1e6 * (direction + 1), np.float32)
        return Window(step_s, until // step_s * step_s, demand, np.zeros(demand.shape, bool))

    s = structure_of(small())
    history = DemandHistory(STEP, 10, load)
    recent = history.recent(s, history.columns(s, START), START, 4)
    n = len(s.path)
    assert asked == [(5, 0, n), (5, 1, n)]
    assert (recent.demand_bps[:, :n] == 1e6).all()
    assert (recent.demand_bps[:, n:] == 2e6).all()
    history.columns(s, START + 5)
    assert len(asked) == 2


def test_columns_are_in_reserve_for_groups_yet_to_be_found():
    """Growing copies the whole ring, so a re-clustering of many users does not make it grow."""
    users = {f"u{i}": {"macs": [f"00:00:00:00:01:{i:02x}"]} for i in range(100)}
    config = small(users=users)
    report = network(config, dict.fromkeys(users, 0x11))
    history = DemandHistory(STEP, 10)
    history.columns(structure_of(config, report), START)
    before = history.ring.n_series
    groups = {f"g{k}": {f"u{i}" for i in range(k, 100, 10)} for k in range(10)}
    history.columns(structure_of(config, report, groups), START)
    assert history.ring.n_series == before


@pytest.mark.parametrize("step_s", [0.5, 2.5])
def test_steps_that_the_store_cannot_answer_start_empty(step_s: float):
    """The store answers in whole seconds; with other steps there is no past, and no error."""

    def load(*_: object) -> Window:
        raise AssertionError("asked")

    s = structure_of(small())
    history = DemandHistory(Forecasting(step_s=step_s), 10, load)
    assert np.isnan(history.recent(s, history.columns(s, START), START, 4).demand_bps).all()
