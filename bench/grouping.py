"""How well and how fast applications and roles are found in traffic.

    python -m bench.grouping [--endpoints 1000,10000] [--cross-talk 0,0.2] --json OUT
    python -m bench.grouping --edges FILE.parquet [--truth FILE.csv] [--dump DIR] --json OUT

The first plants applications of 3 to 60 endpoints and three shared services; each network has a process of its own. The
second reads a log of who talked to whom (docs/grouping.md has the formats), runs the same pipeline
over it with the same defaults, and writes ``groups.csv``, ``communities.csv`` and ``roles.csv``.

Keys of ``cases``, times in seconds of one thread on the processor:

endpoints, cross_talk, edges, seed  the network; cross-talk is the part of all bytes that leaves its application
ari               adjusted Rand index of the groups after an hour and a half; ari_first: of the first clustering
first_s           the first clustering, from the graph to communities
tick_s            a poll of a twelfth of the edges into the graph, and the communities brought up to date
follow_s          the groups brought up to date with new communities, which happens once a minute
prune_s           pruning the graph, which happens once a minute
rss_mb            memory of the process, which holds the planted truth as well
churn_per_hour    changes of membership for each member in an hour of stationary traffic
churn_after_move  likewise in the hour after ``moved`` of the members took part in another application
peers             for each other program its ``ari`` and ``first_s`` on the same graph
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import write_figures
from bench.grouping_log import run_log
from bench.grouping_planted import run_case


def main(arguments: list[str] | None = None) -> int:
    """Run it from the command line."""
    options = argparse.ArgumentParser(prog="python -m bench.grouping", description=__doc__.splitlines()[0])
    options.add_argument("--json", type=Path, help="where the figures go (default: the screen)")
    options.add_argument("--endpoints", default="1000,10000,100000", help="sizes of planted networks")
    options.add_argument("--cross-talk", default="0,0.1,0.2,0.3", help="parts of all bytes, 0 to 0.5")
    options.add_argument(
        "--edges-per-endpoint",
        type=float,
        default=0.0,
        help="add faint traffic between random endpoints up to this many directed edges for each (default: none)",
    )
    options.add_argument("--seeds", default="1", help="one network of each kind for each of these")
    options.add_argument("--minutes", type=int, default=60, help="virtual minutes before and after the move")
    options.add_argument("--no-peers", action="store_true", help="leave other programs out")
    options.add_argument("--edges", type=Path, help="a log of who talked to whom, Parquet")
    options.add_argument("--truth", type=Path, help="its known groups, one a line")
    options.add_argument("--half-life", type=float, help="of the traffic graph, seconds")
    options.add_argument("--dump", type=Path, help="folder for the groups found")
    chosen = options.parse_args(arguments)
    try:
        if chosen.edges is not None:
            figures = run_log(chosen.edges, chosen.truth, chosen.dump, chosen.half_life)
        else:
            sizes = _numbers("--endpoints", chosen.endpoints, 20, 10_000_000)
            cross_talk = _numbers("--cross-talk", chosen.cross_talk, 0, 0.5)
            if chosen.minutes < 1:
                raise ValueError(f"--minutes must be >= 1, got {chosen.minutes}")
            seeds = _numbers("--seeds", chosen.seeds, 0, 2**31)
            if not 0 <= chosen.edges_per_endpoint < min(sizes):
                raise ValueError(
                    f"--edges-per-endpoint must be in 0..{min(sizes) - 1:g}, got {chosen.edges_per_endpoint:g}"
                )
            figures = {
                "cases": [
                    _case(
                        int(size),
                        part,
                        minutes=chosen.minutes,
                        with_peers=not chosen.no_peers,
                        seed=int(seed),
                        edges_per_endpoint=chosen.edges_per_endpoint,
                    )
                    for size in sizes
                    for part in cross_talk
                    for seed in seeds
                ]
            }
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    write_figures(figures, chosen.json)
    return 0


def _case(endpoints: int, cross_talk: float, **options: Any) -> dict[str, Any]:
    """In a process of its own, so that memory and caches are this network's alone."""
    work = partial(run_case, endpoints, cross_talk, **options)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own:
        case = own.submit(work).result()
    print(
        f"{endpoints:>7,} endpoints, {case['edges']:,} edges, {cross_talk:.0%} cross-talk: ARI {case['ari']:.3f}, first {case['first_s']:.2f} s, "
        f"tick {case['tick_s']:.3f} s, churn {case['churn_per_hour']:.2%} an hour, {case['rss_mb']:.0f} MB",
        file=sys.stderr,
        flush=True,
    )
    return case


def _numbers(option: str, text: str, least: float, most: float) -> list[float]:
    try:
        numbers = [float(item) for item in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be numbers parted by commas, got {text!r}") from None
    if not all(least <= number <= most for number in numbers):
        raise ValueError(f"{option} must be in {least}..{most}, got {text!r}")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
