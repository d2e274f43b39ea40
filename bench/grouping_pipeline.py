"""What the planner does with traffic, step by step, so that each can be timed and scored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

from planner.config import Grouping
from topology.communities import Communities, follow_communities
from topology.groups import GroupRules, GroupTracker
from topology.traffic import TrafficGraph, TrafficView

I64 = npt.NDArray[np.int64]
T = TypeVar("T")

DEFAULTS: Final = Grouping()


@dataclass
class Pipeline:
    """The traffic graph, the last communities and the groups, with the configuration's defaults."""

    half_life_s: float = DEFAULTS.half_life_s
    floor_bps: float = 1.0
    graph: TrafficGraph = field(init=False)
    tracker: GroupTracker = field(init=False)
    found: Communities | None = None

    def __post_init__(self) -> None:
        self.graph = TrafficGraph(self.half_life_s, floor_bps=self.floor_bps)
        self.tracker = GroupTracker(GroupRules(switch_after_s=DEFAULTS.hold_s))

    def cluster(self, now: float) -> TrafficView:
        """What happens each ``grouping.every_s``: prune, find the communities, let the groups follow."""
        self.graph.prune(now)
        view = self.graph.view(now)
        if len(view.rate_bps):
            self.found = follow_communities(self.found, view.endpoints, view.src, view.dst, view.rate_bps)
            self.tracker.update(self.found.groups(), now)
        return view

    def memberships(self) -> dict[str, str]:
        """The id of each endpoint's group."""
        return {member: group.id for group in self.tracker.groups() for member in group.members}

    def group_of(self, endpoints: Sequence[str]) -> I64:
        """The group of each endpoint as a number, shape (n,); -1 for none."""
        return labels_of((group.members for group in self.tracker.groups()), endpoints)


def labels_of(groups: Iterable[Iterable[str]], endpoints: Sequence[str]) -> I64:
    """The place in ``groups`` of each endpoint's group, shape (n,); -1 for an endpoint in none."""
    label_of = {member: label for label, group in enumerate(groups) for member in group}
    return np.array([label_of.get(name, -1) for name in endpoints], np.int64)


def agreement(truth: I64, label: I64) -> float:
    """The adjusted Rand index over the endpoints whose truth is >= 0; who is in no group is alone in one."""
    alone = np.where(label < 0, label.max(initial=-1) + 1 + np.arange(len(label)), label)
    counted = truth >= 0
    return float(adjusted_rand_score(truth[counted], alone[counted]))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives and its seconds on the processor, of this thread alone: nothing here uses a second."""
    began = time.thread_time()
    result = work()
    return result, time.thread_time() - began


def rss_mb() -> float:
    """The memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
