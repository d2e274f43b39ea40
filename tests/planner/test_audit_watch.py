"""What the planner does by itself is in the audit log, once, and an operator's writes are not told as its own."""

from __future__ import annotations

from typing import Any

import pytest

from forecasting.features import FeatureSpec
from forecasting.training import TrainedModel, Verdict
from planner.audit_watch import AuditWatch
from planner.model_versions import Outcome
from planner.policies import Lift
from planner.policy_desk import PolicyDesk
from tests.planner.networks import PLACES, Running, small


class Watched:
    """A planner with virtual time, and what was recorded of it."""

    def __init__(self, **blocks: Any) -> None:
        self.running = Running(small(**blocks))
        self.running.offered = dict.fromkeys(PLACES, 2e6)
        self.running.connect()
        self.running.tick(count=2)
        self.entries: list[tuple[Any, ...]] = []
        self.watch = AuditWatch(self.running.planner, lambda *entry: self.entries.append(entry))

    def step(self, count: int = 1) -> list[tuple[Any, ...]]:
        """What is recorded of so many ticks."""
        self.entries.clear()
        for _ in range(count):
            self.running.tick()
            self.watch.step(self.running.now)
        return list(self.entries)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_quiet_planner_does_nothing_worth_recording(watched: Watched):
    """Plans are made at every tick; they are no news."""
    assert watched.step(3) == []


def test_boost_that_ends_by_itself_is_recorded_once(watched: Watched):
    """One that an operator withdrew is the operator's."""
    running = watched.running
    desk = PolicyDesk(running.planner, lambda _: None, lambda: running.now)
    lift = Lift(weight_factor=2.0)
    desk.boost("short", ("user:anna",), lift, None, running.now + 7, "")
    desk.boost("long", ("user:ben",), lift, None, running.now + 10_000, "")
    watched.step()
    desk.withdraw("long")
    ended = [entry for entry in watched.step(4) if entry[1] == "boost ended"]
    assert ended == [("planner", "boost ended", "short", ["user:anna"], None, "its time was over")]


def test_model_that_is_promoted_is_recorded_with_why(watched: Watched):
    """And what was in use before; a rollback by command is not the planner's own."""
    versions = watched.running.planner.prediction.models.versions
    trained = TrainedModel("catboost", b"", FeatureSpec(60.0, 64), (0.1, 0.5, 0.9), 0.0, 1)
    verdict = Verdict(True, 0.11, 0.12, 0.13, 99, "better")
    for name in (b"one", b"two"):
        versions.add(watched.running.now, trained, verdict, Outcome.PROMOTED, "better by 8 %", name)
    entries = [entry for entry in watched.step() if entry[1].startswith("model")]
    assert entries == [
        ("planner", "model promoted", "model 1", None, 1, "better by 8 %"),
        ("planner", "model promoted", "model 2", 1, 2, "better by 8 %"),
    ]
    versions.roll_back(watched.running.now, 1, float("inf"), "by command")
    assert [entry for entry in watched.step() if entry[1].startswith("model")] == []
