"""The planner's process: what operators may write, that it is on disk when acknowledged, and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.anomaly import Anomaly, Change, Evidence, Kind
from forecasting.history import History
from forecasting.training import TrainedModel, Verdict, train
from planner.alarms import RESTARTED, Sighting
from planner.config import Config, Pool
from planner.memory import Memory
from planner.policies import NO_CEILING, Lift, PoolPolicy
from planner.policies_file import pool_policy
from planner.policy import Override, Policies
from planner.process import PlannerProcess, open_store
from planner.snapshot import Level, NotThere, Refused, UnknownGroup
from tests.planner.networks import network, small

Write = tuple[tuple[str, ...], dict[str, Any]]


def config_in(directory: Path) -> Config:
    return small(
        store={"path": str(directory / "store.duckdb")},
        planner={"secret_file": str(directory / "seam.secret"), "port": 0},
        northbound={"port": 0, "token_file": str(directory / "token")},
        groups={"lab": {"members": ["emma"]}},
        allocation={"tick_s": 0.5},
    )


@pytest.fixture
def process(tmp_path: Path) -> Iterator[PlannerProcess]:
    """A planner that is not ticking: writes do not need it."""
    made = PlannerProcess(config_in(tmp_path))
    yield made
    made.stop()


def until(condition: Any, deadline_s: float = 30.0) -> bool:
    end = time.monotonic() + deadline_s
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(found)


REFUSED: list[tuple[str, Write, str]] = [
    ("lab", (("anna",), {}), "groups.lab must be a new id, got one that exists"),
    ("studio", (("zoe",), {}), "groups.studio.members must be users, got 'zoe'"),
    ("studio", (("emma",), {}), "groups.studio.members must not hold emma, it is in lab"),
    ("auto-1", (("anna",), {}), "group id must not be empty or start with 'auto-', got 'auto-1'"),
    ("studio", (("anna",), {"weight": 0.0}), "groups.studio.weight must be 1e-06 to 1e+06, got 0"),
    ("studio", (("anna",), {"weight": 1e300}), "groups.studio.weight must be 1e-06 to 1e+06, got 1e+300"),
    (
        "studio",
        (("anna",), {"guarantee_bps": (5_000_000, 0), "ceiling_bps": (4_000_000, 4_000_000)}),
        "groups.studio.guarantee_mbps.up must be <= its ceiling 4, got 5",
    ),
    (
        "studio",
        (("anna", "ben"), {"ceiling_bps": (9_000_000, 1_500_000)}),
        "groups.studio.ceiling_mbps.down must be >= its members' guarantees, which sum to 2, got 1.5",
    ),
    (
        "studio",
        (("anna",), {"guarantee_bps": (57_000_000, 0)}),
        "groups.studio.guarantee_mbps.up must leave room for the other users' guarantees of 4 within 60, got 57",
    ),
]


@pytest.mark.parametrize(("group", "write", "line"), REFUSED, ids=[line for _, _, line in REFUSED])
def test_group_that_breaks_a_rule_is_refused(process: PlannerProcess, group: str, write: Write, line: str):
    """The refusal names path, rule and value, and nothing is changed."""
    before = process.planner.memory()
    with pytest.raises(Refused) as refusal:
        process.create_group(group, *write)
    assert str(refusal.value) == line
    assert process.planner.memory() == before


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ({"weight": -1.0}, "groups.lab.weight must be 1e-06 to 1e+06, got -1"),
        (
            {"ceiling_bps": (500_000, 500_000)},
            "groups.lab.ceiling_mbps.up must be >= its members' guarantees, which sum to 1, got 0.5",
        ),
    ],
)
def test_bandwidth_that_breaks_a_rule_is_refused(process: PlannerProcess, policy: dict[str, Any], line: str):
    """The same rules hold when a group is changed."""
    with pytest.raises(Refused) as refusal:
        process.set_group_bandwidth("lab", policy)
    assert str(refusal.value) == line
    assert process.planner.policies.overrides == {}


def test_change_is_checked_with_what_was_set_before(process: PlannerProcess):
    """A guarantee of today must fit the ceiling of yesterday; values not named stay."""
    process.set_group_bandwidth("lab", {"ceiling_bps": (5_000_000, 5_000_000)})
    with pytest.raises(Refused, match=r"guarantee_mbps.up must be <= its ceiling 5, got 6"):
        process.set_group_bandwidth("lab", {"guarantee_bps": (6_000_000, 0)})
    process.set_group_bandwidth("lab", {"weight": 3.0})
    assert process.planner.policies.overrides["lab"] == Override(None, (5_000_000, 5_000_000), 3.0)


@pytest.mark.parametrize("group", ["nobody", "ungrouped", ""])
def test_unknown_group_is_told(process: PlannerProcess, group: str):
    """Only groups that are there can be set; the pool of the ungrouped is none."""
    with pytest.raises(UnknownGroup):
        process.set_group_bandwidth(group, {"weight": 2.0})


def test_freeze_mode_and_boosts_survive_a_restart(tmp_path: Path):
    """What an operator chose is on disk when it is acknowledged: a planner that dies at once leaves it."""
    first = PlannerProcess(config_in(tmp_path))
    first.planner.report(network(first.config))
    first.planner.tick(1_000_000.0)
    meters = first.planner.snapshot.plan.meters
    first.policy.set_mode("canary", ("west",), None)
    first.policy.freeze("change window")
    boost = first.policy.boost("b", ("user:anna",), Lift(weight_factor=2.0), None, time.time() + 600, "")
    stance = first.planner.publication.stance
    first.stop()
    second = PlannerProcess(config_in(tmp_path))
    try:
        assert second.planner.publication.stance == stance
        assert second.policy.boosts() == (boost,)
        second.planner.report(network(second.config))
        plan = second.planner.tick(time.time())
        assert {dpid: table.rates() for dpid, table in plan.meters.items()} == {
            dpid: table.rates() for dpid, table in meters.items()
        }
        assert second.planner.policies.user("anna").weight == 2
    finally:
        second.stop()


def on_disk(directory: Path) -> Memory:
    """What a successor would find."""
    store = open_store(config_in(directory).store)
    try:
        body = store.get_state("planner")
        assert body is not None
        return Memory.from_bytes(body)
    finally:
        store.close()


def test_acknowledged_writes_are_on_disk(tmp_path: Path):
    """A write that returned is found by whoever opens the store next, without a farewell."""
    process = PlannerProcess(config_in(tmp_path))
    process.create_group("studio", ("anna", "ben"), {"ceiling_bps": (6_000_000, 12_000_000)})
    process.set_group_bandwidth("studio", {"weight": 2.0})
    # As after a kill: what was only queued or remembered does not count.
    process._writer.close()
    process._executor.shutdown(wait=False, cancel_futures=True)
    memory = on_disk(tmp_path)
    assert memory.overrides == {"studio": Override(None, (6_000_000, 12_000_000), 2.0)}
    assert memory.groups["made_by_rest"] == ["studio"]


def test_older_state_never_follows_a_newer(process: PlannerProcess, tmp_path: Path):
    """Many writers at once, and the loop's own notes between them: the last state on disk has all of it."""
    stop = threading.Event()

    def note() -> None:
        while not stop.is_set():
            process._remember(time.time())

    noting = threading.Thread(target=note)
    noting.start()
    users = ("anna", "ben", "carla", "david")
    writers = [
        threading.Thread(target=process.create_group, args=(f"g-{user}", (user,), {"weight": 2.0}))
        for user in users
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    noting.join()
    process._writer.close()
    assert on_disk(tmp_path).overrides.keys() == {f"g-{user}" for user in users}


def test_successor_takes_up_groups_and_overrides(tmp_path: Path):
    """A planner stopped and started again has what was written, and later versions."""
    first = PlannerProcess(config_in(tmp_path))
    first.create_group("studio", ("anna", "ben"), {"weight": 2.0})
    first.stop()
    second = PlannerProcess(config_in(tmp_path))
    try:
        assert {group.id for group in second.planner.grouping.groups} == {"lab", "studio"}
        assert second.planner.policies.overrides["studio"].weight == 2
        assert second.planner.memory().plan_version >= 1000
    finally:
        second.stop()


@pytest.mark.parametrize("state", [b"nonsense", b'{"overrides": {}, "meter_ids": {"11": 1}}'])
def test_state_that_cannot_be_read_does_not_stop_the_start(tmp_path: Path, state: bytes):
    """A planner that cannot read its predecessor's notes says so and plans."""
    store = open_store(config_in(tmp_path).store)
    store.put_state("planner", state, 0.0)
    store.put_state("forecaster", b"nonsense", 0.0)
    store.close()
    process = PlannerProcess(config_in(tmp_path))
    process.planner.report(network(process.config))
    assert process.planner.tick(1e6).meters
    process.stop()


def test_process_plans_by_itself_and_ends_when_told(tmp_path: Path):
    """Its thread ticks, a write is planned with soon, and after stop no thread of it is left."""
    before = set(threading.enumerate())
    process = PlannerProcess(config_in(tmp_path))
    process.start()
    process.planner.report(network(process.config))
    assert until(lambda: process.snapshot.plan.meters)
    version = process.snapshot.plan.version
    process.create_group("studio", ("anna", "ben"), {"ceiling_bps": (6_000_000, 6_000_000)})
    assert until(lambda: "global/west/studio" in process.snapshot.pools.path)
    assert process.snapshot.plan.version > version
    now = process.snapshot.time
    assert process.rate_history(Level.GROUP, "studio", now - 60, now).grant_bps.shape[0] == 2
    assert process.summary()["meters_equal_plan"] is None
    process.stop()
    assert until(
        lambda: not {t for t in set(threading.enumerate()) - before if t.name in {"planner", "store-writer"}}
    )


# Policies.


def test_overrides_stand_above_the_file_and_the_file_above_defaults():
    """What is set by REST wins, value by value; groups found from traffic have the defaults."""
    config = small(
        groups={"lab": {"members": ["emma"], "ceiling_mbps": 9, "weight": 4}},
        group_defaults={"weight": 0.5},
    )
    policies = Policies(config, {"lab": Override(ceiling_bps=(1, 2)), "auto-1": Override(weight=7.0)})
    assert policies.group("lab") == PoolPolicy((0, 0), (1, 2), 4)
    assert policies.group("auto-1") == PoolPolicy((0, 0), NO_CEILING, 7)
    assert policies.group("auto-2") == PoolPolicy((0, 0), NO_CEILING, 0.5)
    assert policies.group("ungrouped") == PoolPolicy()


def test_region_has_no_more_than_its_capacity():
    """A region's ceiling is its capacity, or less where it names less."""
    regions = {
        "west": {"dpids": [1], "capacity_mbps": {"up": 10, "down": 20}, "ceiling_mbps": 15},
        "east": {"dpids": [2], "capacity_mbps": 30},
    }
    policies = Policies(small(regions=regions))
    assert policies.region("west").ceiling_bps == (10e6, 15e6)
    assert policies.region("east").ceiling_bps == (30e6, 30e6)
    assert pool_policy(Pool()).ceiling_bps == NO_CEILING


# Models.


def trained(process: PlannerProcess, end_time: float) -> TrainedModel:
    """A model for this planner's settings."""
    rng = np.random.default_rng(0)
    demand = rng.uniform(1e6, 5e6, (200, 10)).astype(np.float32)
    history = History(
        demand, np.zeros(demand.shape, bool), 5.0, end_time, np.zeros(10, int), np.arange(10)
    )  # fmt: skip
    return train(history, process.planner.prediction.models.settings)


def promote(process: PlannerProcess, monkeypatch: pytest.MonkeyPatch, model: TrainedModel) -> None:
    """A training that ends with this model as the winner."""
    verdict = Verdict(True, 0.1, 0.2, 0.3, 9, "better")
    models = process.planner.prediction.models
    monkeypatch.setattr(models._training, "result", lambda **_: (model, verdict))
    models._opponent = models.versions.champion
    models.collect(time.time())


def test_rollback_is_on_disk_when_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After a kill the successor uses the version that was rolled back to, and still holds it."""
    process = PlannerProcess(config_in(tmp_path))
    first, second = trained(process, 1000.0), trained(process, 2000.0)
    promote(process, monkeypatch, first)
    promote(process, monkeypatch, second)
    assert process.models()["champion"] == 2
    process.roll_back_model(1)
    # As after a kill: what was only queued or remembered does not count.
    process._writer.close()
    process._executor.shutdown(wait=False, cancel_futures=True)
    after = PlannerProcess(config_in(tmp_path))
    try:
        assert after.models()["champion"] == 1
        assert after.models()["held"]
        assert after.planner.forecaster.trained == first
        after.release_model()
        assert not after.models()["held"]
        with pytest.raises(NotThere):
            after.roll_back_model(7)
    finally:
        after.stop()


def test_calibration_is_written_down_at_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A planner that is stopped and started goes on with what it had learnt of its own errors."""
    process = PlannerProcess(config_in(tmp_path))
    promote(process, monkeypatch, trained(process, 1000.0))
    process._remember(time.time())
    calibration = process.planner.forecaster.record.calibrations[0]
    calibration.offset = np.full((1, *calibration.offset.shape[1:]), 0.25)
    learnt = process.planner.forecaster.calibration_offset
    process.stop()
    after = PlannerProcess(config_in(tmp_path))
    try:
        np.testing.assert_array_equal(after.planner.forecaster.calibration_offset, learnt)
        assert learnt.any()
        assert after.models()["champion"] == 1
    finally:
        after.stop()


def test_acknowledged_alarms_outlive_a_kill(tmp_path: Path):
    """Who acknowledged an alarm need not do so again after a restart; numbers go on."""
    process = PlannerProcess(config_in(tmp_path))
    evidence = Evidence(9e6, 1e6, 2e6, 3e6, 1e-9, np.nan, 1e-7, 1)
    spike = Anomaly(7, Kind.SPIKE, Change.OPENED, 1, time.time(), "minor", "", evidence)
    process.alarms.take(time.time(), [Sighting("global/west", "region", 0, spike)])
    process.alarms.acknowledge(1, 5.0)
    # As after a kill: what was only queued or remembered does not count.
    process._writer.close()
    process._executor.shutdown(wait=False, cancel_futures=True)
    after = PlannerProcess(config_in(tmp_path))
    try:
        (alarm,) = after.alarms.view().alarms
        assert (alarm.id, alarm.acknowledged, alarm.reason) == (1, 5.0, RESTARTED)
        assert np.isnan(alarm.evidence.e_value)
        after.alarms.take(time.time(), [Sighting("global/east", "region", 0, spike)])
        assert after.alarms.view(alarm.sequence).alarms[0].id == 2
    finally:
        after.stop()


def test_unreadable_alarms_are_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The planner starts without them and says so."""
    store = open_store(config_in(tmp_path).store)
    store.put_state("alarms", b"?", 1.0)
    store.close()
    process = PlannerProcess(config_in(tmp_path))
    process.stop()
    assert "alarms of an earlier planner not restored" in caplog.text
