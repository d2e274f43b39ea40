"""Which links a user's traffic crosses, and how much of it.

A user's meters sit at its edge switch; what they let through loads links further
in. Who it talks to says which: shares of its traffic by link, from the traffic graph and the paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topology.network import Link, Network
from topology.paths import next_hops
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Routes:
    """All paths of one network, as arrays. Build it with ``routes_of``, once a network."""

    #: The usable links, each direction by itself, ascending.
    links: tuple[Link, ...]
    #: Row of ``towards`` by dpid.
    row_of: Mapping[int, int]
    #: shape (n_switches, n_switches): the link that a switch sends on to reach another, -1 where there is no way.
    towards: npt.NDArray[np.int32]
    #: shape (n_links,): the row of the switch at the link's end.
    end: I64

    def crossings(self, src: I64, dst: I64) -> tuple[I64, I64]:
        """The links on the paths between pairs of switch rows: (row of the pair, link), each of shape (n,).

        A pair of one switch with itself, or without a path, crosses nothing.
        """
        pair, at, to = np.arange(len(src)), src, dst
        pairs, links = [], []
        while len(pair):
            link = self.towards[at, to].astype(np.int64)
            on = link >= 0
            pair, to, link = pair[on], to[on], link[on]
            at = self.end[link]
            pairs.append(pair)
            links.append(link)
        return np.concatenate([*pairs, np.empty(0, np.int64)]), np.concatenate(
            [*links, np.empty(0, np.int64)]
        )


def routes_of(network: Network) -> Routes:
    """The paths of a network; 0.4 s for 216 switches."""
    links = tuple(sorted(network.usable_links))
    dpids = sorted(network.switches)
    row_of = {dpid: row for row, dpid in enumerate(dpids)}
    number = {link: at for at, link in enumerate(links)}
    towards = np.full((len(dpids), len(dpids)), -1, np.int32)
    for (dpid, dst), port_no in next_hops(network).items():
        towards[row_of[dpid], row_of[dst]] = number[network.link_from[dpid, port_no]]
    end = np.array([row_of[link.dst_dpid] for link in links], np.int64)
    return Routes(links, row_of, towards, end)


@dataclass(frozen=True, eq=False)
class Flows:
    """Traffic of the parts in one direction, upload or download: a row for each part and switch it talks to."""

    #: shape (n_flows,): row of ``PartFlows.parts``, ascending.
    part: I64
    #: shape (n_flows,): what flowed that way, > 0.
    rate_bps: F64
    #: shape (n_flows + 1,): flow ``f`` crosses ``link[first[f] : first[f + 1]]``, none within a switch.
    first: I64
    #: shape (n_crossings,): rows of ``PartFlows.links``.
    link: I64


@dataclass(frozen=True, eq=False)
class PartFlows:
    """Which links each endpoint's traffic crosses."""

    links: tuple[Link, ...]
    #: Endpoint and the edge switch it is at, in the order of ``places`` as given.
    parts: tuple[tuple[str, int], ...]
    up: Flows
    down: Flows


def part_flows(routes: Routes, view: TrafficView, places: Mapping[str, Sequence[int]]) -> PartFlows:
    """Each endpoint's upload and download by the switches they lead to, with the links on the way.

    An upload crosses the links from the endpoint's own edge switch to those of whom it sends to, a download
    those from the senders' to its own. So a packet is in one upload and one download, and on the same
    links in both: hold either sum below a link's capacity, not the two together.

    Traffic within a switch counts and crosses nothing. Traffic with an endpoint whose place is not
    known, or to which there is no path, is left out. An endpoint at several switches has a part at each:
    its own parts are taken to talk alike, its peers to share what is between them evenly.

    Parameters
    ----------
    places :  The dpids at which each endpoint is, each once; switches the network lacks are left out.
    """
    parts = tuple(
        (endpoint, dpid) for endpoint, dpids in places.items() for dpid in dpids if dpid in routes.row_of
    )
    at = np.array([routes.row_of[dpid] for _, dpid in parts], np.int64)
    # Parts of one endpoint lie side by side.
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    for part, (endpoint, _) in enumerate(parts):
        first.setdefault(endpoint, part)
        count[endpoint] = count.get(endpoint, 0) + 1
    starts = np.array([first.get(endpoint, 0) for endpoint in view.endpoints], np.int64)
    counts = np.array([count.get(endpoint, 0) for endpoint in view.endpoints], np.int64)

    def flows(own: I64, peer: I64, upload: bool) -> Flows:
        rate = view.rate_bps / np.maximum(counts[peer], 1)
        edge, peer_part = _expanded(starts[peer], counts[peer])
        own, rate = own[edge], rate[edge]
        row, part = _expanded(starts[own], counts[own])
        # Many edges lead to one switch: the way there is walked once for each part.
        key, place = np.unique(part * len(routes.row_of) + at[peer_part[row]], return_inverse=True)
        total = _sums(place, rate[row], len(key))
        part, there = np.divmod(key, max(len(routes.row_of), 1))
        src, dst = (at[part], there) if upload else (there, at[part])
        reached = ((src == dst) | (routes.towards[src, dst] >= 0)) & (total > 0)
        flow, link = routes.crossings(src[reached], dst[reached])
        order = np.argsort(flow, kind="stable")
        ends = np.cumsum(np.bincount(flow, minlength=int(reached.sum())))
        return Flows(part[reached], total[reached], np.concatenate([[0], ends]), link[order])

    return PartFlows(routes.links, parts, flows(view.src, view.dst, True), flows(view.dst, view.src, False))


def capacity_of_links(network: Network, links: Sequence[Link], configured_bps: Mapping[Link, float]) -> F64:
    """What each link carries, bit/s, shape (n_links,); NaN where nobody says.

    A configured capacity holds for its direction; else the slower of the speeds that the two ports report,
    0 being a port that does not say.
    """
    found = np.full(len(links), np.nan)
    for row, link in enumerate(links):
        ends = ((link.src_dpid, link.src_port), (link.dst_dpid, link.dst_port))
        speeds = [port.speed_bps for end in ends if (port := network.ports.get(end)) and port.speed_bps > 0]
        found[row] = configured_bps.get(link, min(speeds, default=np.nan))
    return found


def _expanded(starts: I64, counts: I64) -> tuple[I64, I64]:
    """Rows repeated ``counts`` times, and the numbers from ``starts`` on that belong to each."""
    row = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, starts[row] + within


def _sums(place: I64, values: F64, size: int) -> F64:
    """The values summed by place, shape (size,)."""
    return np.bincount(place, values, size).astype(np.float64)
