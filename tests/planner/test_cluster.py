"""Training on a Dask cluster: a real one of two workers on loopback, and none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import numpy as np
import pytest

from forecasting.history import History
from forecasting.settings import ForecastSettings
from forecasting.training import retrain
from planner.cluster import ClusterPool, training_workers
from planner.config import Forecasting
from planner.workers import Errand
from tests.planner.networks import AtOnce

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.timeout(240)


def new_cluster(port: int = 0) -> Any:
    """Two worker processes and a scheduler on loopback, without a dashboard."""
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", scheduler_port=port,
        dashboard_address=":0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with new_cluster() as made:
        yield made


@pytest.fixture
def pool(cluster: Any) -> Iterator[ClusterPool]:
    made = pool_at(cluster.scheduler_address)
    yield made
    made.shutdown()


def pool_at(address: str, task_s: float = 120.0) -> ClusterPool:
    return ClusterPool(Forecasting(dask_address=address), AtOnce(), task_s, connect_s=2.0)


def fail(error: Exception) -> None:
    raise error


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def small_history() -> History:
    rng = np.random.default_rng(0)
    wave = 5e6 + 4e6 * np.sin(np.arange(80)[:, None] / 4 + np.arange(20))
    demand = (wave + rng.normal(0, 1e5, wave.shape)).astype(np.float32)
    level = np.repeat([0, 1], 10)
    return History(demand, np.zeros(demand.shape, bool), 5.0, 400.0, level, np.arange(20))


def test_a_model_is_trained_on_the_cluster(pool: ClusterPool):
    """History travels there, model and verdict come back: the same as when they are made here."""
    settings = ForecastSettings(
        step_s=5.0, horizons_s=(5.0, 15.0), window_steps=8, min_history_steps=4, train_steps=80, iterations=5
    )
    model, verdict = pool.submit(retrain, small_history(), settings, None).result(120)
    assert pool.problem is None
    here, judged = retrain(small_history(), settings, None)
    assert (model.kind, model.n_rows, model.spec) == (here.kind, here.n_rows, here.spec)
    assert verdict.challenger_score == pytest.approx(judged.challenger_score, rel=1e-6)


def test_work_runs_in_the_clusters_processes(cluster: Any, pool: ClusterPool):
    """What is handed over runs in one of two processes that are not this one."""
    assert len(cluster.workers) == 2
    assert pool.submit(os.getpid).result(60) != os.getpid()


def test_the_works_own_errors_come_back(pool: ClusterPool):
    """An exception of the work is the work's: it is not tried again here, and the cluster is not blamed."""
    with pytest.raises(OSError, match="disk"):
        pool.submit(fail, OSError("disk")).result(60)
    assert pool.problem is None


def test_a_scheduler_that_is_not_there_leaves_the_work_to_this_machine():
    """Work is done, and the problem names the address."""
    pool = pool_at("tcp://127.0.0.1:1")
    assert pool.submit(abs, -3).result(60) == 3
    assert pool.problem is not None
    assert "cluster tcp://127.0.0.1:1 failed, trained on this machine" in pool.problem
    pool.shutdown()


def test_work_that_takes_too_long_is_taken_back(cluster: Any):
    """A cluster that never answers does not stop training for good."""
    pool = pool_at(cluster.scheduler_address, task_s=0.5)
    assert pool.submit(pid_after, 2.0).result(60) == os.getpid()
    assert pool.problem is not None
    pool.shutdown()


def test_a_scheduler_that_goes_and_comes_back_is_used_again():
    """While it is gone this machine trains; the next work after its return goes to it."""
    first = new_cluster()
    address = first.scheduler_address
    pool = pool_at(address)
    try:
        assert pool.submit(os.getpid).result(60) != os.getpid()
        first.close()
        assert pool.submit(os.getpid).result(60) == os.getpid()
        with new_cluster(int(address.rpartition(":")[2])):
            assert pool.submit(os.getpid).result(60) != os.getpid()
            assert pool.problem is None
            pool.shutdown()
    finally:
        pool.shutdown()


def test_submit_does_not_wait_and_errands_go_on(cluster: Any, pool: ClusterPool):
    """The loop hands work over and fetches it later, whatever the cluster does meanwhile."""
    errand = Errand("training", 60)
    assert errand.start(pool, 0.0, pid_after, 1.0)
    assert errand.result() is None
    deadline = time.monotonic() + 60
    while (pid := errand.result()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pid not in {None, os.getpid()}


def test_shutdown_gives_up_what_is_under_way(cluster: Any):
    """A planner that stops does not wait for a training on the cluster."""
    pool = pool_at(cluster.scheduler_address)
    pool.submit(abs, -1).result(60)
    given_up = pool.submit(pid_after, 100.0)
    pool.shutdown(wait=False)
    assert given_up.exception(timeout=30) is not None


def test_without_an_address_the_planners_own_workers_train():
    """Nobody needs a cluster."""
    local: Executor = AtOnce()
    assert training_workers(Forecasting(), local) is local
