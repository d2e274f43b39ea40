"""Traffic with known applications in it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Planted:
    """``truth``, shape (n,), is the application of each endpoint; -1 for a shared service."""

    endpoints: tuple[str, ...]
    src: npt.NDArray[np.int64]
    dst: npt.NDArray[np.int64]
    rate_bps: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64]


def planted_applications(
    sizes: list[int], seed: int, *, cross_talk: float = 0.0, services: int = 0, background_bps: float = 0.0
) -> Planted:
    """Applications of these sizes: meshes, clients of a few servers, and tiers.

    Applications differ in rate by orders of magnitude and flows within one by a factor e. With
    cross talk each endpoint also sends that part of its traffic to one to four others
    anywhere. A service gets a little from nine in ten endpoints; background is between all.
    """
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    flows: list[tuple[int, int, float]] = []
    for app in range(len(sizes)):
        members = np.flatnonzero(truth == app).tolist()
        base_bps = max(1e5, np.exp(rng.normal(14, 2)))
        flows += [(a, b, base_bps * np.exp(rng.normal(0, 1))) for a, b in _pairs(members, rng)]
    src, dst, rate_bps = (np.array(column) for column in zip(*flows, strict=True))
    if cross_talk:
        own_bps = np.bincount(src, rate_bps, n) + np.bincount(dst, rate_bps, n)
        count = rng.integers(1, 5, n)
        source = np.repeat(np.arange(n), count)
        cross_bps = (own_bps * cross_talk / (1 - cross_talk) / 2 / count)[source]
        src, dst = np.concatenate([src, source]), np.concatenate([dst, rng.integers(0, n, len(source))])
        rate_bps = np.concatenate([rate_bps, cross_bps])
    for service in range(n, n + services):
        clients = np.flatnonzero(rng.random(n) < 0.9) if n > 20 else np.arange(n)
        src, dst = np.concatenate([src, clients]), np.concatenate([dst, np.full(len(clients), service)])
        rate_bps = np.concatenate([rate_bps, np.exp(rng.normal(8, 1, len(clients)))])
    if background_bps:
        a, b = np.triu_indices(n, 1)
        src, dst = np.concatenate([src, a]), np.concatenate([dst, b])
        rate_bps = np.concatenate([rate_bps, np.full(len(a), background_bps)])
    names = tuple(f"02:00:00:{i >> 16:02x}:{i >> 8 & 255:02x}:{i & 255:02x}" for i in range(n + services))
    return Planted(names, src, dst, rate_bps, np.concatenate([truth, np.full(services, -1)]))


def with_chatter(planted: Planted, edges: int, seed: int) -> Planted:
    """The same, with faint traffic between random endpoints until so many (source, destination) pairs have an edge.

    A few kbit/s each, as much as a shared service gets; nothing is added where there are as many already.

    Raises
    ------
    ValueError : if there are not so many pairs.
    """
    rng, n = np.random.default_rng(seed), len(planted.endpoints)
    if edges > n * (n - 1):
        raise ValueError(f"edges must be <= {n * (n - 1)} between {n} endpoints, got {edges}")
    pairs = np.unique(planted.src * n + planted.dst)
    pairs = pairs[pairs // n != pairs % n]
    had = pairs
    while len(pairs) < edges:
        new = rng.integers(0, n * n, edges - len(pairs))
        pairs = np.union1d(pairs, new[new // n != new % n])
    new = np.setdiff1d(pairs, had, assume_unique=True)
    return Planted(
        planted.endpoints,
        np.concatenate([planted.src, new // n]),
        np.concatenate([planted.dst, new % n]),
        np.concatenate([planted.rate_bps, np.exp(rng.normal(8, 1, len(new)))]),
        planted.truth,
    )


def mixed_sizes(n: int, seed: int, largest: int = 60) -> list[int]:
    """Sizes from 3 to ``largest``, as many of each order of magnitude, n endpoints or a few more."""
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    while sum(sizes) < n:
        sizes.append(int(np.exp(rng.uniform(np.log(3), np.log(largest + 1)))))
    return sizes


def _pairs(members: list[int], rng: np.random.Generator) -> set[tuple[int, int]]:
    k = len(members)
    line = {(members[i], members[i + 1]) for i in range(k - 1)}
    kind = "mesh" if k <= 4 else rng.choice(["mesh", "servers", "tiers"])
    if kind == "servers":
        servers = max(1, min(3, k // 6))
        return {(client, server) for server in members[:servers] for client in members[servers:]}
    if kind == "tiers":
        cuts = [0, max(1, k // 3), max(2, 2 * k // 3), k]
        tiers = [members[a:b] for a, b in itertools.pairwise(cuts)]
        return line | {
            (a, b)
            for front, back in itertools.pairwise(tiers)
            for a in front
            for b in back
            if rng.random() < 4 / len(front)
        }
    return line | {(a, b) for a in members for b in members if a < b and rng.random() < 5 / (k - 1)}
