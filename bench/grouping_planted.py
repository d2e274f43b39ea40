"""Planted applications through the product's pipeline: an hour of stationary traffic, and one after a move.

Each virtual minute brings a poll and a clustering: every flow's rate is drawn anew (log-normal, sigma 0.5) and one
flow in ten is silent. Then one endpoint in twenty takes the place of another, mostly in another application.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.grouping_peers import compare
from bench.grouping_pipeline import DEFAULTS, Pipeline, agreement, labels_of, rss_mb, timed
from bench.planted import Planted, mixed_sizes, planted_applications, with_chatter
from topology.communities import Communities, find_communities, labels_to_start_from
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SERVICES: Final = 3
#: Three half-lives: the graph has forgotten how it began.
SETTLE_MINUTES: Final = 30
_MOVED: Final = 0.05
_SILENT: Final = 0.1
_SIGMA: Final = 0.5
#: A tick of five seconds sees this part of the edges when each is polled once a minute.
_TICK_PART: Final = 1 / 12
_TICKS: Final = 9


@dataclass(frozen=True)
class Batch:
    """What a poll measured; ``src`` and ``dst`` are the graph's ids."""

    src: I64
    dst: I64
    rate_bps: F64
    interval_s: float


class Network:
    """Planted traffic whose places may be taken by other endpoints."""

    def __init__(self, planted: Planted, seed: int) -> None:
        self.planted = planted
        # Which endpoint is at each place.
        self._who: I64 = np.arange(len(planted.endpoints), dtype=np.int64)
        self._rng = np.random.default_rng(seed)

    @property
    def truth(self) -> I64:
        """The application of each endpoint, shape (n,); -1 for a shared service."""
        truth: I64 = np.empty_like(self.planted.truth)
        truth[self._who] = self.planted.truth
        return truth

    def poll(self, pipeline: Pipeline, interval_s: float, part: float = 1.0) -> Batch:
        """New rates of all flows, or of a random part of them."""
        rng, planted = self._rng, self.planted
        seen = np.flatnonzero(rng.random(len(planted.src)) < part)
        rate_bps = planted.rate_bps[seen] * rng.lognormal(0, _SIGMA, len(seen))
        rate_bps[rng.random(len(seen)) < _SILENT] = 0.0
        ids = pipeline.graph.intern(planted.endpoints)[self._who]
        return Batch(ids[planted.src[seen]], ids[planted.dst[seen]], rate_bps, interval_s)

    def move(self, part: float) -> I64:
        """Let so many members of applications take one another's places; who they are, shape (n_moved,)."""
        members = np.flatnonzero(self.planted.truth >= 0)
        places = self._rng.choice(members, max(2, round(part * len(members))), replace=False)
        moved: I64 = self._who[places]
        # All go one place on, so that nobody stays.
        self._who[places] = np.roll(moved, 1)
        return moved


def run_case(
    endpoints: int,
    cross_talk: float,
    *,
    minutes: int = 60,
    with_peers: bool = True,
    seed: int = 1,
    edges_per_endpoint: float = 0.0,
) -> dict[str, Any]:
    """All figures of one network. Times are of a process that has compiled what it needs.

    Faint traffic between random endpoints is added up to ``edges_per_endpoint``.
    """
    # The first call compiles; a planner does so once in its life.
    for sizes in ([3, 4, 5], [5] * 25):
        _run(Network(planted_applications(sizes, seed, services=1), seed), minutes=1)
    sizes = mixed_sizes(endpoints, seed)
    planted = planted_applications(sizes, seed, cross_talk=cross_talk, services=SERVICES)
    planted = with_chatter(planted, round(edges_per_endpoint * len(planted.endpoints)), seed)
    network = Network(planted, seed)
    figures, view = _run(network, minutes)
    if with_peers:
        figures["peers"] = compare(view, _truth_of(network, view))
    return {"endpoints": endpoints, "cross_talk": cross_talk, "seed": seed, **figures}


def _run(network: Network, minutes: int) -> tuple[dict[str, Any], TrafficView]:
    pipeline, names, every_s = Pipeline(), network.planted.endpoints, DEFAULTS.every_s
    observe(pipeline, network.poll(pipeline, every_s), 0.0)
    first, first_s = timed(partial(_recluster, pipeline, 0.0, None))
    _hours(network, pipeline, 0.0, SETTLE_MINUTES)
    now = SETTLE_MINUTES * every_s
    churn, view = _hours(network, pipeline, now, minutes)
    now += minutes * every_s
    members = int((network.planted.truth >= 0).sum())
    figures: dict[str, Any] = {
        "edges": len(view.rate_bps),
        "ari": _rounded(agreement(network.truth, pipeline.group_of(names))),
        "ari_first": _rounded(agreement(network.truth, labels_of(first.groups(), names))),
        "services_found": pipeline.found is not None and pipeline.found.services() == set(names[-SERVICES:]),
        "first_s": _rounded(first_s),
        **_ticks(network, pipeline, now),
        "rss_mb": rss_mb(),
        "churn_per_hour": _rounded(churn / members * 60 / minutes),
    }
    now += every_s
    truth_before, moved = network.truth, network.move(_MOVED)
    churn, _ = _hours(network, pipeline, now, minutes)
    elsewhere = moved[network.truth[moved] != truth_before[moved]]
    figures["churn_after_move"] = _rounded(churn / members)
    figures["moved"] = _rounded(len(elsewhere) / members)
    figures["ari_after_move"] = _rounded(agreement(network.truth, pipeline.group_of(names)))
    return figures, view


def observe(pipeline: Pipeline, batch: Batch, now: float) -> None:
    """Hand a poll to the traffic graph."""
    pipeline.graph.observe(now, batch.src, batch.dst, 0, batch.rate_bps, batch.interval_s)


def changed(before: dict[str, str], after: dict[str, str]) -> int:
    """How many endpoints are in another group than before, or in one where they were in none, or in none."""
    return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())


def _hours(network: Network, pipeline: Pipeline, start: float, minutes: int) -> tuple[int, TrafficView]:
    """Let the minutes after ``start`` pass; how many changes of membership they brought, and the last graph."""
    churn, before = 0, pipeline.memberships()
    for minute in range(1, minutes + 1):
        now = start + minute * DEFAULTS.every_s
        observe(pipeline, network.poll(pipeline, DEFAULTS.every_s), now)
        view = pipeline.cluster(now)
        after = pipeline.memberships()
        churn += changed(before, after)
        before = after
    return churn, view


def _recluster(pipeline: Pipeline, now: float, last: Communities | None) -> Communities:
    view = pipeline.graph.view(now)
    edges = view.src, view.dst, view.rate_bps
    if last is None:
        return find_communities(view.endpoints, *edges)
    start = labels_to_start_from(last, view.endpoints)
    return find_communities(view.endpoints, *edges, resolution=last.resolution, start=start)


def _ticks(network: Network, pipeline: Pipeline, now: float) -> dict[str, float]:
    """A poll's edges into the graph and the communities brought up to date, medians; and once the groups."""
    last, then = _recluster(pipeline, now, pipeline.found), now
    observe_s, recluster_s = [], []
    for _ in range(_TICKS):
        then += DEFAULTS.every_s * _TICK_PART
        batch = network.poll(pipeline, DEFAULTS.every_s * _TICK_PART, _TICK_PART)
        _, took = timed(partial(observe, pipeline, batch, then))
        observe_s.append(took)
        last, took = timed(partial(_recluster, pipeline, then, last))
        recluster_s.append(took)
    _, follow_s = timed(partial(pipeline.tracker.update, last.groups(), then))
    _, prune_s = timed(partial(pipeline.graph.prune, then))
    return {
        "tick_s": _rounded(float(np.median(np.add(observe_s, recluster_s)))),
        "tick_observe_s": _rounded(float(np.median(observe_s))),
        "follow_s": _rounded(follow_s),
        "prune_s": _rounded(prune_s),
    }


def _truth_of(network: Network, view: TrafficView) -> I64:
    truth_of = dict(zip(network.planted.endpoints, network.planted.truth.tolist(), strict=True))
    return np.array([truth_of[name] for name in view.endpoints], np.int64)


def _rounded(value: float) -> float:
    return round(value, 4)
