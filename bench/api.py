"""How the REST API serves reads next to a planner that plans.

    python -m bench.api --json OUT [--seconds 60] [--rate 1000] [--users 1000]

The planner is the real process with its store, workers and guard; its switches are made up, and polled
every tick. Requests come from this process over connections that are kept, each at its own
moment, whether or not those before it were answered: a latency counts from when the request was
due, so a server that stands still is not spared what it kept waiting.

rate          requests answered per second
errors        answers that are neither 200 nor 304, and connections lost
p50_ms p99_ms latency, from the moment a request was due
ticks_late    ticks that came more than a tenth of a tick after their time
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from bench.figures import write_figures

TICK_S: Final = 5.0
_CONNECTIONS: Final = 64
_WARM_UP_S: Final = 30.0
_PATIENCE_S: Final = 180.0
_LATE: Final = 0.1
#: How often each kind of read is asked for; names in braces are filled in anew each time.
MIX: Final = (
    (20, "/health"),
    (10, "/plan/state"),
    (10, "/plan?limit=10"),
    (10, "/switches"),
    (10, "/groups?limit=100"),
    (10, "/metrics/global?level=region"),
    (10, "/metrics/global?level=user&limit=100&offset={page}"),
    (5, "/metrics/region/{region}?history_s=600"),
    (10, "/metrics/user/{user}?history_s=600"),
    (10, "/forecasts/{user}?history_s=3600"),
    (5, "/explain/{user}"),
    (5, "/alarms?open=true"),
    (5, "/boosts"),
    (5, "/trafficShapes"),
    (5, "/events"),
)


# The planner, a process of its own.


def serve(users: int, directory: Path) -> None:
    """Plan for a made-up network in real time, and serve, until told to stop."""
    from bench.synthetic import Synthetic
    from northbound.http_protocol import run_to_end
    from northbound.security.desk import Security
    from northbound.server import listen
    from northbound.server import serve as served
    from planner.process import PlannerProcess
    from telemetry.samples import decode_batch

    synthetic = Synthetic.of(users)
    config = synthetic.config
    blocks: dict[str, dict[str, Any]] = {
        "allocation": {"tick_s": TICK_S},
        "polling": {"interval_s": TICK_S},
        "grouping": {"every_s": 15.0, "half_life_s": 300.0, "hold_s": 5.0},
        "forecasting": {"train_every_s": 900.0},
        "store": {"path": directory / "store.duckdb"},
        "planner": {"secret_file": directory / "secret"},
        "northbound": {"token_file": directory / "token"},
    }
    for name, values in blocks.items():
        config = config.model_copy(update={name: getattr(config, name).model_copy(update=values)})
    process = PlannerProcess(config)
    token = "t" * 43
    security = Security.of_token(token, limits=config.northbound.limits)
    stop = threading.Event()

    def feed() -> None:
        process.planner.report(synthetic.report(time.time()))
        while not stop.wait(TICK_S):
            for body in synthetic.poll(time.time(), process.planner.snapshot.plan):
                process.planner.ingest(decode_batch(body))

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    process.start()
    try:
        sockets = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
        run_to_end(served(process, config, token, *sockets, parent_pid=os.getppid(), security=security))
    finally:
        stop.set()
        process.stop()


@contextmanager
def planner(users: int) -> Iterator[tuple[str, int]]:
    """Host and port of a planner that runs."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        command = [sys.executable, "-m", "bench.api", "--serve", directory, "--users", str(users)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ready = process.stdout.readline()
                if "rest=" not in ready:
                    raise RuntimeError("planner must start, see above")
                address = urlsplit(ready.split("rest=")[1].split()[0])
                yield str(address.hostname), int(address.port or 0)
            finally:
                process.terminate()
                process.wait(30)


# The requests.


@dataclass
class Names:
    """What may be asked about."""

    users: list[str]
    regions: list[str]

    def path(self, pattern: str, rng: random.Random) -> str:
        """One request of a kind."""
        page = 100 * rng.randrange(max(1, len(self.users) // 100))
        return pattern.format(user=rng.choice(self.users), region=rng.choice(self.regions), page=page)


class Connection:
    """One kept connection."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {'t' * 43}\r\n\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises OSError, asyncio.IncompleteReadError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place, limit=1 << 20)
        reader, writer = self._streams
        try:
            writer.write(f"GET {path} HTTP/1.1\r\n{self._head}".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            return int(head[9:12]), await reader.readexactly(length)
        except BaseException:
            writer.close()
            self._streams = None
            raise

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


@dataclass
class Outcome:
    """What came back."""

    latency_ms: list[float] = field(default_factory=list)
    by_path: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    #: When ticks were, as /health told.
    ticks: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        """What is reported."""
        p50, p99 = np.percentile(self.latency_ms, [50, 99]) if self.latency_ms else (np.nan, np.nan)
        ticks = sorted(set(self.ticks))
        late = int((np.diff(ticks) > (1 + _LATE) * TICK_S).sum())
        return {
            "rate": round(len(self.latency_ms) / self.seconds, 1),
            "errors": self.errors.total(),
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "ticks_late": late,
            "ticks": max(0, len(ticks) - 1),
            "p99_ms_by_path": {
                path: round(float(np.percentile(found, 99)), 2)
                for path, found in sorted(self.by_path.items())
            },
            "what_failed": dict(self.errors),
        }


async def load(host: str, port: int, names: Names, seconds: float, rate: float) -> Outcome:
    """Ask at this rate for so long."""
    outcome, rng = Outcome(), random.Random(1)
    weights, patterns = zip(*MIX, strict=True)
    asked = rng.choices(patterns, weights, k=round(seconds * rate))
    begun = time.perf_counter() + 0.1
    waiting = iter(enumerate(asked))

    async def worker() -> None:
        connection = Connection(host, port)
        for number, pattern in waiting:
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                status, body = await connection.get(names.path(pattern, rng))
            except (OSError, asyncio.IncompleteReadError) as error:
                outcome.errors[type(error).__name__] += 1
                continue
            took_ms = (time.perf_counter() - due) * 1e3
            outcome.latency_ms.append(took_ms)
            outcome.by_path.setdefault(pattern, []).append(took_ms)
            if status not in (200, 304):
                outcome.errors[f"{pattern}: {status}"] += 1
            elif pattern == "/health":
                outcome.ticks.append(json.loads(body)["last_tick"])
        connection.close()

    await asyncio.gather(*(worker() for _ in range(_CONNECTIONS)))
    outcome.seconds = time.perf_counter() - begun
    return outcome


async def measure(host: str, port: int, seconds: float, rate: float) -> dict[str, Any]:
    """Wait until the planner plans for all, and measure."""
    connection = Connection(host, port)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        pools = json.loads((await connection.get("/metrics/global?limit=10000"))[1])["pools"]
        health = json.loads((await connection.get("/health"))[1])
        if health["status"] != "starting" and health["ticks"] * TICK_S >= _WARM_UP_S:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"planner must plan within {_PATIENCE_S:g} s, got {health}")
        await asyncio.sleep(1)
    connection.close()
    named = {
        level: [p["path"].rsplit("/", 1)[1] for p in pools if p["level"] == level]
        for level in ("user", "region")
    }
    outcome = await load(host, port, Names(named["user"], named["region"]), seconds, rate)
    return {"asked_rate": rate, "seconds": seconds, "users": len(named["user"]), **outcome.figures()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", help="where the figures go; - for the screen")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests per second")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve is not None:
        serve(given.users, given.serve)
        return
    with planner(given.users) as (host, port):
        figures = asyncio.run(measure(host, port, given.seconds, given.rate))
    write_figures(figures, given.json)


if __name__ == "__main__":
    main()
