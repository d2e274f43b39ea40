"""The ring of demand: a column for good, refilled from the store, groups seeded by their members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from forecasting.seasonal import blocks_of, recalled
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


def test_past_of_a_group_follows_its_members():
    """Who joins brings its past, and who leaves takes it along; other groups, and who is in none, keep theirs."""
    config = small()
    history = DemandHistory(STEP, 10)
    s = structure_of(config, groups={"studio": {"anna"}, "lab": {"david"}})
    now = fill(history, s, START)
    after = structure_of(config, groups={"studio": {"anna", "ben"}, "lab": {"david"}})
    anna, ben = (s.series.index(f"user/{user}") * 1e6 for user in ("anna", "ben"))
    assert of(history, after, "group/studio@west", now) == [anna + ben] * 8
    assert of(history, after, "group/lab@east", now) == [0.0] * 8
    assert of(history, after, "group/ungrouped@west", now) == [0.0] * 8
    gone = structure_of(config, groups={"studio": {"ben"}, "lab": {"david"}})
    assert of(history, gone, "group/studio@west", now) == [ben] * 8


def test_group_keeps_its_past_where_a_new_members_is_not_known():
    """What was measured of the group is better than nothing."""
    config = small()
    history = DemandHistory(STEP, 10)
    places = {"anna": 0x11, "carla": 0x12}
    s = structure_of(config, network(config, places), {"studio": {"anna", "carla"}})
    now = fill(history, s, START)
    after = structure_of(config, network(config, PLACES), {"studio": {"anna", "carla", "ben"}})
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


# Yesterday and last week.

MINUTES = Forecasting(step_s=60, horizons_s=(60, 300, 900), train_steps=40, window_steps=16)


def a_week(rng: np.random.Generator, n: int, minutes: int) -> np.ndarray:
    """Demand by minute, of shape (minutes, 2, n), with gaps and a daily cycle."""
    cycle = 1 + 0.5 * np.sin(2 * np.pi * np.arange(minutes) / 1440)[:, None, None]
    demand = 1e6 * cycle * rng.lognormal(0, 0.5, (minutes, 2, n))
    demand[rng.random(demand.shape) < 0.05] = np.nan
    return np.asarray(demand, np.float32).astype(np.float64)


def test_recalled_is_what_the_whole_past_says():
    """The ring of blocks gives what the blocks of every minute of eight days give."""
    s = structure_of(small())
    history, minutes = DemandHistory(MINUTES, 10), 8 * 1440 + 37
    columns = history.columns(s, START)
    demand = a_week(np.random.default_rng(3), len(s.path), minutes)
    end = START // 60 * 60
    for row in demand:
        end += 60
        history.add(end, columns, row, np.zeros(row.shape, bool), 60.0)
    found = history.recent(s, columns, end, 4).recalled_bps
    ahead = np.array([1, 5, 15])
    wanted = recalled(blocks_of(demand.reshape(minutes, -1).astype(np.float32), 60.0, end), end, ahead, 60.0)
    assert found is not None
    assert found.shape == (2, 4, 2 * len(s.path))
    assert not np.isnan(found).any()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_training_is_given_the_blocks():
    """The rows may be of hours; the blocks are of days, and of the same series."""
    s = structure_of(small())
    history = DemandHistory(MINUTES, 10)
    columns = history.columns(s, START)
    now, n = START // 900 * 900, len(s.path)
    for _ in range(60):
        now += 60
        history.add(now, columns, np.full((2, n), 1e6), np.zeros((2, n), bool), 60.0)
    sample = history.sample(s, columns, now, 20)
    assert sample.blocks is not None
    measured = ~np.isnan(sample.blocks.mean_bps)
    assert measured.sum(axis=0).tolist() == [4] * 2 * n
    assert (sample.blocks.first + int(np.flatnonzero(measured[:, 0])[-1]) + 1) * 900 == now


def test_many_series_remember_fewer_days_but_always_one():
    """Memory is bounded; yesterday is kept at any size."""
    days = [DemandHistory(Forecasting(), n).blocks.capacity_steps / 96 for n in (100, 20_000, 500_000)]
    assert days[0] > 8
    assert 1 < days[1] < 8
    assert 1 < days[2] < 1.3


def test_new_group_has_yesterday_too():
    """The blocks of a new group are the sums of its members'."""
    s = structure_of(small())
    history = DemandHistory(MINUTES, 10)
    columns, now = history.columns(s, START), START // 900 * 900
    offered = np.ones((2, len(s.path))) * 1e6
    for _ in range(30 * 4):
        now += 900
        history.add(now, columns, offered, np.zeros(offered.shape, bool), 900.0)
    after = structure_of(small(), groups={"studio": {"anna", "carla"}})
    found = history.recent(after, history.columns(after, now), now, 4).recalled_bps
    assert found is not None
    assert found[0, :, after.series.index("group/studio@west")].tolist() == [2e6] * 4


class Past:
    """A store of which every series always offered 1 Mbit/s up and 2 Mbit/s down."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float, int, int]] = []

    def load(self, since: float, until: float, step_s: int, names: Sequence[str], direction: int) -> Window:
        self.asked.append((since, until, step_s, len(names)))
        first, last = -int(-since // step_s), int(until // step_s)
        demand = np.full((last - first, len(names)), 1e6 * (direction + 1), np.float32)
        return Window(step_s, last * step_s, demand, np.zeros(demand.shape, bool))


def test_blocks_are_read_piece_by_piece_those_needed_first():
    """After a restart a tick reads a few blocks; what forecasts look back to now comes first."""
    past, s = Past(), structure_of(small())
    history = DemandHistory(MINUTES, 10, past.load)
    columns = history.columns(s, START)
    del past.asked[:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planner.history._READ_ROWS", 8 * 2 * 15 * len(s.path))
        for _ in range(2):
            history.recall(START)
        found = history.recent(s, columns, START, 4).recalled_bps
        assert found is not None
        assert not np.isnan(found).any()
        assert max(until - since for since, until, *_ in past.asked) == 8 * 900
        for _ in range(200):
            history.recall(START)
    blocks = history.sample(s, columns, START, 20).blocks
    assert blocks is not None
    n = len(s.path)
    assert (blocks.mean_bps[:, :n] == 1e6).all()
    assert (blocks.mean_bps[:, n:] == 2e6).all()
    asked = len(past.asked)
    history.recall(START)
    assert len(past.asked) == asked


def test_what_could_not_be_read_is_read_again():
    """A store that fails once costs a tick."""
    past, s, fail = Past(), structure_of(small()), True

    def load(*arguments: Any) -> Window:
        if fail:
            raise OSError("disk")
        return past.load(*arguments)

    history = DemandHistory(MINUTES.model_copy(update={"step_s": 0.5}), 10, load)
    history.columns(s, START)
    with pytest.raises(OSError, match="disk"):
        history.recall(START)
    fail = False
    history.recall(START)
    assert past.asked
