"""The alarm stream: numbered, bounded, patient with what flaps, and joined to a real planner's forecasts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecasting.anomaly import Anomaly, Change, Evidence, Kind
from forecasting.coverage import Coverage
from forecasting.event import Event
from forecasting.forecast import Rung
from planner.alarm_watch import AlarmWatch, detector_settings, peers_of
from planner.alarms import RESTARTED, AlarmStream, Sighting
from planner.config_alarms import Alarms
from planner.events.uplift import EventUplift
from planner.prediction import Arrived
from planner.snapshot import Level, NotThere
from planner.structure import Structure
from tests.planner.networks import PLACES, START, Running, small, structure_of
from topology.traffic import TrafficGraph

NOW = 1e9
SPIKE = Anomaly(
    7, Kind.SPIKE, Change.OPENED, 1, NOW, "minor", "", Evidence(9e6, 1e6, 2e6, 3e6, 1e-9, np.nan, 1e-7, 1)
)
CLOSED = replace(SPIKE, change=Change.CLOSED, reason="back to normal")


def seen(anomaly: Anomaly = SPIKE, pool: str = "global/west/g1/anna") -> Sighting:
    return Sighting(pool, "user", 0, anomaly)


def test_a_client_that_asks_since_gets_only_what_changed() -> None:
    """Each change has a number of its own; the number of the last answer is where the next one starts."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen(), seen(replace(SPIKE, series_id=8), "global/west")])
    first = stream.view()
    assert [alarm.id for alarm in first.alarms] == [1, 2]
    assert stream.view(first.sequence).alarms == ()
    stream.take(NOW + 60, [seen(CLOSED)])
    (changed,) = stream.view(first.sequence).alarms
    assert (changed.id, changed.closed, changed.reason) == (1, NOW + 60, "back to normal")
    # A number from before a restart is not one of this stream.
    assert len(stream.view(10_000).alarms) == 2


def test_pages_are_walked_without_loss() -> None:
    """With a limit, the answer's number is the last one on the page."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen(replace(SPIKE, series_id=n), f"global/p{n}") for n in range(5)])
    since, found = 0, []
    while page := stream.view(since, limit=2).alarms:
        since = stream.view(since, limit=2).sequence
        found += [alarm.pool for alarm in page]
    assert found == [f"global/p{n}" for n in range(5)]


def test_open_and_pool_are_filters() -> None:
    """A pool means it and what is below it, and no pool whose name merely begins so."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen(), seen(replace(SPIKE, series_id=8), "global/western")])
    assert [a.pool for a in stream.view(pool="global/west").alarms] == ["global/west/g1/anna"]
    stream.take(NOW + 60, [seen(CLOSED)])
    assert [a.pool for a in stream.view(only_open=True).alarms] == ["global/western"]
    assert [a.pool for a in stream.view(only_open=False).alarms] == ["global/west/g1/anna"]


def test_an_acknowledged_alarm_stays_open() -> None:
    """Seen is not over; who asks for an alarm that is not kept is told so."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen()])
    assert stream.view().unacknowledged == 1
    assert stream.acknowledge(1, NOW + 5).acknowledged == NOW + 5
    assert stream.acknowledge(1, NOW + 9).acknowledged == NOW + 5
    assert (stream.view().open, stream.view().unacknowledged) == (1, 0)
    with pytest.raises(NotThere, match="got 2"):
        stream.acknowledge(2, NOW)


def test_what_flaps_is_one_alarm() -> None:
    """The same again within a quarter of an hour is opened again, and stays acknowledged; later it is another."""
    stream = AlarmStream(Alarms())
    for minute in range(0, 20, 2):
        stream.take(NOW + 60 * minute, [seen()])
        stream.take(NOW + 60 * minute + 60, [seen(CLOSED)])
        stream.acknowledge(1, NOW)
    (alarm,) = stream.view().alarms
    assert (alarm.times, alarm.acknowledged) == (10, NOW)
    stream.take(NOW + 7200, [seen()])
    assert [alarm.id for alarm in stream.view().alarms] == [1, 2]


def test_a_pool_that_raises_too_many_is_held_back() -> None:
    """Six in an hour; the rest is counted, and its end is the end of nothing."""
    stream = AlarmStream(Alarms(reopen_s=0))
    for minute in range(20):
        stream.take(NOW + 60 * minute, [seen()])
        stream.take(NOW + 60 * minute + 30, [seen(CLOSED)])
    view = stream.view()
    assert (len(view.alarms), view.held_back, view.open) == (6, 14, 0)


def test_only_the_newest_are_kept_and_open_ones_longest() -> None:
    """The record is bounded, and says so to a client that missed something."""
    stream = AlarmStream(Alarms(keep=3))
    stream.take(NOW, [seen(replace(SPIKE, series_id=99), "global/old")])
    for n in range(5):
        stream.take(NOW, [seen(replace(SPIKE, series_id=n), f"global/p{n}")])
        stream.take(NOW, [seen(replace(CLOSED, series_id=n), f"global/p{n}")])
    view = stream.view(1)
    assert (next(alarm.pool for alarm in stream.view().alarms), len(stream.view().alarms)) == (
        "global/old",
        3,
    )
    assert not view.complete
    assert stream.view(view.sequence).complete


def test_a_spike_that_becomes_a_shift_is_the_same_alarm() -> None:
    """Its kind and its sentence change, its number does not."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen()])
    stream.take(NOW + 300, [seen(replace(SPIKE, kind=Kind.SHIFT, change=Change.CHANGED))])
    (alarm,) = stream.view().alarms
    assert (alarm.id, alarm.kind) == (1, "shift")
    assert alarm.text.startswith("global/west/g1/anna up more than before")


@pytest.mark.parametrize(
    ("anomaly", "words"),
    [
        (SPIKE, ("spike: 9 Mbit/s", "1 to 3 Mbit/s were expected", "chance 1e-09")),
        (replace(SPIKE, kind=Kind.SILENCE, direction=-1), ("silent for 1 steps",)),
        (replace(SPIKE, evidence=replace(SPIKE.evidence, series=40)), ("40 pools at once",)),
        (replace(SPIKE, kind=Kind.SHIFT, evidence=replace(SPIKE.evidence, e_value=2e7)), ("2e+07 to 1",)),
        (
            replace(SPIKE, kind=Kind.FAN_OUT, evidence=replace(SPIKE.evidence, realised=200, middle=5)),
            ("talks to 200 peers; usually to 5",),
        ),
    ],
)
def test_the_sentence_says_what_came_and_what_was_expected(anomaly: Anomaly, words: tuple[str, ...]) -> None:
    """An operator reads one line."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen(anomaly)])
    for part in words:
        assert part in stream.view().alarms[0].text


QUANTILE = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])


class Watched:
    """A small structure whose users each send 4 Mbit/s, give or take, and pools the sum."""

    def __init__(self, settings: Alarms, **more: object) -> None:
        self.structure: Structure = structure_of(small())
        self.columns = np.arange(2 * len(self.structure.path))
        self.watch = AlarmWatch(settings, 60.0, **more)  # type: ignore[arg-type]
        self.rng = np.random.default_rng(0)
        self.now = NOW
        self.rung = Rung.MODEL
        self.coverage: tuple[Coverage, ...] = ()
        for _ in range(100):
            self.step({})

    def step(self, changes: dict[str, float]) -> None:
        s = self.structure
        users, n = np.flatnonzero(s.level == Level.USER), len(s.path)
        rate = np.zeros(n)
        rate[users] = self.rng.normal(4e6, 0.2e6, len(users))
        usual = np.zeros(n)
        usual[users] = 4e6
        for path, value in changes.items():
            rate[s.path.index(path)] = value
        for row in range(n - 1, 0, -1):
            rate[s.parent[row]] += rate[row]
            usual[s.parent[row]] += usual[row]
        spread = 0.2e6 * np.sqrt(np.maximum(usual / 4e6, 1))
        z = np.array([-1.28, -0.67, 0, 0.67, 1.28, 1.64, 2.05])
        band = (usual[:, None] + spread[:, None] * z).astype(np.float32)
        self.now += 60
        self.watch.arrived(
            Arrived(
                s, self.columns, self.now, np.tile(rate, 2).astype(np.float32),
                np.zeros(2 * n, np.bool_), QUANTILE, np.tile(band, (2, 1)),
                np.full(2 * n, self.rung, np.uint8), self.coverage,
            )
        )  # fmt: skip


def anna_of(structure: Structure) -> str:
    return next(path for path in structure.path if path.endswith("/anna"))


def test_one_users_spike_is_one_alarm_in_each_direction() -> None:
    """Group, region and network rose too, but only by what the user did."""
    watched = Watched(Alarms())
    anna = anna_of(watched.structure)
    for _ in range(3):
        watched.step({anna: 13e6})
    found = watched.watch.stream.view().alarms
    assert [(alarm.pool, alarm.level, alarm.direction, alarm.kind) for alarm in found] == [
        (anna, "user", "up", "spike"),
        (anna, "user", "down", "spike"),
    ]


def test_a_short_burst_at_the_ceiling_is_a_speed_test() -> None:
    """A minute at 19 of 20 Mbit/s, and the polls within a minute count."""
    watched = Watched(Alarms())
    anna = anna_of(watched.structure)
    watched.step({anna: 19e6})
    peak = np.full((2, len(watched.structure.path)), np.nan)
    peak[:, watched.structure.path.index(anna)] = 19e6
    for _ in range(10):
        watched.step({})
    watched.watch.polled(watched.columns, peak)
    watched.step({anna: 8e6})
    for _ in range(10):
        watched.step({})
    assert watched.watch.stream.view().alarms == ()


def test_a_scheduled_event_is_asked_for() -> None:
    """What the calendar explains is no alarm; nothing is watched where nothing is wanted."""

    def scheduled(structure: Structure, now: float, lead_s: float, tail_s: float) -> np.ndarray:
        assert lead_s == tail_s == 600
        return np.full(2 * len(structure.path), now > NOW + 6000)

    for watched in (Watched(Alarms(), scheduled=scheduled), Watched(Alarms(enabled=False))):
        for _ in range(10):
            watched.step({anna_of(watched.structure): 13e6})
        assert watched.watch.stream.view().alarms == ()


def test_peers_are_counted_once_each_and_only_where_one_sends() -> None:
    """Two applications to one peer are one peer; receiving is no fan-out."""
    graph = TrafficGraph(600.0)
    anna, ben, carla = graph.intern(["anna", "ben", "carla"])
    graph.observe(NOW, [anna, anna, anna], [ben, ben, carla], [0, 1, 0], [1e6] * 3, [60.0] * 3)
    assert peers_of(graph.view(NOW), ("anna", "ben", "david")).tolist() == [2, 0, 0]
    assert peers_of(TrafficGraph(600.0).view(NOW), ("anna",)).tolist() == [0]


def test_fan_out_is_of_the_user_that_sends() -> None:
    """The alarm is on the upload of the user whose peers grew."""
    many = False

    def peers(structure: Structure, _now: float) -> np.ndarray:
        return np.array([300.0 if many and user == "anna" else 4.0 for user in structure.users])

    watched = Watched(Alarms(), peers=peers)
    many = True
    watched.step({})
    (alarm,) = watched.watch.stream.view().alarms
    assert (alarm.pool, alarm.direction, alarm.kind) == (anna_of(watched.structure), "up", "fan_out")


def test_steps_of_any_length_make_settings() -> None:
    """Durations stay what they are when steps are seconds or quarters of an hour."""
    assert detector_settings(Alarms(), 5.0).shift_steps == 60
    assert detector_settings(Alarms(), 900.0).normal_steps == 4
    assert set(PLACES) == set(structure_of(small()).users)


def test_a_forecast_that_is_one_figure_is_not_held_against_anybody() -> None:
    """Auto-bandwidth and the last plan say nothing of how likely a rate is."""
    watched = Watched(Alarms())
    watched.rung = Rung.AUTO_BANDWIDTH
    for _ in range(3):
        watched.step({anna_of(watched.structure): 13e6})
    assert watched.watch.stream.view().alarms == ()


def covered(drifting: bool, share: float = 0.5) -> tuple[Coverage, ...]:
    """Users' upload at two horizons."""
    hour = 0.1 + share * np.linspace(0, 1, len(QUANTILE))
    return tuple(Coverage(6, horizon_s, hour, hour, 9999, drifting) for horizon_s in (60.0, 300.0))


def test_a_level_whose_coverage_drifts_is_an_alarm() -> None:
    """One alarm a level while it lasts, with the share that came and the one that was aimed at."""
    watched = Watched(Alarms())
    for drifting in (True, True, True):
        watched.coverage = covered(drifting)
        watched.step({})
    (alarm,) = watched.watch.stream.view().alarms
    assert (alarm.kind, alarm.pool, alarm.level, alarm.side) == ("coverage", "global", "user", "below")
    assert alarm.text == (
        "forecast coverage of level user up drifted: 50 % of the last hour lay within the 88 % band"
    )
    watched.coverage = covered(drifting=False)
    watched.step({})
    (alarm,) = watched.watch.stream.view().alarms
    assert alarm.reason == "back to normal"


def test_levels_that_drift_together_are_alarms_of_their_own() -> None:
    """Their pool is the same, and they are not one that flaps."""
    watched = Watched(Alarms())
    watched.coverage = covered(True) + tuple(replace(one, level=7) for one in covered(True))
    watched.step({})
    watched.coverage = covered(False) + tuple(replace(one, level=7) for one in covered(False))
    watched.step({})
    watched.coverage = covered(True)
    watched.step({})
    found = watched.watch.stream.view().alarms
    assert {(alarm.direction, alarm.times) for alarm in found} == {("up", 2), ("down", 1)}


def test_alarms_outlive_a_restart() -> None:
    """What was open is closed, since nobody watched; what was acknowledged is so when it is seen again."""
    before = AlarmStream(Alarms())
    before.take(NOW, [seen(), seen(replace(SPIKE, series_id=8), "global/west")])
    before.take(NOW, [seen(replace(CLOSED, series_id=8), "global/west")])
    before.acknowledge(1, NOW + 5)
    after = AlarmStream(Alarms())
    after.restore(before.state(), NOW + 60)
    (changed,) = after.view(before.sequence).alarms
    assert (changed.id, changed.closed, changed.reason) == (1, NOW + 60, RESTARTED)
    assert [alarm.pool for alarm in after.view().alarms] == ["global/west", "global/west/g1/anna"]
    after.take(
        NOW + 120, [seen(replace(SPIKE, series_id=55)), seen(replace(SPIKE, series_id=56), "global/east")]
    )
    again, new = after.view(changed.sequence).alarms
    assert (again.id, again.closed, again.acknowledged, again.times) == (1, None, NOW + 5, 2)
    assert new.id == 3


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"last_id": 1, "sequence": 1, "forgotten": 0, "alarms": [{}]}']
)
def test_a_damaged_state_is_refused(body: bytes) -> None:
    """And what is there stays."""
    stream = AlarmStream(Alarms())
    stream.take(NOW, [seen()])
    with pytest.raises(ValueError, match="bytes are no alarms"):
        stream.restore(body, NOW)
    assert len(stream.view().alarms) == 1


def spiked(*events: Event) -> AlarmStream:
    """What a planner's stream holds when ben, after steady minutes, sends ten times as much for a minute."""
    minutes = {"forecasting": {"step_s": 60, "horizons_s": [60], "min_history_steps": 8}}
    running = Running(small(**minutes, allocation={"tick_s": 60}, polling={"interval_s": 60}))
    known = running.planner.prediction.settings
    uplift = EventUplift(known.step_s, known.horizons_s, known.max_rate_bps)
    uplift.join(running.planner.prediction)
    uplift.calendar = events
    running.connect()
    rng = np.random.default_rng(1)
    for _ in range(120):
        running.offered = {user: 1e6 * float(rng.uniform(0.9, 1.1)) for user in PLACES}
        running.tick(60.0)
    running.offered["ben"] = 9e6
    running.tick(60.0, 3)
    return running.planner.alarm_watch.stream


def test_a_spike_of_polls_becomes_an_alarm() -> None:
    """From the seam to the stream, with nothing in between made up."""
    found = spiked().view().alarms
    assert {(alarm.pool.rpartition("/")[2], alarm.kind, alarm.side) for alarm in found} == {
        ("ben", "spike", "above")
    }


def test_a_spike_of_a_scheduled_event_is_none() -> None:
    """The calendar said that something would come."""
    event = Event("final", "match", START + 115 * 60, START + 240 * 60, (), None, "file", "")
    assert spiked(event).view().alarms == ()
