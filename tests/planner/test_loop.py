"""The loop: a plan every tick, whatever fails, and what operators set outlives everything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.training import NotEnoughHistory
from planner.config import Config
from planner.memory import Memory
from planner.policy import Override
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from planner.snapshot import Health, Level, UnknownGroup
from telemetry.keys import create_key_file
from telemetry.rows import SampleRows
from telemetry.samples import EdgeSamples, SampleBatch
from telemetry.store import Store
from tests.planner.networks import PLACES, START, AtOnce, Broken, Never, Running, mac_of, network, small
from topology.network import Host

STEPS = {
    "observe": "_observe",
    "group": "_group",
    "forecast": "_forecast",
    "allocate": "_allocate",
    "publish": "_publish",
}


@pytest.fixture
def running() -> Running:
    """A planner that has made its first plans for five users that offer 2 Mbit/s each."""
    running = Running(small())
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=3)
    return running


def health(running: Running) -> Health:
    return running.planner.snapshot.health


# Plans.


def test_no_plan_before_a_network_is_known():
    """Until a speaker reports its switches there is nothing to plan, and the planner says it is starting."""
    running = Running(small())
    plan = running.tick(count=3)
    assert (plan.version, plan.layouts, plan.meters) == (0, {}, {})
    assert health(running).status == "starting"
    assert health(running).ticks == 3


def test_first_plan_comes_with_the_network(running: Running):
    """The tick after the report plans for every switch, before a single sample."""
    fresh = Running(small())
    fresh.connect()
    plan = fresh.tick()
    assert set(plan.layouts) == set(plan.meters) == {0x11, 0x12, 0x21}
    assert health(running).status == "ok"
    assert health(running).problems == ()
    assert set(health(running).steps_ms) == STEPS.keys()


def test_versions_rise_with_every_tick(running: Running):
    """Each tick is a new version with its own time; the layout's version stays while the layout does."""
    plans = [running.tick() for _ in range(4)]
    versions = [plan.version for plan in plans]
    assert versions == sorted(set(versions))
    assert [plan.time for plan in plans] == [running.now - 5 * back for back in (3, 2, 1, 0)]
    assert len({plan.layout_version for plan in plans}) == 1


def test_layout_travels_with_the_plan_that_needs_it(running: Running):
    """When somebody moves, layout and meters change in one plan, and the layout has a new version."""
    before = running.tick()
    running.connect(places=PLACES | {"anna": 0x21}, version=2)
    after = running.tick()
    assert after.layout_version > before.layout_version
    assert {b.user for b in after.layouts[0x21].bindings} == {"anna", "david", "emma"}
    for dpid, layout in after.layouts.items():
        assert after.meters[dpid].meter_id.tolist() == [owner.meter_id for owner in layout.owners]


def test_plan_is_what_the_allocation_says(running: Running):
    """Meters are the grants of the snapshot, in whole kbit/s: users on one switch to the kbit/s."""
    plan, pools = running.tick(), running.planner.snapshot.pools
    path = {p: row for row, p in enumerate(pools.path)}
    total = np.zeros((2, len(pools.path)))
    for dpid, layout in plan.layouts.items():
        rates = plan.meters[dpid].rates()
        for owner in layout.owners:
            rate = rates[owner.meter_id][0]
            total[owner.direction, path[owner.pool]] += rate
            if pools.level[path[owner.pool]] == Level.USER:
                assert rate == pools.grant_bps[owner.direction, path[owner.pool]] // 1000
    metered = pools.level > 0
    lost = pools.grant_bps[:, metered] / 1e3 - total[:, metered]
    assert (lost >= 0).all()
    assert (lost < len(plan.layouts)).all()


def test_grants_never_exceed_what_is_above(running: Running):
    """Children's grants fit their parent's, every tick, while demand jumps about."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        running.offered = {user: float(rng.exponential(2e7)) for user in PLACES}
        running.tick()
        pools = running.planner.snapshot.pools
        for d in range(2):
            below = np.bincount(pools.parent[1:], pools.grant_bps[d, 1:], len(pools.path))
            assert (below <= pools.grant_bps[d]).all()
            assert (pools.grant_bps[d] <= pools.ceiling_bps[d]).all()


def test_nobody_is_cut_below_use_on_a_forecast(running: Running, monkeypatch: pytest.MonkeyPatch):
    """Where what is used fits, another's forecast, however high, takes nothing of it."""
    running.offered = {"anna": 15e6, "ben": 10e6, "carla": 8e6, "david": 1e6, "emma": 1e6}
    running.tick(count=4)
    make = running.planner.forecaster.forecast

    def dreaming(*arguments: Any) -> Any:
        forecast = make(*arguments)
        forecast.demand_bps[:] = 0
        ben = running.planner.structure.series.index("user/ben")  # type: ignore[union-attr]
        forecast.demand_bps[[ben, ben + len(forecast.demand_bps) // 2]] = 1e9
        return forecast

    monkeypatch.setattr(running.planner.forecaster, "forecast", dreaming)
    for _ in range(5):
        running.tick()
        for user, offered in running.offered.items():
            assert min(running.grant(user)) >= 0.95 * offered, user
    # To the dead band: a rise that small waits.
    assert min(running.grant("anna")) >= 15e6


def test_scarcity_is_shared_by_weight_and_not_by_forecast(running: Running):
    """When use alone does not fit, users that want the same get the same."""
    running.offered = {"anna": 19e6, "ben": 19e6, "carla": 19e6, "david": 1e6, "emma": 1e6}
    running.tick(count=6)
    assert running.grant("anna") == pytest.approx(running.grant("ben"), rel=0.06)
    total = sum(running.grant(user)[0] for user in ("anna", "ben", "carla"))
    assert total == pytest.approx(36e6, rel=0.01)


def test_small_rises_wait_in_the_planner(running: Running):
    """The dead band is applied before publishing, so that grants and meters are one."""
    running.offered = {"anna": 15e6, "ben": 12e6, "carla": 9e6, "david": 0.0, "emma": 0.0}
    running.tick(count=4)
    before = running.planner.snapshot.pools.grant_bps
    running.offered["carla"] *= 0.99
    running.tick()
    after = running.planner.snapshot.pools.grant_bps
    users = slice(running.row("anna"), None)
    rise = after[:, users] - before[:, users]
    assert ((rise <= 0) | (rise >= 0.05 * before[:, users])).all()


def test_lost_polls_do_not_make_demand_zero(running: Running):
    """While a switch is silent its users keep their grants: what is unknown is not nothing."""
    running.offered = {"anna": 15e6, "ben": 15e6, "carla": 6e6, "david": 1e6, "emma": 1e6}
    running.tick(count=6)
    before = min(running.grant("carla"))
    running.silent = {0x12}
    running.tick(count=8)
    row = running.row("carla")
    assert np.isnan(running.planner.snapshot.pools.offered_bps[:, row]).all()
    assert min(running.grant("carla")) >= 0.9 * min(before, 6e6)


def test_nobody_is_cut_for_want_of_samples(running: Running):
    """What a user was last known to use is its present use while its polls are lost, whatever is forecast.

    Its history says next to nothing: it had begun just before.
    """
    running.offered |= {"anna": 14e6, "ben": 14e6, "carla": 8e6}
    running.tick(count=2)
    running.silent = {0x12}
    # Others would take more than all the rest.
    running.offered |= {"anna": 19e6, "ben": 19e6}
    for _ in range(40):
        running.tick()
        assert min(running.grant("carla")) >= 8e6
    assert np.isnan(running.planner.snapshot.pools.offered_bps[:, running.row("carla")]).all()


def test_switch_that_went_away_keeps_its_plan(running: Running):
    """A switch that disconnects stays in the plan with its meters: it will be back, and enforces meanwhile."""
    before = running.tick()
    report = network(small(), version=2)
    del report.switches[0x12]
    running.planner.report(report)
    after = running.tick()
    assert after.meters[0x12].meter_id.tolist() == before.meters[0x12].meter_id.tolist()
    view = {switch.dpid: switch for switch in running.planner.snapshot.switches}[0x12]
    assert (view.connected, view.in_step) == (False, None)


def test_applied_reports_reach_the_snapshot(running: Running):
    """How a switch stands is shown as it said."""
    running.planner.applied(AppliedReport("speaker", 0x11, 7, True, 8, 0))
    running.tick()
    view = running.planner.snapshot.switches[0]
    assert (view.dpid, view.plan_version, view.in_step, view.n_meters) == (0x11, 7, True, 8)


# What fails.


@pytest.mark.parametrize("step", STEPS)
def test_last_plan_stands_when_a_step_fails(running: Running, monkeypatch: pytest.MonkeyPatch, step: str):
    """A tick never raises: the plan and the pools stay, the problem is told, and the next good tick clears it."""
    before, pools = running.tick(), running.planner.snapshot.pools

    def fail(now: float) -> None:
        raise ZeroDivisionError("injected")

    with monkeypatch.context() as broken:
        broken.setattr(running.planner, STEPS[step], fail)
        for _ in range(2):
            running.now += 5
            plan = running.planner.tick(running.now)
            assert plan is before
            assert health(running).status == "degraded"
            assert any(p.startswith(f"{step} failed, the last plan stands") for p in health(running).problems)
            assert running.planner.snapshot.pools.grant_bps.shape == pools.grant_bps.shape
            assert running.planner.snapshot.plan is before
    after = running.tick()
    assert after.version == before.version + 1
    assert (health(running).status, health(running).problems) == ("ok", ())


@pytest.mark.parametrize("step", STEPS)
def test_first_tick_may_fail_too(monkeypatch: pytest.MonkeyPatch, step: str):
    """With nothing to fall back on there is no plan, no raise, and recovery."""
    running = Running(small())
    running.connect()

    def fail(now: float) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(running.planner, STEPS[step], fail)
        assert running.tick().meters == {}
    assert running.tick().meters


def deep(name: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"injected into {name}")

    return fail


@pytest.mark.parametrize(
    "name",
    [
        "loop.build",
        "decision.allocate_by_forecast",
        "decision.hold_tree",
        "decision.switch_shares",
        "loop.meter_tables",
    ],
)
def test_what_a_step_calls_may_fail(running: Running, monkeypatch: pytest.MonkeyPatch, name: str):
    """The pure parts may raise: the last plan stands until they are well, also while the network changes."""
    before = running.tick()
    with monkeypatch.context() as broken:
        broken.setattr(f"planner.{name}", deep(name))
        running.connect(places=PLACES | {"anna": 0x21}, version=2)
        assert running.tick(count=2) is before
        assert f"injected into {name}" in " ".join(health(running).problems)
    after = running.tick()
    assert {b.user for b in after.layouts[0x21].bindings} == {"anna", "david", "emma"}
    assert health(running).problems == ()


def test_snapshot_that_cannot_be_made_is_no_raise(running: Running, monkeypatch: pytest.MonkeyPatch):
    """Readers see the last snapshot, and the loop goes on."""
    last = running.planner.snapshot
    with monkeypatch.context() as broken:
        broken.setattr(running.planner.grouping, "views", deep("views"))
        running.tick()
        assert running.planner.snapshot is last
    # The next one tells of it, and the one after that is well.
    running.tick()
    assert running.planner.snapshot.health.status == "degraded"
    running.tick()
    assert running.planner.snapshot.health.status == "ok"


def test_store_that_fails_costs_no_plan():
    """Samples that cannot be kept are told of; planning goes on."""
    running = Running(small(), keep=deep("keep"))
    running.connect()
    running.tick()
    version = running.tick().version
    assert version == 2
    assert any("injected into keep" in problem for problem in health(running).problems)


def test_store_that_cannot_be_read_costs_the_past(running: Running):
    """If the past cannot be loaded the planner starts without it, a tick later."""
    fresh = Running(small(), load=deep("load"))
    fresh.connect()
    fresh.tick(count=2)
    assert fresh.planner.snapshot.plan.meters
    assert health(fresh).problems == ()


def test_one_bad_report_costs_only_itself(running: Running):
    """What makes no sense is told of; what came with it in the same tick is used."""
    nonsense = SampleBatch(0x11, START, edges=EdgeSamples(np.array([9], np.uint32)), endpoints=())
    running.planner.ingest(nonsense)
    running.planner.report(network(small(), {"anna": 0x12}, version=2))
    version = running.planner.snapshot.plan.version
    plan = running.tick()
    assert plan.version == version + 1
    assert [b.user for b in plan.layouts[0x12].bindings] == ["anna"]
    assert any(problem.startswith("input: SampleBatch was not taken") for problem in health(running).problems)
    running.tick()
    assert health(running).problems == ()


def test_clock_set_back_changes_nothing_much(running: Running):
    """After the clock went back a day the loop goes on with new versions, and demand is seen again."""
    before = running.tick()
    running.now -= 86_400
    plans = [running.tick() for _ in range(4)]
    assert [plan.version for plan in plans] == [before.version + i for i in (1, 2, 3, 4)]
    assert health(running).status == "ok"
    offered = running.planner.snapshot.pools.offered_bps[:, running.row("anna")]
    assert offered.tolist() == [2e6, 2e6]


def test_ingest_from_other_threads_only_queues(running: Running):
    """Web threads do not wait for a tick: nothing they call needs the loop's lock."""
    with running.planner.lock:
        running.planner.ingest(SampleBatch(0x11, START))
        running.planner.report(network(small(), version=3))
        running.planner.applied(AppliedReport("speaker", 0x11, 1, True, 8, 0))
        done: list[Any] = []

        def read() -> None:
            done.append(running.planner.snapshot.plan.version)
            done.append(running.planner.rate_history(Level.GROUP, "ungrouped", START, START + 60).time.shape)
            running.planner.ingest(SampleBatch(0x11, START))

        reader = threading.Thread(target=read)
        reader.start()
        reader.join(10)
        assert len(done) == 2


# Training.


def training_config() -> Config:
    return small(
        forecasting={
            "step_s": 5, "horizons_s": [5, 15], "min_history_steps": 4, "train_every_s": 20,
            "train_steps": 64, "window_steps": 8,
        }
    )  # fmt: skip


def test_training_waits_for_history_and_then_runs():
    """Nothing is handed to a worker before there is enough; then one training at a time."""
    never = Never()
    running = Running(training_config(), never)
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=6)
    assert never.given == []
    running.tick(count=30)
    assert never.given == ["retrain"]


@pytest.mark.parametrize("error", [ValueError("bad rows"), NotEnoughHistory("later"), MemoryError()])
def test_training_that_fails_does_not_stop_planning(error: Exception, monkeypatch: pytest.MonkeyPatch):
    """Each failed training is told of, unless it only lacks history, and tried again; plans go on."""
    calls = []

    def retrain(*_: Any) -> Any:
        calls.append(1)
        raise error

    monkeypatch.setattr("planner.retraining.retrain", retrain)
    running = Running(training_config(), AtOnce())
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=40)
    assert len(calls) >= 3
    assert running.planner.snapshot.plan.version == 40
    told = any(problem.startswith("training failed") for problem in health(running).problems)
    assert told is not isinstance(error, NotEnoughHistory)


def test_workers_that_are_gone_do_not_stop_planning():
    """Training without workers is a problem that is told; the forecast comes from a lower rung."""
    running = Running(training_config(), Broken())
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=30)
    assert running.planner.snapshot.plan.version == 30
    assert any("a worker died" in problem for problem in health(running).problems)


# Groups.


def test_groups_are_found_in_traffic_and_planned_with():
    """Users that talk to one another come out as groups, in the plan of the tick that found them."""
    config = small(grouping={"half_life_s": 60, "every_s": 10, "hold_s": 20})
    running = Running(config, AtOnce())
    running.connect()
    running.tick()
    pairs = [("anna", "ben"), ("ben", "carla"), ("carla", "anna"), ("david", "emma")]
    for _ in range(8):
        for dpid in (0x11, 0x21):
            mine = [(a, b) for a, b in pairs if PLACES[a] // 16 == dpid // 16]
            names = tuple(mac_of(config, user) for pair in mine for user in pair)
            n = len(mine)
            edges = EdgeSamples(
                np.arange(0, 2 * n, 2, dtype=np.uint32),
                np.arange(1, 2 * n, 2, dtype=np.uint32),
                np.zeros(n, np.uint32),
                np.full(n, 5.0),
                np.full(n, 5e6),
            )
            running.planner.ingest(SampleBatch(dpid, running.now, edges=edges, endpoints=names))
        running.tick()
    groups = {group.members for group in running.planner.snapshot.groups if group.source == "discovered"}
    assert groups == {("anna", "ben", "carla"), ("david", "emma")}
    assert running.planner.structure is not None
    assert running.planner.structure.group_rows.keys() == {g.id for g in running.planner.snapshot.groups}


def test_override_outlives_reclustering(running: Running):
    """An operator's ceiling on a group holds when its members change."""
    planner = running.planner
    planner.grouping.pin("studio", ("anna", "ben"), running.now)
    planner.policies.overrides["studio"] = Override(ceiling_bps=(3_000_000, 3_000_000))
    running.tick()
    assert running.grant("studio") == [3e6, 3e6]
    planner.grouping.pin("studio", ("anna", "carla"), running.now)
    running.tick()
    assert running.grant("studio") == [3e6, 3e6]


def test_history_of_a_group_is_what_was(running: Running):
    """Rates of the group's parts are summed; before it existed it is unknown; other ids are unknown groups."""
    running.planner.grouping.pin("studio", ("anna", "david"), running.now)
    running.tick(count=2)
    since = running.now - 25
    past = running.planner.rate_history(Level.GROUP, "studio", since, running.now)
    assert past.offered_bps.shape == past.grant_bps.shape == (2, len(past.time))
    assert np.isnan(past.offered_bps[:, :3]).all()
    assert past.offered_bps[:, -1].tolist() == [4e6, 4e6]
    nothing = running.planner.rate_history(Level.GROUP, "studio", running.now, running.now + 1)
    assert nothing.time.shape == (0,)
    with pytest.raises(UnknownGroup):
        running.planner.rate_history(Level.GROUP, "nobody", since, running.now)


# Restarts.


def successor(running: Running, **more: Any) -> Running:
    """Another planner from the bytes of this one's memory."""
    after = Running(running.config, **more)
    after.planner.restore(Memory.from_bytes(running.planner.memory().to_bytes()))
    after.now, after.offered = running.now, running.offered
    return after


def test_successor_goes_on_with_later_versions_and_the_same_meters(running: Running):
    """Plan and layout versions rise over a restart, and every pool keeps its meter id."""
    before = running.tick()
    after = successor(running)
    assert after.tick().meters == {}
    after.connect()
    plan = after.tick()
    assert plan.version > before.version
    assert plan.layout_version > before.layout_version
    assert plan.layouts == before.layouts


def test_memory_comes_back_as_it_was(running: Running):
    """Through bytes and back, twice: nothing is lost."""
    running.planner.policies.overrides["studio"] = Override((1, 2), None, 2.5)
    memory = running.planner.memory()
    assert Memory.from_bytes(memory.to_bytes()) == memory
    again = successor(running).planner.memory()
    assert again.overrides == memory.overrides
    assert (again.meter_ids, again.groups, again.addresses) == (
        memory.meter_ids,
        memory.groups,
        memory.addresses,
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"overrides": {"a": 1}}', b'{"overrides": {}, "x": 1}', b"\xff"])  # fmt: skip
def test_damaged_memory_is_a_value_error(body: bytes):
    """Bytes that are no memory are refused, and the planner starts afresh."""
    with pytest.raises(ValueError, match="planner state is malformed"):
        Memory.from_bytes(body)


def test_operators_groups_and_overrides_outlive_a_restart(running: Running):
    """A group made by REST, its ceiling, and its source are there after a restart."""
    running.planner.grouping.pin("studio", ("anna", "ben"), running.now)
    running.planner.policies.overrides["studio"] = Override(ceiling_bps=(3_000_000, 4_000_000))
    running.tick()
    after = successor(running)
    after.connect()
    after.tick()
    assert after.grant("studio") == [3e6, 4e6]
    group = after.planner.snapshot.groups[0]
    assert (group.id, group.source, group.members) == ("studio", "operator", ("anna", "ben"))


def restarted_with(
    before: dict[str, Any], after: dict[str, Any], pins: dict[str, tuple[str, ...]]
) -> Running:
    first = Running(small(groups=before))
    for group, members in pins.items():
        first.planner.grouping.pin(group, members, START)
    second = Running(small(groups=after))
    second.planner.restore(Memory.from_bytes(first.planner.memory().to_bytes()))
    return second


def test_file_of_today_replaces_the_groups_of_yesterdays_file():
    """A user moved from one group of the file to another, a group dropped: as the file says now."""
    second = restarted_with(
        {"a": {"members": ["anna", "ben"]}, "b": {"members": ["carla"]}, "c": {"members": ["emma"]}},
        {"b": {"members": ["carla", "ben"]}, "a": {"members": ["anna"]}},
        {},
    )
    assert {g.id: g.members for g in second.planner.grouping.groups} == {
        "a": {"anna"},
        "b": {"ben", "carla"},
    }


def test_operators_group_wins_over_a_newer_file(caplog: pytest.LogCaptureFixture):
    """What REST acknowledged stays; a group of the file that contradicts it is not made, and that is logged."""
    second = restarted_with({}, {"lab": {"members": ["anna"]}}, {"studio": ("anna", "ben")})
    assert {g.id: g.members for g in second.planner.grouping.groups} == {"studio": {"anna", "ben"}}
    assert "group lab of the configuration file is not made" in caplog.text


def test_addresses_known_before_a_restart_tell_who_is_who():
    """A speaker that restarts knows MACs and not yet addresses: the planner remembers users' own."""
    config = small(users={"anna": {"addresses": ["10.0.0.1"]}})
    host = Host("00:00:00:00:09:01", frozenset({"10.0.0.1"}), 0x11, 1, START)
    stranger = Host("00:00:00:00:09:02", frozenset({"10.9.9.9"}), 0x11, 2, START)
    facts = {0x11: SwitchFacts(10, 100, "")}
    first = Running(config)
    hosts = {h.mac: h for h in (host, stranger)}
    first.planner.report(NetworkReport("s", 1, facts, hosts=hosts))
    first.tick()
    assert first.planner.memory().addresses == {host.mac: ["10.0.0.1"]}
    after = successor(first)
    bare = Host(host.mac, frozenset(), 0x11, 1, START)
    after.planner.report(NetworkReport("t", 1, facts, hosts={host.mac: bare}))
    after.tick()
    assert [b.user for b in after.planner.snapshot.plan.layouts[0x11].bindings] == ["anna"]


def test_ring_is_refilled_from_the_store(tmp_path: Path):
    """After a restart the forecast rests on what an earlier planner measured, read back from disk."""
    key = create_key_file(tmp_path / "key")
    store = Store.open(tmp_path / "store.duckdb", key)

    def keep(rows: list[SampleRows]) -> None:
        store.append(*rows)

    running = Running(small(), keep=keep, load=store.load_window)
    running.offered = {"anna": 5e6, "ben": 1e6}
    running.connect()
    running.tick(count=20)
    store.close()

    store = Store.open(tmp_path / "store.duckdb", key)
    after = successor(running, load=store.load_window)
    after.connect()
    after.now += 5
    after.planner.tick(after.now)
    planner = after.planner
    assert planner.structure is not None
    recent = planner.history.recent(planner.structure, planner._columns, after.now, 16)
    anna = recent.demand_bps[:, planner.structure.series.index("user/anna")]
    assert (anna[~np.isnan(anna)] == 5e6).all()
    assert np.count_nonzero(~np.isnan(anna)) >= 14
    # Before the first sample of its own, the forecast already knows.
    assert after.planner.snapshot.pools.p50_bps[0, after.row("anna")] > 2e6
    store.close()


def test_reclustering_leaves_a_forecast_to_the_new_group(running: Running):
    """A group that is new at this tick is forecast from the past of its members."""
    running.offered = dict.fromkeys(PLACES, 4e6)
    running.tick(count=12)
    running.planner.grouping.pin("studio", ("anna", "ben"), running.now)
    running.tick()
    p50 = running.planner.snapshot.pools.p50_bps[:, running.row("studio")]
    assert p50 == pytest.approx([8e6, 8e6], rel=0.3)
