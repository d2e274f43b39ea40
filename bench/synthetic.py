"""A network of any number of users that exists only as bytes: what ``bench.loop`` feeds the planner.

Users form communities of twenty that talk among themselves; everybody asks one name
server. Demand is a random walk around each user's own level, and the regions cannot carry all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from planner.config import Config, parse
from planner.plan import Plan
from planner.replay import MadeUpNetwork
from planner.report import NetworkReport
from telemetry.ring import Window
from telemetry.samples import EdgeSamples, SampleBatch, encode_batch

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

#: A tick is a step, so that each makes a forecast of its own.
TICK_S: Final = 60.0
USERS_PER_SWITCH: Final = 500
COMMUNITY: Final = 20
_PEERS: Final = 3
_MEAN_BPS: Final = 2e6
#: Of the mean demand: above it, as users rarely peak together, and yet some are short.
_CAPACITY_SHARE: Final = 1.05
#: Steps of the made-up past that a planner finds in its store.
PAST_STEPS: Final = 240
_MEMORY: Final = 0.9
_SPREAD: Final = 0.5


def make_config(n_users: int) -> Config:
    """A configuration of so many users."""
    n_switches = max(2, math.ceil(n_users / USERS_PER_SWITCH))
    n_regions = min(10, max(2, n_switches // 4))
    total_mbps = n_users * _MEAN_BPS * _CAPACITY_SHARE / 1e6
    regions: dict[str, dict[str, Any]] = {
        f"r{number}": {"dpids": [], "capacity_mbps": total_mbps / n_regions} for number in range(n_regions)
    }
    for switch in range(n_switches):
        regions[f"r{switch * n_regions // n_switches}"]["dpids"].append(switch + 1)
    users = {
        f"u{number}": {"macs": [_mac(number)], "guarantee_mbps": 0.1, "ceiling_mbps": 100}
        for number in range(n_users)
    }
    return parse(
        {
            "capacity_mbps": total_mbps,
            "regions": regions,
            "users": users,
            "polling": {"interval_s": TICK_S},
            "allocation": {"tick_s": TICK_S},
            # As often, in ticks, as with the defaults of five seconds a tick and a minute a clustering.
            "grouping": {"every_s": 12 * TICK_S, "half_life_s": 60 * TICK_S, "hold_s": 2 * TICK_S},
            "forecasting": {"train_every_s": 36 * TICK_S},
        }
    )


def _mac(number: int) -> str:
    return "02:00" + "".join(f":{number >> shift & 255:02x}" for shift in (24, 16, 8, 0))


@dataclass
class Synthetic:
    """The network, its demand and its past. One seed, one course of events."""

    config: Config
    network: MadeUpNetwork
    edges: dict[int, tuple[EdgeSamples, tuple[str, ...]]]
    rng: np.random.Generator
    #: shape (2, n_users): how far each user's demand is from its level, as a logarithm.
    walk: F64
    level_bps: F64

    @classmethod
    def of(cls, n_users: int) -> Synthetic:
        """A network of so many users."""
        config = make_config(n_users)
        rng = np.random.default_rng(n_users)
        network = MadeUpNetwork.of(config, tuple(config.users))
        level = _MEAN_BPS * rng.lognormal(-0.5, 1.0, (2, n_users))
        return cls(config, network, _edges(network), rng, np.zeros((2, n_users)), level)

    def report(self, now: float) -> NetworkReport:
        """What a speaker says of it."""
        return self.network.report(now)

    def poll(self, now: float, plan: Plan) -> list[bytes]:
        """The bodies of one poll of every switch, as they come over the seam."""
        noise = self.rng.standard_normal(self.walk.shape)
        self.walk = _MEMORY * self.walk + math.sqrt(1 - _MEMORY**2) * _SPREAD * noise
        demand = self.level_bps * np.exp(self.walk - _SPREAD**2 / 2)
        found = {batch.dpid: batch for batch in self.network.poll(now, TICK_S, plan, demand)}
        bodies = []
        for dpid, (edges, endpoints) in self.edges.items():
            batch = found.get(dpid, SampleBatch(dpid, now))
            bodies.append(encode_batch(replace(batch, edges=edges, endpoints=endpoints)))
        return bodies

    def load(self, since: float, until: float, step_s: int, names: Sequence[str], direction: int) -> Window:
        """The past of these series, in place of a store's."""
        end = math.floor(until / step_s)
        steps = min(PAST_STEPS, max(0, end - math.ceil(since / step_s)))
        level, spread = self._levels(names, direction)
        demand = np.empty((steps, len(names)), np.float32)
        walk = np.zeros(len(names), np.float32)
        kick = np.float32(math.sqrt(1 - _MEMORY**2))
        for row in range(steps):
            walk = np.float32(_MEMORY) * walk + kick * self.rng.standard_normal(len(names), np.float32)
            demand[row] = level * np.exp(spread * walk)
        return Window(step_s, end * step_s, demand, np.zeros(demand.shape, np.bool_))

    def _levels(self, names: Sequence[str], direction: int) -> tuple[F32, F32]:
        """Mean rate and spread of series; those of many users are larger and steadier."""
        n_users = self.level_bps.shape[1]
        below = {"global": n_users, "region": n_users / len(self.config.regions), "group": COMMUNITY}
        level, spread = np.empty(len(names), np.float32), np.empty(len(names), np.float32)
        for place, name in enumerate(names):
            kind, _, rest = name.partition("/")
            own = kind == "user"
            level[place] = self.level_bps[direction, int(rest[1:])] if own else _MEAN_BPS * below[kind]
            spread[place] = _SPREAD if own else _SPREAD / math.sqrt(below[kind])
        return level, spread


def _edges(network: MadeUpNetwork) -> dict[int, tuple[EdgeSamples, tuple[str, ...]]]:
    """Who sends to whom, by the sender's switch, with the endpoints it speaks of."""
    hosts = network.hosts
    at: dict[int, list[int]] = {dpid: [] for dpid in network.dpids}
    for number, host in enumerate(hosts):
        at[host.dpid].append(number)
    result = {}
    for dpid in network.dpids:
        mine = at[dpid]
        pairs = []
        for number in mine:
            first = number // COMMUNITY * COMMUNITY
            size = min(COMMUNITY, len(hosts) - first)
            peers = {first + (number - first + 1 + 3 * step) % size for step in range(_PEERS)} - {number}
            # The name server is nobody's: it is a row of the endpoints, behind the last user.
            pairs += [(number, peer, 1.0) for peer in peers] + [(number, len(hosts), 0.02)]
        used = sorted({end for pair in pairs for end in pair[:2]})
        place = {number: row for row, number in enumerate(used)}
        endpoints = tuple("02:ff:00:00:00:00" if n == len(hosts) else hosts[n].mac for n in used)
        edges = EdgeSamples(
            np.array([place[src] for src, _, _ in pairs], np.uint32),
            np.array([place[dst] for _, dst, _ in pairs], np.uint32),
            np.array([src % 4 for src, _, _ in pairs], np.uint32),
            np.full(len(pairs), TICK_S),
            np.array([_MEAN_BPS / _PEERS * share for _, _, share in pairs]),
        )
        result[dpid] = (edges, endpoints)
    return result
