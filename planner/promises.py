"""What every pool may have by its policies, cut to what fits where its users are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from allocation.tree import PoolTree, Sharing
from planner.config import Config
from planner.policies import NORMAL_PRIORITY, PoolPolicy
from planner.policy import Policies
from planner.pool_rows import BOTTOM_UP, Rows
from planner.snapshot import Level
from telemetry.samples import DIRECTIONS

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BY_FORECAST = "forecast"


@dataclass(frozen=True)
class Promises:
    """What every pool may have, by row; shapes as in ``Structure``."""

    guarantee_bps: F64
    ceiling_bps: F64
    weight: F64
    priority: npt.NDArray[np.uint8]
    trees: tuple[PoolTree, PoolTree]
    problems: tuple[str, ...]


def promises_of(rows: Rows, config: Config, policies: Policies) -> Promises:
    """The pools' policies as they are now, cut to what fits."""
    found = _policies_of(rows, config, policies)
    problems: list[str] = []
    ceiling = np.array([policy.ceiling_bps for policy in found]).T.reshape(2, -1)
    asked = np.array([policy.guarantee_bps for policy in found]).T.reshape(2, -1).copy()
    guarantee = _feasible(rows, asked, ceiling, problems)
    weight = np.array([policy.weight for policy in found])
    priority: list[int] = []
    for policy, above in zip(found, rows.parent, strict=True):
        inherited = priority[above] if above >= 0 else NORMAL_PRIORITY
        priority.append(inherited if policy.priority is None else policy.priority)
    path, parent = tuple(rows.path), np.array(rows.parent, np.int32)
    classes = np.array(priority, np.uint8)
    sharing = _sharing(rows, config)
    up, down = (PoolTree(path, parent, guarantee[d], ceiling[d], weight, sharing=sharing) for d in range(2))
    return Promises(guarantee, ceiling, weight, classes, (up, down), tuple(problems))


def curves_of(rows: Rows, config: Config) -> dict[str, I64]:
    """Rows by value curve; what says nothing has its parent's. Those that share by forecast are left out."""
    kinds: list[str] = []
    for level, above, path in zip(rows.level, rows.parent, rows.path, strict=True):
        name = path.rpartition("/")[2]
        own = None
        if level == Level.REGION:
            own = config.regions[name].curve
        elif level == Level.GROUP:
            own = config.groups.get(name, config.group_defaults).curve
        elif level == Level.USER:
            own = config.users[name].curve
        elif level == Level.APPLICATION:
            named_class = config.users[path.split("/")[Level.USER]].applications.get(name)
            own = None if named_class is None else named_class.curve
        kinds.append(own or (kinds[above] if above >= 0 else BY_FORECAST))
    named = np.array(kinds)
    return {kind: np.flatnonzero(named == kind) for kind in sorted(set(kinds) - {BY_FORECAST})}


def _sharing(rows: Rows, config: Config) -> npt.NDArray[np.uint8]:
    """How each pool shares among those below it; what says nothing shares as its parent does."""
    codes: list[Sharing] = []
    for level, above, path in zip(rows.level, rows.parent, rows.path, strict=True):
        own = None
        if level == Level.GLOBAL:
            own = config.allocation.sharing
        elif level == Level.REGION:
            own = config.regions[path.rpartition("/")[2]].sharing
        elif level == Level.GROUP:
            own = config.groups.get(path.rpartition("/")[2], config.group_defaults).sharing
        codes.append(codes[above] if own is None else Sharing[own.upper()])
    return np.array(codes, np.uint8)


def _policies_of(rows: Rows, config: Config, policies: Policies) -> list[PoolPolicy]:
    """Each row's policy; names and places are in the paths."""
    floor = config.allocation.min_rate_mbps * 1e6
    places = [path.split("/") for path in rows.path]
    part: dict[int, int] = {}
    n_classes: dict[int, int] = {}
    for level, above in zip(rows.level, rows.parent, strict=True):
        if level == Level.USER:
            part[above] = part.get(above, 0) + 1
        elif level == Level.APPLICATION:
            n_classes[above] = n_classes.get(above, 0) + 1
    size: dict[str, int] = {}
    for row, members in part.items():
        size[places[row][2]] = size.get(places[row][2], 0) + members
    found = []
    for row, (level, place) in enumerate(zip(rows.level, places, strict=True)):
        if level == Level.GLOBAL:
            found.append(PoolPolicy(ceiling_bps=config.capacity_mbps.bps))
        elif level == Level.REGION:
            found.append(policies.region(place[1]))
        elif level == Level.GROUP:
            found.append(_part(policies.group(place[2], place[1]), part[row] / size[place[2]]))
        elif level == Level.USER:
            found.append(_open(policies.user(place[3], place[1]), floor))
        else:
            above = rows.parent[row]
            # Where a user has less than the floor of all its classes, they share it.
            least = min(floor, min(found[above].ceiling_bps) / n_classes[above])
            found.append(_open(policies.application(place[3], place[4], place[1]), least))
    return found


def _open(policy: PoolPolicy, floor_bps: float) -> PoolPolicy:
    """No meter is shut: the least rate is guaranteed to everybody."""
    up, down = (
        max(own, min(floor_bps, top))
        for own, top in zip(policy.guarantee_bps, policy.ceiling_bps, strict=True)
    )
    if (up, down) == policy.guarantee_bps:
        return policy
    # Written out: a replace takes longer, and there is one for every user.
    return PoolPolicy((up, down), policy.ceiling_bps, policy.weight, policy.priority)


def _part(policy: PoolPolicy, share: float) -> PoolPolicy:
    """The part of a group in one region: its promises split by where its members are."""
    if share == 1:
        return policy
    guarantee, ceiling = (
        (pair[0] * share, pair[1] * share) for pair in (policy.guarantee_bps, policy.ceiling_bps)
    )
    return PoolPolicy(guarantee, ceiling, policy.weight * share, policy.priority)


def _feasible(rows: Rows, guarantee: F64, ceiling: F64, problems: list[str]) -> F64:
    """Guarantees of shape (2, n_pools) that fit into every ceiling above them.

    The file's own promises were checked, but who attaches where is not the
    file's to say: where too many meet below one ceiling, all of them are cut in proportion.
    """
    parent = np.array(rows.parent)
    level = np.array(rows.level)
    for d, direction in enumerate(DIRECTIONS):
        # An operator's override of yesterday and the file of today need not agree.
        problems.extend(
            f"{rows.path[row]}: guarantee {guarantee[d, row]:.0f} bit/s {direction} is above its ceiling "
            f"{ceiling[d, row]:.0f}: the ceiling holds"
            for row in np.flatnonzero(guarantee[d] > ceiling[d])
        )
        guarantee[d] = np.minimum(guarantee[d], ceiling[d])
        # Bottom-up: first a user's classes into the user, then users into groups, groups into regions, regions.
        for depth in BOTTOM_UP:
            at = np.flatnonzero(level == depth)
            need = np.bincount(parent[at], guarantee[d, at], len(level))
            for row in np.flatnonzero(need > ceiling[d]):
                scale = ceiling[d, row] / need[row] * (1 - 1e-9)
                _scale_below(guarantee[d], parent, int(row), scale)
                problems.append(
                    f"{rows.path[row]}: guarantees below it sum to {need[row]:.0f} bit/s {direction}, above its "
                    f"ceiling {ceiling[d, row]:.0f}: all are cut to {scale:.2f} of what was promised"
                )
            need = np.bincount(parent[at], guarantee[d, at], len(level))
            guarantee[d] = np.maximum(guarantee[d], np.minimum(need, ceiling[d]))
    whole: F64 = np.floor(guarantee)
    return whole


def _scale_below(guarantee: F64, parent: npt.NDArray[np.int_], row: int, scale: float) -> None:
    below = np.zeros(len(parent), bool)
    for i in range(row + 1, len(parent)):
        below[i] = parent[i] == row or (parent[i] >= 0 and below[parent[i]])
    guarantee[below] *= scale
