"""How long one tick of the planner takes, at 1,000, 10,000 and 100,000 users.

    python -m bench.loop --json OUT [--users 1000,10000,100000] [--ticks N]

The planner is the real one: the samples come as the seam's bytes, demand goes into the ring and
through a writer's thread into an encrypted DuckDB file, a model is trained and communities are
found in worker processes. Only the switches are made up. Each measured tick observes a new
poll of every switch, forecasts every pool with the model, allocates both directions and makes the meter tables.

tick_ms_*       one ``Planner.tick``, all of the above
steps_ms        its parts, medians
ingest_ms       decoding one poll of all switches, which the web server's thread does
encode_plan_ms  coding the plan for a speaker that knows the layout, likewise
rebuild_ms      what a tick takes longer when somebody attached, left or moved group
rss_mb          the process's memory at the end, workers not included

At 1,000 users the straightforward way is measured beside it in the same process: a
gradient-boosted model per quantile of scikit-learn's and a linear program per direction.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.figures import write_figures
from bench.straightforward import measure_straightforward
from bench.synthetic import TICK_S, Synthetic
from forecasting.forecast import Rung
from planner.loop import Planner
from planner.plan import encode_plan
from planner.workers import worker_pool
from telemetry.keys import StoreKey
from telemetry.rows import SampleRows
from telemetry.samples import decode_batch
from telemetry.store import Store
from telemetry.writer import StoreWriter

SIZES: Final = (1_000, 10_000, 100_000)
#: p99 of fewer is the maximum; of these it nearly is.
_TICKS: Final = {100_000: 40}
_TICKS_OTHERWISE: Final = 100
#: At this size the straightforward way takes seconds; at larger ones, minutes.
_COMPARED_AT: Final = 1_000
#: Ticks not measured: caches fill, the ring's memory is touched for the first time.
_WARM_UP: Final = 5
_SINCE: Final = 1_767_592_800.0
_PATIENCE_S: Final = 120.0
_LIBRARIES: Final = ("numpy", "catboost", "duckdb", "scikit-learn", "numba")


@dataclass
class Timings:
    """Milliseconds of every measured tick."""

    tick_ms: list[float] = field(default_factory=list)
    ingest_ms: list[float] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    steps_ms: list[dict[str, float]] = field(default_factory=list)


class Course:
    """A planner on its way through virtual time."""

    def __init__(self, synthetic: Synthetic, planner: Planner) -> None:
        self.synthetic = synthetic
        self.planner = planner
        self.now = _SINCE
        planner.report(synthetic.report(self.now))
        planner.tick(self.now)

    def tick(self, timings: Timings | None = None) -> None:
        """One poll of every switch, and one plan."""
        self.now += TICK_S
        bodies = self.synthetic.poll(self.now, self.planner.snapshot.plan)
        start = time.perf_counter()
        for body in bodies:
            self.planner.ingest(decode_batch(body))
        ingested = time.perf_counter()
        plan = self.planner.tick(self.now)
        ticked = time.perf_counter()
        encode_plan(plan, plan.layout_version)
        encoded = time.perf_counter()
        if timings is not None:
            timings.ingest_ms.append((ingested - start) * 1e3)
            timings.tick_ms.append((ticked - ingested) * 1e3)
            timings.encode_ms.append((encoded - ticked) * 1e3)
            timings.steps_ms.append(self.planner.snapshot.health.steps_ms)

    def settle(self) -> None:
        """Tick until communities are groups and every pool is the model's."""
        deadline = time.monotonic() + _PATIENCE_S
        errand = self.planner.grouping.errand
        usual_s, errand.every_s = errand.every_s, TICK_S
        while not self._settled():
            if time.monotonic() > deadline:
                raise RuntimeError(f"must settle within {_PATIENCE_S:g} s, got {self._state()}")
            self.tick()
            # Workers need real time, of which virtual time takes none.
            time.sleep(0.5)
        errand.every_s = usual_s

    def _settled(self) -> bool:
        groups = self.planner.snapshot.groups
        rung = self.planner.snapshot.pools.rung
        return bool(groups and all(g.state == "active" for g in groups) and (rung == Rung.MODEL).all())

    def _state(self) -> str:
        health = self.planner.snapshot.health
        rung = np.bincount(self.planner.snapshot.pools.rung.ravel()).tolist()
        return f"{len(self.planner.snapshot.groups)} groups, pools by rung {rung}, {health.problems}"


@contextmanager
def running(synthetic: Synthetic) -> Iterator[tuple[Course, StoreWriter]]:
    """A planner with its store and its workers, all ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        store = Store.open(Path(folder, "bench.duckdb"), StoreKey(os.urandom(32)))
        writer = StoreWriter(store)
        executor: Executor = worker_pool()

        def keep(rows: list[SampleRows]) -> None:
            for part in rows:
                writer.submit(part)

        try:
            yield Course(synthetic, Planner(synthetic.config, executor, synthetic.load, keep)), writer
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            writer.close()


def run_size(n_users: int, n_ticks: int) -> dict[str, Any]:
    """One size's part of the result."""
    started = time.monotonic()
    synthetic = Synthetic.of(n_users)
    with running(synthetic) as (course, writer):
        planner = course.planner
        course.settle()
        _say(f"{n_users:>7,} users: settled after {time.monotonic() - started:.0f} s")
        for _ in range(_WARM_UP):
            course.tick()
        timings, moved = Timings(), 0
        layout = planner.snapshot.plan.layout_version
        for number in range(n_ticks):
            course.tick(timings)
            moved += planner.snapshot.plan.layout_version != layout
            layout = planner.snapshot.plan.layout_version
            if (number + 1) % 20 == 0:
                _say(f"{n_users:>7,} users: tick {number + 1} of {n_ticks}")
        pools, health = planner.snapshot.pools, planner.snapshot.health
        result: dict[str, Any] = {
            "tick_ms_p50": _percentile(timings.tick_ms, 50),
            "tick_ms_p99": _percentile(timings.tick_ms, 99),
            "tick_ms_max": _percentile(timings.tick_ms, 100),
            "steps_ms": {
                name: _percentile([steps[name] for steps in timings.steps_ms], 50) for name in health.steps_ms
            },
            "ingest_ms": _percentile(timings.ingest_ms, 50),
            "encode_plan_ms": _percentile(timings.encode_ms, 50),
            "rebuild_ms": _rebuild_ms(course, timings),
            "rss_mb": _rss_mb(),
            "n_ticks": n_ticks,
            "rebuilds_in_ticks": moved,
            "switches": len(synthetic.network.dpids),
            "pools": len(pools.path),
            "groups": len(planner.snapshot.groups),
            "meters": sum(len(table) for table in planner.snapshot.plan.meters.values()),
            "by_model_share": float((pools.rung == Rung.MODEL).mean()),
            "store_rows_written": writer.written_rows,
            "store_rows_dropped": writer.dropped_rows,
            "problems": list(health.problems),
        }
        if n_users == _COMPARED_AT:
            result["straightforward"] = measure_straightforward(planner, course.now, result["steps_ms"])
    return result


def _rebuild_ms(course: Course, timings: Timings) -> float:
    rebuilt = Timings()
    for _ in range(3):
        course.planner.restructure()
        course.tick(rebuilt)
    return round(_percentile(rebuilt.tick_ms, 50) - _percentile(timings.tick_ms, 50), 2)


def _percentile(values: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2)


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def context() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "tick_s": TICK_S,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all sizes, each in a process of its own; the JSON goes where asked, progress to standard error."""
    options = argparse.ArgumentParser(
        prog="python -m bench.loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--json", required=True, metavar="OUT", help="file to write, or - for standard output"
    )
    options.add_argument(
        "--users", type=_sizes, default=SIZES, metavar="N,...", help="1000,10000,100000 if not given"
    )
    options.add_argument(
        "--ticks", type=_count, default=None, metavar="N", help="measured ticks at each size"
    )
    chosen = options.parse_args(arguments)
    users = {}
    for n_users in chosen.users:
        n_ticks = chosen.ticks or _TICKS.get(n_users, _TICKS_OTHERWISE)
        # A process of its own, so that memory and caches are this size's alone.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own:
            users[str(n_users)] = figures = own.submit(run_size, n_users, n_ticks).result()
        steps = ", ".join(f"{name} {took:g}" for name, took in figures["steps_ms"].items())
        _say(
            f"{n_users:>7,} users: tick p50 {figures['tick_ms_p50']:g} ms, p99 {figures['tick_ms_p99']:g} ms "
            f"({steps}); {figures['rss_mb']:g} MB"
        )
    write_figures({**context(), "users": users}, chosen.json)
    return 0


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
