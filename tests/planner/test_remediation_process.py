"""Webhooks in the planner's process: told by its loop, and what was not delivered outlives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from planner.process import PlannerProcess
from tests.planner.networks import small
from tests.planner.receiver import receiving, wait_for


def process(tmp_path: Path, url: str) -> PlannerProcess:
    blocks: dict[str, Any] = {
        "store": {"path": str(tmp_path / "store.duckdb")},
        "planner": {"secret_file": str(tmp_path / "seam")},
        "northbound": {"token_file": str(tmp_path / "token")},
        "webhooks": [{"url": url, "secret_file": str(tmp_path / "hook"), "attempts": 1, "events": ["plan"]}],
    }
    return PlannerProcess(small(**blocks))


def test_a_change_of_mode_is_told_and_a_dead_letter_is_sent_by_the_successor(tmp_path: Path):
    """What the first could not deliver waits on disk; the second sends it by order."""
    with receiving() as receiver:
        receiver.statuses = [500]
        first = process(tmp_path, receiver.url)
        first.start()
        try:
            first.policy.set_mode("shadow", (), None)
            wait_for(lambda: len(first.webhooks.dead_letters()) == 1, "the dead letter")
        finally:
            first.stop()
        second = process(tmp_path, receiver.url)
        second.start()
        try:
            (letter,) = second.webhooks.dead_letters()
            second.webhooks.retry(letter.id)
            wait_for(
                lambda: letter.id in {got.headers["webhook-id"] for got in receiver.got[1:]}, "the retry"
            )
            assert receiver.got[-1].message["data"]["mode"] == "shadow"
        finally:
            second.stop()
