"""Links that come and go are held down until they have been steady for a while.

As BGP damps routes (RFC 2439): each going down adds one to a penalty that halves every
half-life; above ``hold_above`` the thing is held, and counts as down even while it is
up, until the penalty has fallen below ``release_below``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from networkx.utils import UnionFind

from topology.network import Link, Network

K = TypeVar("K", bound=Hashable)

#: A smaller penalty is as good as none.
_FORGOTTEN: Final = 0.01


@dataclass(frozen=True)
class DampingRules:
    """How many flaps in how short a time are too many."""

    half_life_s: float = 15.0
    #: Two: a third flap within a half-life holds, and so does any flapping more often than once a half-life.
    hold_above: float = 2.0
    release_below: float = 1.0
    #: The penalty rises no further: a hold after the last flap lasts half_life_s * log2(most / release_below).
    most: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.half_life_s < math.inf:
            raise ValueError(f"half_life_s must be > 0 and finite, got {self.half_life_s}")
        if not 0 < self.release_below <= self.hold_above < self.most:
            raise ValueError(f"damping must have 0 < release_below <= hold_above < most, got {self}")


class FlapDamping(Generic[K]):
    """Who flaps. Tell it at every change, and now and then, what is up."""

    def __init__(self, rules: DampingRules | None = None) -> None:
        self._rules = rules or DampingRules()
        self._up: frozenset[K] = frozenset()
        self._penalty: dict[K, float] = {}
        self._at = -math.inf
        #: What is held down now, whether up or not.
        self.held: frozenset[K] = frozenset()

    def observe(self, up: Collection[K], now: float) -> bool:
        """Note what is up. True if ``held`` is not what it was."""
        seen = frozenset(up)
        # A clock that was set back lets nothing decay, and nothing grow.
        fade = 2.0 ** -(max(0.0, now - self._at) / self._rules.half_life_s) if self._penalty else 1.0
        self._at = now
        penalty = {key: value * fade for key, value in self._penalty.items() if value * fade > _FORGOTTEN}
        for key in self._up - seen:
            penalty[key] = min(penalty.get(key, 0.0) + 1.0, self._rules.most)
        self._up, self._penalty, before = seen, penalty, self.held
        self.held = frozenset(
            key
            for key, value in penalty.items()
            if value > (self._rules.release_below if key in before else self._rules.hold_above)
        )
        return self.held != before


def cable(link: Link) -> Link:
    """The one of a link and its reverse that names both."""
    return min(link, link.reverse)


def steady_cables(links: Collection[Link]) -> frozenset[Link]:
    """Cables that are up in both directions, each by the name that ``cable`` gives."""
    known = frozenset(links)
    return frozenset(cable(link) for link in known if link.reverse in known)


def without_held(network: Network, held: Collection[Link]) -> Network:
    """The network without the cables that are held, save those that alone join two parts of it.

    A path over a link that flaps is better than none. Among held cables that would
    do equally, the lowest is used.
    """
    steady = {link for link in network.usable_links if cable(link) not in held}
    if len(steady) == len(network.usable_links):
        return network
    parts = UnionFind(network.switches)
    for link in steady:
        parts.union(link.src_dpid, link.dst_dpid)
    left_out = set()
    for link in sorted(network.usable_links - steady):
        if cable(link) == link:
            if parts[link.src_dpid] == parts[link.dst_dpid]:
                left_out |= {link, link.reverse}
            else:
                parts.union(link.src_dpid, link.dst_dpid)
    return replace(network, links=network.links - left_out)
