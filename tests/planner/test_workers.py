"""Work outside the loop: one errand at a time, workers that come back, and none that stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.group_findings import findings_of
from planner.workers import Errand, worker_pool
from tests.planner.networks import AtOnce, Broken, Never
from topology.traffic import TrafficGraph

ROOT = Path(__file__).parents[2]


class ExpectedError(Exception):
    """What an errand may raise in a test."""


def fail(error: Exception) -> None:
    raise error


def until(condition: Any, deadline_s: float = 20.0) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + deadline_s
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(found)


@pytest.fixture
def pool() -> Iterator[Executor]:
    workers = worker_pool()
    yield workers
    workers.shutdown(wait=True, cancel_futures=True)


def test_result_is_given_once():
    """The loop fetches what came, and then there is nothing."""
    errand = Errand("work", 60)
    assert errand.start(AtOnce(), 0.0, abs, -3)
    assert errand.result() == 3
    assert errand.result() is None


def test_one_at_a_time():
    """While one is under way the next is not due, however long it takes."""
    errand = Errand("work", 60)
    assert errand.due(0.0)
    errand.start(Never(), 0.0, abs, -3)
    assert not errand.due(1e9)


def test_due_again_after_its_interval():
    """It is due when the interval has passed since the last start or since it was put off."""
    errand = Errand("work", 60)
    errand.start(AtOnce(), 100.0, abs, -3)
    errand.result()
    assert [errand.due(now) for now in (100.0, 159.0, 160.0)] == [False, False, True]
    errand.put_off(160.0)
    assert not errand.due(170.0)


def test_clock_set_back_does_not_stop_the_work():
    """After the clock went back a year the errand is due at once, not in a year."""
    errand = Errand("work", 60)
    errand.put_off(1e9)
    assert errand.due(1e9 - 3e7)


def test_failed_work_is_told_and_tried_again():
    """An exception is an error text, not a raise; the next success clears it."""
    errand = Errand("work", 60)
    errand.start(AtOnce(), 0.0, fail, OSError("disk"))
    assert errand.result() is None
    assert errand.error is not None
    assert "disk" in errand.error
    errand.start(AtOnce(), 60.0, abs, -1)
    assert errand.result() == 1
    assert errand.error is None


def test_expected_errors_are_no_problem():
    """Too little history is a state, not a fault."""
    errand = Errand("work", 60)
    errand.start(AtOnce(), 0.0, fail, ExpectedError("later"))
    assert errand.result(expected=(ExpectedError,)) is None
    assert errand.error is None


def test_workers_that_are_gone_are_an_error():
    """Work that cannot be handed over leaves the errand free for the next try."""
    errand = Errand("work", 60)
    assert not errand.start(Broken(), 0.0, abs, -3)
    assert errand.error is not None
    assert errand.due(60.0)


def test_work_that_was_cancelled_is_an_error():
    """A pool that is replaced cancels what waited; the loop hears of it and goes on."""

    class Cancelling(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    errand = Errand("work", 60)
    errand.start(Cancelling(), 0.0, abs, -3)
    assert errand.result() is None
    assert errand.error is not None


def test_killed_worker_is_replaced(pool: Executor):
    """After a worker died (out of memory, say) the next errand gets new workers."""
    errand = Errand("work", 0)
    errand.start(pool, 0.0, os._exit, 1)
    assert until(lambda: errand.result() is None and errand.error)
    assert errand.start(pool, 1.0, abs, -3)
    assert until(lambda: errand.result() == 3)


def test_work_is_done_elsewhere_and_kindly(pool: Executor):
    """A worker is another process, and gives way to the loop."""
    assert pool.submit(os.getpid).result(30) != os.getpid()
    assert pool.submit(os.nice, 0).result(30) >= 10


def test_clustering_in_a_worker_finds_what_it_finds_here(pool: Executor):
    """The errand and its arguments travel to another process, and the answer back."""
    graph = TrafficGraph(600.0)
    ids = graph.intern(["a", "b", "c", "d", "e", "f"])
    src, dst = ids[[0, 1, 2, 3, 4, 5]], ids[[1, 2, 0, 4, 5, 3]]
    graph.observe(100.0, src, dst, np.zeros(6, np.int64), np.full(6, 1e6), np.full(6, 5.0))
    view = graph.view(100.0)
    found = pool.submit(findings_of, view).result(60).communities
    assert (
        set(found.groups())
        == set(findings_of(view).communities.groups())
        == {frozenset("abc"), frozenset("def")}
    )


PARENT = """\
import os, time
from planner.workers import worker_pool

def main():
    pool = worker_pool()
    futures = [pool.submit(time.sleep, 0.5) for _ in range(2)]
    print(*{pool.submit(os.getpid).result() for _ in range(2)}, flush=True)
    pool.submit(time.sleep, 1000)
    time.sleep(1000)

if __name__ == "__main__":
    main()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path):
    """After kill -9 of the planner no worker stays behind, not even a busy one."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        assert all(alive(pid) for pid in workers)
        parent.kill()
    assert until(lambda: not any(alive(pid) for pid in workers))
