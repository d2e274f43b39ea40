"""The pool tree: who shares with whom, and under which promises.

A pool has a guarantee (always available to it), a ceiling (never exceeded) and
a weight (its part of what siblings share). The tree is arrays, parents before
children, so that one sweep forwards visits it top-down and one sweep backwards
bottom-up, at any depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from allocation.compiled import FULL_BPS, MAX_RATE_BPS, Bits, Codes, Indices, Rates, compiled


class InfeasibleTree(ValueError):
    """These pools cannot all be kept their promises: fix the one that is named."""


class Sharing(IntEnum):
    """How a pool shares among its children what they may claim."""

    #: By weight: nobody can gain without one who has less, per unit of weight, losing.
    MAX_MIN = 0
    #: By forecast: all children have the same probability of falling short; weights divide it.
    EXPECTED_LOSS = 1


@compiled
def roll_up(parent: Indices, own: Bits, least: Bits, most: Bits) -> Bits:
    """Per pool its own value plus its children's totals, between ``least`` and ``most``.

    All shape (n_pools,), bit/s. Where the two bounds disagree ``least`` wins.
    """
    total = own.copy()
    for i in range(len(parent) - 1, -1, -1):
        total[i] = max(least[i], min(total[i], most[i]))
        if i > 0:
            total[parent[i]] = min(total[parent[i]] + total[i], FULL_BPS)
    return total


@dataclass(frozen=True, eq=False)
class PoolTree:
    """Every pool of one direction, from the whole network down to its users.

    All arrays have shape (n_pools,) and are copied, then read-only. Leaves may
    be at any depth; a pool without children is a leaf and makes claims.

    Parameters
    ----------
    names :           Unique paths, such as ``global/west/video/alice``.
    parent :          Index of the pool above; -1 for the first pool, the root, only.
                      Smaller than the pool's own index.
    guarantee_bps :   Always available to the pool, >= 0. Rounded down to whole bit/s.
    ceiling_bps :     Never exceeded, >= guarantee; infinity for none. Rounded down.
    weight :          Share among siblings, > 0 (1e-15 to 1e15); only ratios matter.
    priority :        Class among siblings, 0 to 255; all 0 by default. Claims of a higher class are
                      met before those of a lower one; weights share within a class.
    sharing :         A ``Sharing`` each: how the pool shares among its children where there are
                      forecasts (``allocate_by_forecast``); max-min by default.

    Raises
    ------
    InfeasibleTree : if a rule above is broken, or if the guarantees below a pool
        sum to more than its ceiling. Names path, rule and numbers.
    """

    names: tuple[str, ...]
    parent: Indices
    guarantee_bps: Rates
    ceiling_bps: Rates
    weight: Rates
    priority: Codes | None = None
    sharing: Codes | None = None
    #: Effective guarantee, whole bit/s: its own, or its children's together if that is more.
    reserved_bps: Bits = field(init=False, repr=False)
    #: Ceiling in whole bit/s; "none" is the largest rate understood.
    limit_bps: Bits = field(init=False, repr=False)
    #: The children of pool ``p`` are ``children[first_child[p] : first_child[p + 1]]``, classes of
    #: higher priority first.
    children: Indices = field(init=False, repr=False)
    #: shape (n_pools + 1,)
    first_child: Indices = field(init=False, repr=False)
    #: Pools without children, ascending; shape (n_leaves,). The columns of all claims.
    leaves: Indices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        self._keep("parent", np.array(self.parent, np.int32))
        for column in ("guarantee_bps", "ceiling_bps", "weight"):
            self._keep(column, np.array(getattr(self, column), np.float64))
        for column, most in (("priority", 255), ("sharing", max(Sharing))):
            self._keep_codes(column, most)
        self._check_shape()
        self._check_values()
        self._link()
        self._check_promises()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> Codes:
        """``priority`` as it is kept: never None."""
        assert self.priority is not None
        return self.priority

    @property
    def by_curve(self) -> npt.NDArray[np.bool_]:
        """Which pools share by forecast, shape (n_pools,)."""
        assert self.sharing is not None
        return np.equal(self.sharing, Sharing.EXPECTED_LOSS)

    def capacity_below(self, capacity_bps: float) -> Bits:
        """Most that each pool could ever carry: the least ceiling on its way to the root.

        Returns
        -------
        shape (n_pools,), whole bit/s; for sizing what needs a finite capacity, such as a buffer.
        """
        return _least_on_path(self.parent, np.minimum(self.limit_bps, whole_bps(capacity_bps)))

    def _keep(self, column: str, values: npt.NDArray[np.generic]) -> None:
        values.setflags(write=False)
        object.__setattr__(self, column, values)

    def _keep_codes(self, column: str, most: int) -> None:
        given = getattr(self, column)
        if given is None:
            self._keep(column, np.zeros(len(self), np.uint8))
            return
        codes = np.array(given)
        if codes.shape != (len(self),):
            raise ValueError(f"{column} must have shape ({len(self)},), got {codes.shape}")
        self._refuse(
            ~((codes >= 0) & (codes <= most) & (codes % 1 == 0)),
            f"must be a whole number, 0 to {most}",
            column,
        )
        self._keep(column, codes.astype(np.uint8))

    def _refuse(self, bad: npt.NDArray[np.bool_], rule: str, column: str) -> None:
        """Raise for the first bad pool, if there is one."""
        if bad.any():
            i = int(bad.argmax())
            raise InfeasibleTree(f"{self.names[i]}: {column} {rule}, got {getattr(self, column)[i]}")

    def _check_shape(self) -> None:
        n = len(self.names)
        if n == 0:
            raise InfeasibleTree("a pool tree must have at least one pool, got none")
        for column in ("parent", "guarantee_bps", "ceiling_bps", "weight"):
            if getattr(self, column).shape != (n,):
                raise ValueError(f"{column} must have shape ({n},), got {getattr(self, column).shape}")
        if len(set(self.names)) < n:
            seen: set[str] = set()
            twice = next(name for name in self.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise InfeasibleTree(f"{twice}: name must be unique among pools")
        if self.parent[0] != -1:
            raise InfeasibleTree(
                f"{self.names[0]}: parent of the first pool must be -1, got {self.parent[0]}"
            )
        outside = (self.parent < 0) | (self.parent >= n)
        outside[0] = False
        self._refuse(outside, f"must be a pool's index, 0 to {n - 1}", "parent")
        late = self.parent >= np.arange(n)
        if late.any():
            i = int(late.argmax())
            self._refuse_cycle(i)
            p = int(self.parent[i])
            raise InfeasibleTree(
                f"{self.names[i]}: parent must come before its children, got {self.names[p]} at {p} above pool {i}"
            )

    def _refuse_cycle(self, start: int) -> None:
        """Raise if the way up from a pool comes back to a pool it has passed."""
        way = [start]
        while (above := int(self.parent[way[-1]])) >= 0:
            if above in way:
                cycle = [*way[way.index(above) :], above]
                raise InfeasibleTree(
                    f"{self.names[above]}: parents form a cycle, {' -> '.join(self.names[i] for i in cycle)}"
                )
            way.append(above)

    def _check_values(self) -> None:
        # Written as "not good" so that NaN, for which every comparison is false, is refused too.
        guarantee, ceiling, weight = self.guarantee_bps, self.ceiling_bps, self.weight
        good_guarantee = (guarantee >= 0) & (guarantee <= MAX_RATE_BPS)
        self._refuse(~good_guarantee, f"must be 0 to {MAX_RATE_BPS} bit/s", "guarantee_bps")
        self._refuse(~(ceiling >= 0), "must be >= 0", "ceiling_bps")
        self._refuse(~((weight >= 1e-15) & (weight <= 1e15)), "must be > 0 (1e-15 to 1e15)", "weight")
        low = ceiling < guarantee
        if low.any():
            i = int(low.argmax())
            raise InfeasibleTree(
                f"{self.names[i]}: ceiling {ceiling[i]:.0f} bit/s is below its guarantee {guarantee[i]:.0f} bit/s"
            )

    def _link(self) -> None:
        n = len(self)
        counts = np.bincount(self.parent[1:], minlength=n)
        first_child = np.zeros(n + 1, np.int32)
        np.cumsum(counts, out=first_child[1:])
        self._keep("children", self._by_parent())
        self._keep("first_child", first_child)
        self._keep("leaves", np.flatnonzero(counts == 0).astype(np.int32))
        self._keep("limit_bps", np.minimum(self.ceiling_bps, MAX_RATE_BPS).astype(np.int64))

    def _by_parent(self) -> Indices:
        above, priority = self.parent[1:], self.classes[1:]
        if priority.any():
            order = np.lexsort((-priority.astype(np.int16), above))
        else:
            order = np.argsort(above, kind="stable")
        return (order + 1).astype(np.int32)

    def _check_promises(self) -> None:
        n = len(self)
        own = self.guarantee_bps.astype(np.int64)
        # Rounding each guarantee down cannot make a feasible sum infeasible.
        reserved = roll_up(self.parent, np.zeros(n, np.int64), own, np.full(n, FULL_BPS))
        self._keep("reserved_bps", reserved)
        above = np.flatnonzero(reserved > self.limit_bps)
        if len(above):
            i = int(above[-1])  # no other of them is below it: the cause, not a consequence
            raise InfeasibleTree(
                f"{self.names[i]}: guarantees of its children sum to {reserved[i]} bit/s, "
                f"above its ceiling {self.limit_bps[i]} bit/s"
            )


def whole_bps(capacity_bps: float) -> int:
    """The capacity in whole bit/s, rounded down; infinity is the largest rate understood.

    Raises
    ------
    ValueError : if it is negative or NaN.
    """
    if not capacity_bps >= 0:
        raise ValueError(f"capacity_bps must be >= 0, got {capacity_bps}")
    return int(min(capacity_bps, MAX_RATE_BPS))


@compiled
def _least_on_path(parent: Indices, limit: Bits) -> Bits:
    least = limit.copy()
    for i in range(1, len(parent)):
        least[i] = min(least[i], least[parent[i]])
    return least
