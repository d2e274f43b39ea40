"""Events in the planner: what they do to its forecasts, what it learns, what operators may do, and restarts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forecasting.event import Event
from forecasting.events import Phase
from forecasting.forecast import Forecast, Rung
from planner.config import parse
from planner.config_events import Announcement, Events
from planner.config_faults import ConfigError
from planner.events.desk import MAX_ANNOUNCED, EventDesk
from planner.events.listed import read_json
from planner.events.parsed import Defaults
from planner.events.uplift import EventUplift
from planner.history import level_of_series
from planner.prediction import Arrived
from planner.process import PlannerProcess
from planner.snapshot import NotThere, Refused
from planner.structure import Structure
from tests.planner.networks import PLACES, START, Running, small, structure_of
from tests.planner.test_process import config_in

STEP_S = 60.0
HORIZONS_S = np.array([60.0, 300.0])
QUANTILES = np.array([0.1, 0.5, 0.9])
BASE_BPS = 1e7


def forecast_of(structure: Structure, end_time: float, rung: Rung = Rung.MODEL) -> Forecast:
    """The same for every series: as a model that knows of no event."""
    n = 2 * len(structure.path)
    demand = np.tile(np.array([0.8, 1.0, 1.25], np.float32) * np.float32(BASE_BPS), (n, 2, 1))
    return Forecast(QUANTILES, HORIZONS_S, demand, np.full(n, int(rung), np.uint8), end_time)


class World:
    """A structure whose demand is what the test says, step by step, through ``adjust`` and ``arrived``."""

    def __init__(self, rung: Rung = Rung.MODEL) -> None:
        self.structure = structure_of(small())
        self.uplift = EventUplift(STEP_S, HORIZONS_S.tolist(), 1e10)
        self.now = START
        self.rung = rung
        self.censored = False

    def row(self, path: str) -> int:
        return self.structure.path.index(path)

    def step(self, factor: Any = 1.0) -> Forecast:
        """One completed step in which every series had ``factor`` times what the model expects."""
        self.now += STEP_S
        n = 2 * len(self.structure.path)
        demand = np.full(n, BASE_BPS, np.float32) * np.float32(factor)
        empty = np.full((n, 3), np.nan, np.float32)
        self.uplift.arrived(
            Arrived(
                self.structure,
                np.arange(n),
                self.now,
                demand,
                np.full(n, self.censored),
                QUANTILES,
                empty,
                np.full(n, self.rung, np.uint8),
            )
        )
        return self.uplift.adjust(self.structure, forecast_of(self.structure, self.now, self.rung), self.now)

    def hold(self, name: str, factor: float, steps: int = 12, **more: Any) -> None:
        """One event from its announcement to well after it; nothing else happens in between.

        The model expects no more than before all through, so every phase sees the factor of onset.
        """
        start = self.now + 4 * STEP_S
        self.uplift.calendar = (Event(name, "match", start, start + steps * STEP_S, **more),)
        for _ in range(steps + 16):
            inside = start <= self.now + STEP_S / 2 < start + steps * STEP_S
            self.step(factor if inside else 1.0)
        self.uplift.calendar = ()


def test_without_events_the_forecast_is_the_same_object():
    """Nothing announced costs nothing and changes nothing."""
    world = World()
    plain = forecast_of(world.structure, START)
    assert world.uplift.adjust(world.structure, plain, START) is plain
    world.uplift.calendar = (Event("far", "match", START + 86400, START + 90000),)
    assert world.uplift.adjust(world.structure, plain, START) is plain
    world.uplift.calendar = (Event("gone", "match", START - 9000, START - 8000),)
    assert world.uplift.adjust(world.structure, plain, START) is plain


def test_event_moves_only_its_scope_and_its_horizons():
    """A match in the west begins in three minutes: the five-minute forecast of the west rises, and no other."""
    world = World()
    world.uplift.calendar = (Event("m", "match", START + 180, START + 7200, ("west",), 3.0),)
    plain = forecast_of(world.structure, START)
    moved = world.uplift.adjust(world.structure, plain, START)
    west = np.array([path.startswith("global/west") for path in world.structure.path])
    # Three of five users are in the west, so it is most of the whole network.
    west[world.row("global")] = True
    both = np.tile(west, 2)
    assert moved.demand_bps[both, 1, 1] == pytest.approx(3 * BASE_BPS)
    assert (moved.demand_bps[both, 1, 2] > 3 * 1.25 * BASE_BPS).all()
    assert moved.demand_bps[:, 0].tobytes() == plain.demand_bps[:, 0].tobytes()
    assert moved.demand_bps[~both].tobytes() == plain.demand_bps[~both].tobytes()


def test_event_that_is_on_is_not_counted_twice():
    """The model has seen its level: the forecast stays in the middle, until the end comes near."""
    world = World()
    world.uplift.calendar = (Event("m", "match", START - 3600, START + 200, (), 4.0),)
    moved = world.uplift.adjust(world.structure, forecast_of(world.structure, START), START)
    assert moved.demand_bps[0, 0, 1] == pytest.approx(BASE_BPS)
    assert moved.demand_bps[0, 1, 1] == pytest.approx(BASE_BPS / 4)


def test_uplift_is_learnt_from_what_came():
    """After some matches of factor 3 the forecast rises before the next one, although nobody announced how much."""
    world = World()
    levels = level_of_series(world.structure)
    spread = []
    for number in range(6):
        world.hold(f"m{number}", 3.0)
        effect = world.uplift.learner.effect("match", int(levels[0]))
        assert effect.n_events == number + 1
        spread.append(effect.variance)
    assert effect.factor() == pytest.approx(3.0, rel=0.2)
    assert spread[-1] < spread[0]
    start = world.now + 180
    world.uplift.calendar = (Event("next", "match", start, start + 600),)
    moved = world.uplift.adjust(world.structure, forecast_of(world.structure, world.now), world.now)
    assert moved.demand_bps[0, 1, 1] > 2.4 * BASE_BPS


def test_an_hour_of_one_event_is_one_observation():
    """As long as it lasts, as many series as it has, and at every horizon."""
    world = World()
    world.hold("m", 3.0, steps=60)
    for level in np.unique(level_of_series(world.structure)):
        for phase in Phase:
            assert world.uplift.learner.effect("match", int(level), phase).n_events == 1.0


def test_direction_and_level_are_learnt_apart():
    """An event of downloads does not raise uploads."""
    world = World()
    n = len(world.structure.path)
    world.hold("m", 1.0)
    quiet = world.uplift.learner.effect("match", 0).factor()
    world.uplift = EventUplift(STEP_S, HORIZONS_S.tolist(), 1e10)
    start = world.now + 240
    world.uplift.calendar = (Event("d", "match", start, start + 600),)
    for _ in range(25):
        inside = start <= world.now + 30 < start + 600
        world.step(np.repeat([1.0, 5.0 if inside else 1.0], n))
    assert world.uplift.learner.effect("match", 0).factor() == pytest.approx(quiet, rel=1e-3)
    assert world.uplift.learner.effect("match", 1).factor() > 2.0


def test_censored_samples_and_lower_rungs_teach_nothing():
    """Under a full meter nobody knows what was wanted; auto-bandwidth is no median to compare with."""
    full, blind = World(), World(Rung.AUTO_BANDWIDTH)
    full.censored = True
    for world in (full, blind):
        world.hold("m", 3.0)
        assert world.uplift.learner.kinds == ()


def test_series_are_followed_through_a_new_structure():
    """Users moved to a new group in the middle of it: their rows are others, they are the same."""
    world = World()
    start = world.now + 120
    world.uplift.calendar = (Event("m", "match", start, start + 600, ("user:emma",)),)
    for number in range(25):
        if number == 3:
            world.structure = structure_of(small(), groups={"lab": {"anna", "emma"}})
        inside = start <= world.now + 30 < start + 600
        emma = np.tile([path.endswith("/emma") for path in world.structure.path], 2)
        world.step(np.where(emma & inside, 4.0, 1.0))
    assert world.uplift.learner.effect("match", 6).factor() == pytest.approx(2.0, rel=0.01)


def test_clock_set_back_drops_the_future():
    """Forecasts made in what is now the future teach nothing."""
    world = World()
    world.uplift.calendar = (Event("m", "match", START + 90, START + 600),)
    world.step()
    world.now -= 3600
    world.uplift.calendar = ()
    world.step()
    assert not world.uplift._issued


def test_scheduled_says_where_something_was_announced():
    """What happens there is no alarm; a little before and after neither."""
    world = World()
    world.step()
    world.uplift.calendar = (Event("m", "match", START, START + 600, ("user:emma",)),)
    emma = np.tile([path.endswith("/emma") for path in world.structure.path], 2)
    assert (world.uplift.scheduled(world.structure, START)[emma]).all()
    assert not world.uplift.scheduled(world.structure, START)[world.row("global")]
    assert not world.uplift.scheduled(world.structure, START + 600).any()
    assert world.uplift.scheduled(world.structure, START + 600, tail_s=60).any()
    assert world.uplift.scheduled(world.structure, START - 30, lead_s=60).any()


def test_planner_forecasts_with_its_events():
    """Joined to a running planner, an event about to begin raises what it forecasts of those concerned."""
    quantile = {}
    for expected in (None, 3.0):
        running = Running(small())
        known = running.planner.prediction.settings
        uplift = EventUplift(known.step_s, known.horizons_s, known.max_rate_bps)
        uplift.join(running.planner.prediction)
        running.offered = dict.fromkeys(PLACES, 2e6)
        running.connect()
        running.tick(count=6)
        if expected:
            uplift.calendar = (Event("m", "match", running.now + 10, running.now + 600, ("east",), expected),)
        running.tick()
        pools = running.planner.snapshot.pools
        quantile[expected] = [float(pools.p50_bps[0, running.row(user)]) for user in ("anna", "emma")]
        assert running.planner.prediction.problems == ()
    assert quantile[3.0][0] == quantile[None][0]
    assert quantile[3.0][1] == pytest.approx(3 * quantile[None][1], rel=0.01)


# What operators do.


def desk_of(**settings: Any) -> EventDesk:
    return EventDesk(Events(**settings), EventUplift(60.0, (60.0, 300.0), 1e10), now=lambda: START)


def announcement(name: str = "fete", start: float = START + 60, end: float = START + 120) -> Announcement:
    return Announcement.model_validate({"id": name, "kind": "party", "start": start, "end": end})


def names(desk: EventDesk) -> list[str]:
    return [event.id for event in desk.uplift.calendar]


def test_announcement_is_at_once_in_the_calendar():
    """And gone when it is taken back; both are kept."""
    kept: list[list[str]] = []
    desk = EventDesk(
        Events(), EventUplift(60.0, (60.0,), 1e10), lambda: kept.append(names(desk)), lambda: START
    )
    desk.announce(announcement())
    desk.withdraw("fete")
    assert kept == [["fete"], []]


def test_refused_announcements():
    """An id twice, in the file or here; what is over; one too many."""
    filed = {"id": "open-day", "kind": "visit", "start": "2100-01-01", "end": "2100-01-02"}
    desk = desk_of(announcements=[filed])
    desk.announce(announcement())
    for name in ("fete", "open-day"):
        with pytest.raises(Refused, match=f"events.{name} must be a new id"):
            desk.announce(announcement(name))
    with pytest.raises(Refused, match="must not be past"):
        desk.announce(announcement("late", START - 60, START))
    with pytest.raises(Refused, match="end must be after start"):
        desk.announce(announcement("none", START + 60, START + 60))
    for number in range(MAX_ANNOUNCED - 1):
        desk.announce(announcement(f"e{number}"))
    with pytest.raises(Refused, match="at most"):
        desk.announce(announcement("one-more"))


def test_events_are_withdrawn_where_they_come_from():
    """The file's events are the file's; nobody's are not there."""
    filed = {"id": "open-day", "kind": "visit", "start": "2100-01-01", "end": "2100-01-02"}
    desk = desk_of(announcements=[filed])
    with pytest.raises(Refused, match="withdrawn where it comes from: file"):
        desk.withdraw("open-day")
    with pytest.raises(NotThere, match="zoe"):
        desk.withdraw("zoe")


def test_announcements_long_over_are_forgotten():
    """A day after the end nobody needs them."""
    desk = desk_of()
    desk.announce(announcement())
    desk.refresh(START + 3600)
    assert names(desk) == ["fete"]
    desk.refresh(START + 2 * 86400)
    assert names(desk) == []


def test_view_shows_what_is_ahead_and_what_is_expected_of_it():
    """By start, with the range of the factor; what is over is not shown."""
    world = World()
    desk = EventDesk(Events(), world.uplift, now=lambda: START)
    world.step()
    desk.announce(announcement())
    view = desk.view(START)
    (shown,) = view.events
    assert shown.level == 0
    up, down = shown.uplift
    assert up == down
    assert up.p10 < up.p50 == 1.0 < up.p90
    assert desk.view(START + 120).events == ()
    world.hold("m", 3.0)
    assert {(one.kind, one.level) for one in desk.view(START).kinds} == {
        ("match", level) for level in range(4)
    }


# Restarts.


def test_state_outlives_a_restart(tmp_path: Path):
    """Announcements, what was learnt, and the last events of a feed that is dead by then."""
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"id": "a", "start": START, "end": START + 600}]))
    settings = {"feeds": {"stadium": {"format": "json", "file": str(file)}}}
    desk = desk_of(**settings)
    desk.announce(announcement())
    desk.refresh(START)
    world = World()
    world.hold("m", 3.0)
    body = desk.state(world.uplift.state())
    file.unlink()
    successor = desk_of(**settings)
    successor.restore(body)
    successor.refresh(START + 60)
    assert names(successor) == ["stadium/a", "fete"]
    assert successor.uplift.learner.effect("match", 0) == world.uplift.learner.effect("match", 0)
    (feed,) = successor.view(START + 60).feeds
    assert (feed.stale, feed.last_success) == (True, START)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"learnt": {}, "announced": [], "feeds": {}}', b"\xff"]
)
def test_damaged_state_changes_nothing(body: bytes):
    """What cannot be read is said, and the rest goes on."""
    desk = desk_of()
    desk.announce(announcement())
    with pytest.raises(ValueError, match="malformed"):
        desk.restore(body)
    assert names(desk) == ["fete"]


def test_announcement_is_on_disk_when_acknowledged(tmp_path: Path):
    """The next planner knows it, even if this one is killed now."""
    config = config_in(tmp_path)
    process = PlannerProcess(config)
    process.events.announce(announcement("fete", 4e9, 4e9 + 60))
    stored = process._store.get_state("events")
    process.stop()
    assert stored is not None
    assert [entry["id"] for entry in json.loads(stored)["announced"]] == ["fete"]
    successor = PlannerProcess(config)
    assert [one.event.id for one in successor.events.view(START).events] == ["fete"]
    successor.stop()


# The file.


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ({"time_zone": "Mars/Olympus"}, "events.time_zone must be a zone such as Europe/Berlin, got 'Mars/Olympus'"),
        ({"feeds": {"a": {"format": "json"}}}, "events.feeds.a must have url or file, got neither"),
        (
            {"feeds": {"a": {"format": "json", "url": "https://u:hidden@h/"}}},
            "events.feeds.a.url must not hold a user or password; use token_file",
        ),
        (
            {"feeds": {"a": {"format": "json", "url": "ftp://h/x"}}},
            "events.feeds.a.url must be like https://host/path or file:///path, got scheme 'ftp'",
        ),
        (
            {"feeds": {"a": {"format": "json", "url": "http://h/", "token_file": "t"}}},
            "events.feeds.a.token_file must not be sent without TLS, got scheme 'http'",
        ),
        ({"feeds": {"a/b": {"format": "json", "file": "x"}}}, "events.feeds.a/b must be a name"),
        ({"feeds": {"a": {"format": "json", "file": "x", "refresh_s": 1}}}, "events.feeds.a.refresh_s must be >= 5, got 1"),
        (
            {"holidays": {"h": {"country": "XX"}}},
            "events.holidays.h.country must be a country whose holidays are known, got 'XX'",
        ),
        ({"holidays": {"h": {"country": "DE", "subdivision": "ZZ"}}}, "events.holidays.h.subdivision must be one of BB,"),
        (
            {"announcements": [{"id": "a", "kind": "k", "start": "2026-01-02", "end": "2026-01-01"}]},
            "events.announcements.0.end must be after start 2026-01-02, got 2026-01-01",
        ),
        (
            {"announcements": [{"id": "a", "kind": "k", "start": "2026-01-01", "end": "2026-01-01"}] * 2},
            "events.announcements.1.id must be new, got 'a' twice",
        ),
    ],
)  # fmt: skip
def test_file_that_breaks_a_rule_names_it(events: dict[str, Any], fault: str):
    """Path, rule and value; a URL that holds a secret is not shown."""
    raw = {"capacity_mbps": 10, "regions": {"a": {"dpids": [1], "capacity_mbps": 10}}, "events": events}
    with pytest.raises(ConfigError) as error:
        parse(raw)
    (line,) = error.value.faults
    assert line.startswith(fault)
    assert "hidden" not in line


def test_days_of_the_file_are_local_days():
    """From the first midnight to the last, in the configured zone."""
    filed = {"id": "fair", "kind": "fair", "start": "2026-10-25", "end": "2026-10-25"}
    desk = desk_of(time_zone="Europe/Berlin", announcements=[filed])
    (event,) = desk.uplift.calendar
    assert event.end - event.start == 25 * 3600


def test_documented_examples_are_right():
    """What a reader copies from the page works."""
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    raw = {"capacity_mbps": 10, "regions": {"a": {"dpids": [1], "capacity_mbps": 10}}}
    events = parse(raw | yaml.safe_load(block)).events
    (listed,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    start = Announcement.model_validate(json.loads(listed)[0]).event(events.zone, "x").start
    parsed = read_json(listed.encode(), Defaults("campus", events.zone), start)
    assert (list(parsed.events), parsed.n_skipped) == (["campus/final"], 0)
