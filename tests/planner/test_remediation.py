"""Remediation in the real loop: congestion up the ladder, help and no help, isolation, restarts, and who is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.anomaly import Anomaly, Change, Evidence, Kind
from planner.alarms import Sighting
from planner.config_remediation import Webhook
from planner.memory import Memory
from planner.plan import Plan
from planner.policy import Override
from planner.remediation.desk import RemediationDesk
from planner.remediation.steps import Rung, Standing, Step
from planner.snapshot import NotThere, Refused
from planner.webhook_events import Announcer
from planner.webhooks import Webhooks
from telemetry.samples import EdgeSamples, MeterSamples, PortSamples, SampleBatch
from tests.planner.networks import PLACES, AtOnce, Never, Running, mac_of, network, small
from tests.planner.receiver import Receiver, receiving, wait_for
from topology.network import Link, Port

QUICK = {
    "mode": "act", "raise_ticks": 2, "clear_ticks": 2, "judge_ticks": 4, "cooldown_s": 15, "hold_s": 300,
    "max_users": 0.2, "max_groups": 1, "max_regions": 1,
}  # fmt: skip
NAN = float("nan")
LAB = {"lab": {"members": ["anna", "ben", "carla"], "ceiling_mbps": 6}}


def running_with(
    congestion: dict[str, Any] | None = None,
    isolation: dict[str, Any] | None = None,
    executor: Any = None,
    **blocks: Any,
) -> Running:
    """A planner that remedies at once."""
    remediation = {"congestion": {**QUICK, **(congestion or {})}, "isolation": isolation or {}}
    # Raising a guarantee of members above the group's ceiling is not what is tested here.
    running = Running(small(remediation=remediation, **blocks), executor or Never())
    running.offered = dict.fromkeys(PLACES, 1e6)
    running.connect()
    running.tick(count=3)
    return running


def steps(running: Running) -> tuple[Step, ...]:
    return running.planner.remediation.trail.steps


def standings(running: Running) -> list[tuple[str, str]]:
    return [(step.rung.value, step.standing.value) for step in steps(running)]


def congest(running: Running, rate_bps: float = 4e6) -> None:
    """The lab's members want twice what the lab may have."""
    running.offered |= dict.fromkeys(("anna", "ben", "carla"), rate_bps)


def test_a_full_group_below_a_region_with_room_gets_a_higher_ceiling_and_that_helps():
    """Unmet demand falls; the step is on record with its figures, and its end gives everything back."""
    running = running_with({"ceiling_factor": 2.0}, groups=LAB)
    congest(running)
    running.tick(count=3)
    up = [step for step in steps(running) if step.direction == 0]
    assert [(step.rung, step.standing) for step in up] == [(Rung.REALLOCATE, Standing.TRIED)]
    assert up[0].text == "raise the ceiling of group lab up to 12/6 Mbit/s"
    assert up[0].why.startswith("unmet_demand of global/west/lab up is 0.5, at or above 0.1")
    assert up[0].evidence["wanted_bps"] == 12e6
    running.tick(count=2)
    assert running.grant("lab") == [12e6, 12e6]
    running.tick(count=3)
    assert standings(running) == [("reallocate", "helped")] * 2
    assert steps(running)[0].after == pytest.approx(0, abs=0.05)
    assert steps(running)[0].helped
    congest(running, 1e6)
    running.tick(count=62)
    assert standings(running) == [("reallocate", "ended")] * 2
    running.tick(count=2)
    assert running.grant("lab") == [6e6, 6e6]


def test_what_does_not_help_is_undone_and_the_ladder_ends_in_a_call_for_capacity():
    """Five per cent more ceiling is no help: undone, judged by the figure that began it; then the scaling event."""
    running = running_with({"ceiling_factor": 1.05}, groups=LAB)
    congest(running)
    running.tick(count=14)
    assert sorted(standings(running)) == [("reallocate", "undone")] * 2 + [("scale", "raised")] * 2
    undone, scale = (
        next(step for step in steps(running) if step.rung is rung) for rung in (Rung.REALLOCATE, Rung.SCALE)
    )
    assert undone.helped is False
    assert undone.before == pytest.approx(0.5, abs=0.02)
    assert undone.after == pytest.approx(0.475, abs=0.02)
    assert scale.time - undone.time >= 15
    assert "global/west/lab needs more capacity up" in scale.text
    running.tick()
    assert running.grant("lab") == [6e6, 6e6]
    running.tick(count=30)
    assert len(steps(running)) == 4


def test_a_full_region_has_nothing_to_reallocate():
    """What is shared max-min already is not taken from one to give to another: it calls for capacity."""
    running = running_with()
    congest(running, 19e6)
    running.tick(count=8)
    # The first tick shows the demand before the grants followed: a place is congested only when it lasts.
    assert {step.rung for step in steps(running)} == {Rung.SCALE}
    assert {step.place for step in steps(running)} == {"global/west"}


def test_a_found_group_is_recomposed_without_its_largest_member_and_that_is_undone_when_it_ends():
    """The largest leaves the group at once, stays out of it through re-clusterings, and may come back."""
    running = Running(
        small(
            remediation={"congestion": {**QUICK, "ladder": ["recompose", "scale"]}},
            grouping={"half_life_s": 60, "every_s": 10, "hold_s": 20},
            group_defaults={"ceiling_mbps": 9},
        ),
        AtOnce(),
    )
    running.connect()
    running.offered = dict.fromkeys(PLACES, 1e6)
    for _ in range(6):
        talk(running)
        running.tick()
    assert groups(running) == {("anna", "ben", "carla"), ("david", "emma")}
    running.offered |= {"anna": 8e6, "ben": 4e6, "carla": 4e6}
    for _ in range(8):
        talk(running)
        running.tick()
    first = steps(running)[0]
    assert (first.rung, first.standing) == (Rung.RECOMPOSE, Standing.HELPED)
    assert first.text.startswith("take anna, who uses most, out of group auto-1")
    assert groups(running) == {("ben", "carla"), ("david", "emma")}
    desk = RemediationDesk(running.planner, lambda _: None, lambda: running.now)
    for step in steps(running):
        if step.in_force:
            desk.undo(step.id)
    running.offered |= dict.fromkeys(("anna", "ben", "carla"), 1e6)
    for _ in range(4):
        talk(running)
        running.tick()
    assert groups(running) == {("anna", "ben", "carla"), ("david", "emma")}


def groups(running: Running) -> set[tuple[str, ...]]:
    return {group.members for group in running.planner.snapshot.groups if group.source == "discovered"}


def talk(running: Running) -> None:
    """Anna, Ben and Carla talk to one another, and David to Emma."""
    pairs = [("anna", "ben"), ("ben", "carla"), ("carla", "anna"), ("david", "emma")]
    for dpid in (0x11, 0x21):
        mine = [(a, b) for a, b in pairs if PLACES[a] // 16 == dpid // 16]
        names = tuple(mac_of(running.config, user) for pair in mine for user in pair)
        n = len(mine)
        edges = EdgeSamples(
            np.arange(0, 2 * n, 2, dtype=np.uint32), np.arange(1, 2 * n, 2, dtype=np.uint32),
            np.zeros(n, np.uint32), np.full(n, 5.0), np.full(n, 5e6),
        )  # fmt: skip
        running.planner.ingest(SampleBatch(dpid, running.now, edges=edges, endpoints=names))


# Ports.


def ports_running(**congestion: Any) -> Running:
    """Switch 0x11 with a port towards 0x12 of 10 Mbit/s by configuration; Anna and Ben behind it."""
    own = {"ports": [{"dpid": 0x11, "port_no": 9, "capacity_mbps": 10}], "max_users": 0.4, **congestion}
    running = running_with(own)
    links = frozenset({Link(0x11, 9, 0x12, 9), Link(0x12, 9, 0x11, 9)})
    running.planner.report(replace(network(running.config, version=2), links=links, ports=(Port(0x11, 9, "x", 1e10, True),)))  # fmt: skip
    return running


def tick_with_port(running: Running, tx_bps: float, dropped_pps: float = 0.0) -> None:
    """A tick in which port 9 of 0x11 sends this much; its meters are silent this once."""
    running.tick()
    running.now += 5
    for dpid in (0x11, 0x12, 0x21):
        running.planner.ingest(batch_of(running, dpid, tx_bps, dropped_pps))
    running.planner.tick(running.now)


def batch_of(running: Running, dpid: int, tx_bps: float, dropped_pps: float) -> SampleBatch:
    plan: Plan = running.planner.snapshot.plan
    owners = plan.layouts[dpid].owners
    rates = np.array([running.rate(owner.pool, owner.direction) for owner in owners])
    meters = MeterSamples(
        np.array([owner.meter_id for owner in owners], np.uint32), np.full(len(owners), 5.0), rates,
        np.zeros(len(owners)), np.zeros(len(owners), np.uint8),
    )  # fmt: skip
    ports = PortSamples(
        np.array([9, 0xFFFFFFFE], np.uint32), np.full(2, 5.0), np.full(2, 1e5), np.array([tx_bps, 1e12]),
        np.array([dropped_pps, 1e6]),
    )  # fmt: skip
    return SampleBatch(dpid, running.now, meters, ports=ports if dpid == 0x11 else PortSamples())


def test_the_largest_users_behind_a_busy_port_are_held_and_nobody_below_its_guarantee():
    """As far as the port is well again, in the direction that is busy; other directions stay."""
    running = ports_running()
    running.offered |= {"anna": 7e6, "ben": 2.5e6}
    for _ in range(3):
        tick_with_port(running, 9.5e6)
    step = steps(running)[0]
    assert (step.kind, step.place, step.rung) == (
        "port_utilisation",
        "port 0000000000000011/9",
        Rung.REALLOCATE,
    )
    # 9.5 of 10 Mbit/s, and well below 72 %: 2.3 Mbit/s have to go, all of them Anna's.
    assert step.measures.limits == {"anna": (4.7e6, float("inf"))}
    tick_with_port(running, 9.5e6)
    assert running.grant("anna")[0] == 4.7e6
    assert running.grant("anna")[1] > 7e6
    for _ in range(4):
        tick_with_port(running, 7e6)
    assert steps(running)[0].standing is Standing.HELPED


def test_ports_that_carry_no_cables_and_ports_of_unknown_speed_tell_nothing():
    """The switch's own port is none; without a speed there is no utilisation."""
    running = ports_running(ports=[])
    running.planner.report(network(running.config, version=3))
    for _ in range(4):
        tick_with_port(running, 1e12)
    assert steps(running) == ()


def test_dropping_ports_are_congested_whatever_they_carry():
    """By packets a second."""
    running = ports_running()
    running.offered |= {"anna": 7e6}
    for _ in range(3):
        tick_with_port(running, 7e6, dropped_pps=500.0)
    assert [(step.kind, step.direction) for step in steps(running)] == [("port_drops", 1)]


def test_dropping_meters_of_a_group_are_congestion():
    """What reaches the group's own meters and is dropped there."""
    running = running_with(groups={"lab": {"members": ["anna", "ben"], "ceiling_mbps": 20}})
    plan = running.planner.snapshot.plan
    for _ in range(4):
        running.now += 5
        for dpid, layout in plan.layouts.items():
            owners = layout.owners
            lab = np.array([owner.pool.endswith("/lab") for owner in owners])
            ids = np.array([owner.meter_id for owner in owners], np.uint32)
            n = len(owners)
            meters = MeterSamples(
                ids, np.full(n, 5.0), np.full(n, 1e6), np.where(lab, 2e5, 0.0), np.zeros(n, np.uint8)
            )
            running.planner.ingest(SampleBatch(dpid, running.now, meters))
        running.planner.tick(running.now)
    assert {(step.kind, step.place) for step in steps(running)} == {("meter_drops", "global/west/lab")}
    assert steps(running)[0].before == pytest.approx(0.2)


# Observing, freezing, failing.


def test_by_default_steps_are_only_proposed_and_calls_for_capacity_made():
    """A planner that nobody has allowed to act changes nothing."""
    running = running_with({"mode": "observe"}, groups=LAB)
    congest(running)
    running.tick(count=12)
    assert sorted(standings(running)) == [("reallocate", "proposed")] * 2 + [("scale", "raised")] * 2
    assert steps(running)[0].measures.lifts.keys() == {"group:lab"}
    assert running.grant("lab") == [6e6, 6e6]
    assert not running.planner.remediation.policies.names("group:lab")


def test_nothing_is_done_while_another_plan_stands():
    """Frozen or in shadow what is done shows no effect: it could not be judged."""
    running = running_with(groups=LAB)
    running.planner.publication.freeze(running.now, "maintenance")
    congest(running)
    running.tick(count=10)
    assert steps(running) == ()
    running.planner.publication.unfreeze(running.now)
    running.tick(count=4)
    assert standings(running) == [("reallocate", "tried")] * 2


def test_lost_polls_are_no_congestion():
    """Users of whom nothing is known want nothing that anybody knows of."""
    running = running_with(groups=LAB)
    congest(running)
    running.silent = {0x11, 0x12}
    running.tick(count=10)
    assert steps(running) == ()


def test_a_clock_set_back_does_nothing(caplog: pytest.LogCaptureFixture):
    """A day back in the middle of a trial: it is judged all the same, and no tick fails."""
    running = running_with({"ceiling_factor": 2.0}, groups=LAB)
    congest(running)
    running.tick(count=3)
    running.now -= 86_400
    running.tick(count=8)
    assert standings(running) == [("reallocate", "helped")] * 2
    assert running.planner.snapshot.health.problems == ()


def test_when_remediation_fails_plans_are_made(monkeypatch: pytest.MonkeyPatch):
    """And the health says so, until it works again."""
    running = running_with(groups=LAB)
    version = running.planner.snapshot.plan.version

    def fail(*_: Any) -> bool:
        raise ZeroDivisionError("injected")

    with monkeypatch.context() as broken:
        broken.setattr(running.planner.remediation, "step", fail)
        running.tick()
        assert running.planner.snapshot.plan.version == version + 1
        assert any("remediation failed" in problem for problem in running.planner.snapshot.health.problems)
    running.tick()
    assert running.planner.snapshot.health.problems == ()


# Isolation.


def alarm(running: Running, user: str, kind: Kind = Kind.FAN_OUT, change: Change = Change.OPENED) -> None:
    """An alarm of a user as the detector would raise it."""
    evidence = Evidence(400.0, 1.0, 10.0, 20.0, 1e-9, NAN, 1e-7, 3)
    number = sorted(PLACES).index(user)
    path = running.planner.snapshot.pools.path[running.row(user)]
    anomaly = Anomaly(number, kind, change, 1, running.now, "critical", "over", evidence)
    running.planner.alarm_watch.stream.take(running.now, [Sighting(path, "user", 0, anomaly)])


def test_an_alarm_isolates_a_user_for_a_time():
    """The ceiling falls to the least rate at the next plan, guarantee or not, and everything comes back."""
    running = running_with(isolation={"mode": "act", "for_s": 60}, allocation={"min_rate_mbps": 0.1})
    alarm(running, "anna")
    running.tick(count=2)
    assert running.grant("anna") == [1e5, 1e5]
    assert running.grant("ben")[0] > 1e6
    step = steps(running)[0]
    assert (step.rung, step.standing) == (Rung.ISOLATE, Standing.TRIED)
    assert step.text == "isolate anna for 60 s: hold it at 0.1 Mbit/s"
    assert "anna talks to 400 peers" in step.why
    alarm(running, "anna", change=Change.CLOSED)
    running.tick(count=13)
    assert running.grant("anna")[0] >= 1e6
    assert steps(running)[0].standing is Standing.ENDED


def test_dropping_takes_the_devices_macs_into_the_layout():
    """The edge switch drops all that an isolated user sends; lifted, it takes it again."""
    running = running_with(isolation={"mode": "act", "action": "drop"})
    alarm(running, "anna")
    plan = running.tick(count=2)
    assert plan.layouts[0x11].isolated == (mac_of(running.config, "anna"),)
    assert plan.layouts[0x12].isolated == ()
    told: list[str] = []
    desk = RemediationDesk(running.planner, told.append, lambda: running.now)
    assert [one.user for one in desk.isolations()] == ["anna"]
    desk.lift("anna")
    assert told == ["isolation of anna lifted"]
    assert running.tick().layouts[0x11].isolated == ()
    with pytest.raises(NotThere, match="user must be one that is isolated, got 'anna'"):
        desk.lift("anna")
    with pytest.raises(Refused, match="must be the id of a step that is in force"):
        desk.undo(steps(running)[0].id)


def test_protected_users_and_first_priority_are_never_isolated():
    """Named ones, those of priority 0, and shared services."""
    users = {
        user: {"macs": [f"00:00:00:00:01:{n:02x}"], **({"priority": 0} if user == "carla" else {})}
        for n, user in enumerate(PLACES, 1)
    }
    running = running_with(isolation={"mode": "act", "protected": ["anna"], "max_users": 9}, users=users)
    running.planner.grouping.shared_services = ("ben",)
    for user in PLACES:
        alarm(running, user)
    running.tick(count=2)
    assert {step.place.rpartition("/")[2] for step in steps(running)} == {"david", "emma"}


def test_by_default_isolations_are_only_proposed():
    """Observe first."""
    running = running_with()
    alarm(running, "anna")
    running.tick(count=3)
    assert standings(running) == [("isolate", "proposed")]
    assert running.grant("anna")[0] >= 1e6


# Restarts.


def successor(running: Running, **remediation: Any) -> Running:
    """Another planner from the bytes of this one's memory."""
    config = running.config
    if remediation:
        config = config.model_copy(update={"remediation": config.remediation.model_copy(update=remediation)})
    after = Running(config)
    after.planner.restore(Memory.from_bytes(running.planner.memory().to_bytes()))
    after.now, after.offered = running.now, running.offered
    after.connect()
    return after


def test_the_record_and_what_is_in_force_outlive_a_restart():
    """An isolated user is not free for a tick, a trial is judged by the successor, and ids go on."""
    running = running_with({"ceiling_factor": 2.0}, {"mode": "act", "for_s": 600}, groups=LAB)
    congest(running)
    alarm(running, "emma")
    running.tick(count=3)
    before = steps(running)
    after = successor(running)
    assert [replace(step, sequence=0) for step in steps(after)] == [
        replace(step, sequence=0) for step in before
    ]
    after.tick()
    assert after.grant("emma") == [64_000, 64_000]
    after.tick(count=8)
    assert standings(after).count(("reallocate", "helped")) == 2


def test_what_the_configuration_does_no_more_is_taken_back():
    """Acting switched off between two planners: nothing stays in force."""
    running = running_with({"ceiling_factor": 2.0}, {"mode": "act"}, groups=LAB)
    congest(running)
    alarm(running, "emma")
    running.tick(count=3)
    rules = running.config.remediation
    after = successor(
        running,
        congestion=rules.congestion.model_copy(update={"mode": "off"}),
        isolation=rules.isolation.model_copy(update={"mode": "observe"}),
    )
    assert {step.standing for step in steps(after)} == {Standing.UNDONE}
    after.tick(count=3)
    assert after.grant("lab") == [6e6, 6e6]
    assert after.grant("emma")[0] >= 1e6


def test_a_damaged_record_is_told_of_and_planning_goes_on(caplog: pytest.LogCaptureFixture):
    """Like any other part of the memory."""
    running = running_with(groups=LAB)
    running.planner.restore(replace(running.planner.memory(), remediation={"trail": 3}))
    assert "remediation of an earlier planner not restored" in caplog.text
    assert running.tick().meters


# Who is told.


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_everything_that_happened_reaches_a_server(receiver: Receiver, tmp_path: Path):
    """Alarms, steps and their ends, the scaling event, groups, and a freeze: over real HTTP, each once."""
    running = running_with({"ceiling_factor": 1.05}, {"mode": "act"}, groups=LAB)
    hooks = Webhooks([Webhook(url=receiver.url, secret_file=tmp_path / "secret")])
    announcer = Announcer(running.planner, hooks)
    hooks.start()
    try:
        congest(running)
        alarm(running, "emma")
        for _ in range(14):
            running.tick()
            announcer.step(running.now)
        running.planner.publication.freeze(running.now, "maintenance")
        running.planner.grouping.pin("studio", ("david", "emma"), running.now)
        running.planner.policies.overrides["studio"] = Override()
        announcer.step(running.now)
        announcer.step(running.now)
        # Two scaling events, an alarm, an isolation, two steps and their two ends, plan and group.
        wait_for(lambda: hooks.view()[0].delivered >= 10, "ten messages")
    finally:
        hooks.stop()
    scaling = receiver.messages("scaling")
    assert {(one["place"], one["direction"]) for one in scaling} == {
        ("global/west/lab", "up"), ("global/west/lab", "down"),
    }  # fmt: skip
    assert scaling[0]["evidence"]["unmet_bps"] == pytest.approx(6e6, rel=0.1)
    told = [(one["rung"], one["standing"]) for one in receiver.messages("remediation")]
    assert sorted(told) == [
        ("isolate", "tried"), ("reallocate", "tried"), ("reallocate", "tried"),
        ("reallocate", "undone"), ("reallocate", "undone"),
    ]  # fmt: skip
    assert [one["kind"] for one in receiver.messages("alarm")] == ["fan_out"]
    assert [(one["frozen"], one["reason"]) for one in receiver.messages("plan")] == [(True, "maintenance")]
    assert receiver.messages("group") == [
        {"group": "studio", "members": ["david", "emma"], "joined": ["david", "emma"], "left": []}
    ]
    assert len(receiver.got) == 10
