"""Roles: endpoints that use and offer the same services, wherever they talk.

Two web servers of two applications never talk to one another and share no peer: no
community holds both, yet they are of one kind. What shows it is the profile of an
endpoint, the application classes (or ports) it sends and receives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: A direction counts when it carries this part of what the endpoint does in the class: the
#: acknowledgements of a download make nobody a sender.
MIN_DIRECTION: Final = 0.1
#: A class counts when it is this part of all that the endpoint does.
MIN_CLASS: Final = 1e-3
#: Profiles nearer than this (one minus the cosine) are as good as equal.
_BLUR: Final = 0.1
#: What a profile beyond ``max_profiles`` must have in common with a known one to join its role.
_JOIN_SIMILARITY: Final = 0.7
#: Rows compared at once with the known profiles; bounds the memory.
_BLOCK: Final = 2048


@dataclass(frozen=True)
class Role:
    """Endpoints with one profile: the classes that more than half of them send, and receive."""

    members: frozenset[str]
    sends: tuple[int, ...]
    receives: tuple[int, ...]


@dataclass(frozen=True)
class Roles:
    """A partition of the endpoints by what they do.

    ``label``, shape (n_endpoints,), numbers the roles from 0 by their first endpoint; who
    resembles nobody, or has no traffic, has a role alone. ``profile``, shape (n_endpoints, 2 *
    n_classes) of 0 and 1, is what was compared: column 2 c is "sends class c", 2 c + 1 "receives" it.
    """

    endpoints: tuple[str, ...]
    label: I64
    profile: sparse.csr_array
    kind: Literal["role"] = "role"

    def groups(self, min_size: int = 2) -> tuple[frozenset[str], ...]:
        """The endpoints of each role of at least ``min_size``, in order of label."""
        return tuple(role.members for role in self.described(min_size))

    def described(self, min_size: int = 2) -> tuple[Role, ...]:
        """The roles of at least ``min_size`` endpoints, in order of label, with what makes them one."""
        order = np.argsort(self.label, kind="stable")
        bounds = np.flatnonzero(np.diff(self.label[order])) + 1
        roles = []
        for members in np.split(order, bounds) if len(order) else ():
            if len(members) >= min_size:
                common = np.flatnonzero(np.asarray(self.profile[members].mean(axis=0)).ravel() > 1 / 2)
                names = frozenset(self.endpoints[i] for i in members.tolist())
                sends = tuple((common[common % 2 == 0] // 2).tolist())
                roles.append(Role(names, sends, tuple((common[common % 2 == 1] // 2).tolist())))
        return tuple(roles)


def find_roles(
    endpoints: Sequence[str],
    src: npt.ArrayLike,
    dst: npt.ArrayLike,
    app: npt.ArrayLike,
    rate_bps: npt.ArrayLike,
    *,
    max_profiles: int = 3000,
) -> Roles:
    """Partition the endpoints by the classes they send and receive.

    A profile says yes or no for each class and direction, so no volume and no unit matters. What few
    endpoints do tells more than what all do (inverse document frequency); profiles are
    compared by cosine and clustered by density, HDBSCAN with clusters of two or more
    (Campello, Moulavi, Sander 2013): no number of roles and no threshold is asked for. A profile
    that several endpoints have exactly is a role even when nothing resembles it.

    Parameters
    ----------
    endpoints :    n names.
    src, dst :     shape (n_edges,), indices into them; self loops are ignored. In a log of
                   connections, where the caller is known, it is ``src``.
    app :          shape (n_edges,), the class or port, >= 0.
    rate_bps :     shape (n_edges,). Edges whose rate is not > 0 and finite are ignored.
    max_profiles : this many different profiles are clustered, those of most endpoints first; one beyond
                   joins the role it resembles most, or stays alone. Time and memory are quadratic in it.

    Raises
    ------
    ValueError : if a shape, an index or ``max_profiles`` breaks a bound above.
    """
    if max_profiles < 2:
        raise ValueError(f"max_profiles must be >= 2, got {max_profiles}")
    n = len(endpoints)
    profile = _profiles(
        n,
        np.asarray(src, np.int64),
        np.asarray(dst, np.int64),
        np.asarray(app, np.int64),
        np.asarray(rate_bps, np.float64),
    )
    telling = _telling(profile)
    which, first, count = _distinct(telling)
    # Those of most endpoints first, then those seen first; an empty profile resembles nothing.
    filled = np.diff(telling.indptr)[first] > 0
    ranked = np.lexsort((first, -count, ~filled))[: int(filled.sum())]
    known, rest = ranked[:max_profiles], ranked[max_profiles:]
    role = np.full(len(first), -1, np.int64)
    role[known] = _by_density(telling[first[known]], count[known])
    role[rest] = _nearest(telling, first[rest], first[known], role[known])
    alone = role < 0
    role[alone] = len(first) + np.flatnonzero(alone)
    label = role[which]
    # Who does nothing that anybody else does is not like others who do so.
    lonely = ~filled[which]
    label[lonely] = 2 * len(first) + np.flatnonzero(lonely)
    return Roles(tuple(endpoints), _by_first_member(label), profile)


def _profiles(n: int, src: I64, dst: I64, app: I64, rate_bps: F64) -> sparse.csr_array:
    """What each endpoint sends and receives, shape (n, 2 * n_classes) of 0 and 1."""
    if not src.shape == dst.shape == app.shape == rate_bps.shape or src.ndim != 1:
        shapes = ", ".join(str(column.shape) for column in (src, dst, app, rate_bps))
        raise ValueError(f"src, dst, app and rate_bps must have one shape, got {shapes}")
    if len(src) and not 0 <= min(src.min(), dst.min()) <= max(src.max(), dst.max()) < n:
        raise ValueError(f"src and dst must index the {n} endpoints given")
    if len(app) and app.min() < 0:
        raise ValueError(f"app must be >= 0, got {app.min()}")
    good = np.isfinite(rate_bps) & (rate_bps > 0) & (src != dst)
    src, dst, app, rate = src[good], dst[good], app[good], rate_bps[good]
    classes = int(app.max(initial=-1)) + 1
    shape = (n, 2 * classes)
    ends, features = np.concatenate([src, dst]), np.concatenate([2 * app, 2 * app + 1])
    done = sparse.coo_array((np.concatenate([rate, rate]), (ends, features)), shape=shape).tocsr().tocoo()
    in_class = sparse.coo_array((done.data, (done.row, done.col // 2)), shape=(n, classes)).tocsr()
    both_ways = np.asarray(in_class[done.row, done.col // 2]).ravel()
    in_all = np.bincount(done.row, done.data, n)[done.row]
    counts = (done.data >= MIN_DIRECTION * both_ways) & (both_ways >= MIN_CLASS * in_all)
    kept = (np.ones(int(counts.sum())), (done.row[counts], done.col[counts]))
    return sparse.csr_array(sparse.coo_array(kept, shape=shape))


def _telling(profile: sparse.csr_array) -> sparse.csr_array:
    """Profiles weighted by how few share a feature, each of length 1; what only one does is no likeness."""
    n_talking = int((np.diff(profile.indptr) > 0).sum())
    shared_by = np.bincount(profile.indices, minlength=profile.shape[1])
    weight = np.where(shared_by > 1, np.log((1 + n_talking) / np.maximum(shared_by, 1)), 0.0)
    weighted = sparse.csr_array((weight[profile.indices], profile.indices, profile.indptr), profile.shape)
    weighted.eliminate_zeros()
    owner = np.repeat(np.arange(profile.shape[0]), np.diff(weighted.indptr))
    length = np.sqrt(np.bincount(owner, weighted.data**2, profile.shape[0]))
    weighted.data = weighted.data / length[owner]
    return weighted


def _distinct(telling: sparse.csr_array) -> tuple[I64, I64, I64]:
    """The profile of each endpoint as a number, and of each profile its first endpoint and how many have it."""
    # A sum of random 64-bit numbers names a set of features as well as the set itself would.
    name_of = np.random.default_rng(0).integers(0, 1 << 63, telling.shape[1], dtype=np.uint64)
    owner = np.repeat(np.arange(telling.shape[0]), np.diff(telling.indptr))
    names = np.zeros(telling.shape[0], np.uint64)
    np.add.at(names, owner, name_of[telling.indices])
    _, first, which, count = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    return which.astype(np.int64), first.astype(np.int64), count.astype(np.int64)


def _by_density(profiles: sparse.csr_array, count: I64) -> I64:
    """The cluster of each profile, -1 for none."""
    # Loaded by the worker that needs it: the planner's loop does without.
    from sklearn.cluster import HDBSCAN

    # Two of a kind are a cluster, so two copies stand for any number of them.
    points = np.concatenate([np.arange(len(count)), np.flatnonzero(count > 1)])
    chosen = profiles[points]
    # An imaginary pair that resembles nobody: HDBSCAN never takes all it is given for one cluster, so
    # without the pair a network with one role would be one with none.
    distance = np.ones((len(points) + 2, len(points) + 2))
    distance[: len(points), : len(points)] -= (chosen @ chosen.T).toarray()
    distance[-2:, -2:] = 0.0
    np.maximum(distance, _BLUR, out=distance)
    np.fill_diagonal(distance, 0.0)
    cluster = HDBSCAN(min_cluster_size=2, metric="precomputed", copy=False).fit_predict(distance)
    return np.asarray(cluster[: len(count)], np.int64)


def _nearest(telling: sparse.csr_array, rows: I64, known: I64, role: I64) -> I64:
    """The role of the known profile most like each row, -1 if none is like it."""
    found = np.full(len(rows), -1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        likeness = (telling[rows[start : start + _BLOCK]] @ telling[known].T).toarray()
        best = likeness.argmax(axis=1)
        like = likeness[np.arange(len(best)), best] >= _JOIN_SIMILARITY
        found[start : start + _BLOCK][like] = role[best[like]]
    return found


def _by_first_member(label: I64) -> I64:
    _, first, place = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]
