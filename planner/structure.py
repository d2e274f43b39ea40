"""Who is where: the pool tree, the meters each pool has, and what each switch must know.

Built anew when the network, the groups or a policy changed, and left alone
otherwise: a tick works on its arrays only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from allocation.tree import PoolTree
from planner.config import Config
from planner.meter_ids import MeterIds
from planner.plan import SwitchLayout
from planner.policy import Policies
from planner.pool_rows import Rows, add_applications, add_pools, places_of, region_of_users
from planner.promises import curves_of, promises_of
from planner.snapshot import Level
from planner.switch_meters import Entries, meters_of, rows_by_meter
from topology.groups import ResourceGroup
from topology.identity import Attachment
from topology.regions import RegionMap

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Structure:
    """The pools by rising level, and their meters. Rates have shape (2, n_pools)."""

    path: tuple[str, ...]
    level: npt.NDArray[np.uint8]
    parent: npt.NDArray[np.int32]
    guarantee_bps: F64
    ceiling_bps: F64
    weight: F64
    trees: tuple[PoolTree, PoolTree]
    #: What the ring and the store call each pool: the same wherever in the tree it is.
    series: tuple[str, ...]
    dpids: tuple[int, ...]
    entries: Entries
    layouts: Mapping[int, SwitchLayout]
    #: User id by row, for rows at user level, which stand together.
    users: tuple[str, ...]
    #: Rows of ``path`` by group id.
    group_rows: Mapping[str, tuple[int, ...]]
    #: One line each: guarantees that had to be cut, users without a region, ids run out.
    problems: tuple[str, ...]
    #: Rows of the entries by switch and meter id, -1 where a meter has no single entry.
    entry_of_meter: Mapping[int, I64] = field(default_factory=dict)
    #: Priority class of each pool, shape (n_pools,); 0 is served first.
    priority: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    #: Rows by the kind of traffic whose value curve they share by; the others share by their forecasts.
    curves: Mapping[str, I64] = field(default_factory=dict)
    #: Those of ``problems`` that policies have no part in.
    place_problems: tuple[str, ...] = ()

    @cached_property
    def first_user(self) -> int:
        """Row of the first user."""
        return int(np.searchsorted(self.level, Level.USER))

    @property
    def user_rows(self) -> slice:
        """Rows of ``users``; those of their application classes come after."""
        return slice(self.first_user, self.first_user + len(self.users))

    @cached_property
    def asks(self) -> Bool:
        """The pools that ask for what they need: users, or the application classes of a user that has some.

        shape (n_pools,)
        """
        asking: Bool = self.level >= Level.USER
        asking[self.parent[self.level == Level.APPLICATION]] = False
        return asking


def build(
    config: Config,
    policies: Policies,
    regions: RegionMap,
    attachments: Mapping[str, tuple[Attachment, ...]],
    groups: Iterable[ResourceGroup],
    meter_ids: MeterIds,
    max_meters: Mapping[int, int],
    n_tables: Mapping[int, int],
) -> Structure:
    """The structure for these users at these places in these groups.

    Users that are not attached to a switch of a region are in no pool. ``max_meters`` and
    ``n_tables`` are what each switch can hold.
    """
    problems: list[str] = []
    region_of = region_of_users(regions, attachments, problems)
    group_of = {user: group.id for group in groups for user in group.members if user in region_of}
    rows = Rows()
    add_pools(rows, config, region_of, group_of)
    dpids = tuple(sorted({dpid for region in config.regions.values() for dpid in region.dpids}))
    places = places_of(rows, dpids, regions, attachments, max_meters)
    add_applications(rows, config, places, n_tables, problems)
    promises = promises_of(rows, config, policies)
    entries, layouts = meters_of(rows, dpids, places, meter_ids, max_meters, problems)
    return Structure(
        path=tuple(rows.path),
        level=np.array(rows.level, np.uint8),
        parent=np.array(rows.parent, np.int32),
        guarantee_bps=promises.guarantee_bps,
        ceiling_bps=promises.ceiling_bps,
        weight=promises.weight,
        trees=promises.trees,
        series=tuple(rows.series),
        dpids=dpids,
        entries=entries,
        layouts=layouts,
        users=tuple(rows.users),
        group_rows={group: tuple(found) for group, found in rows.group_rows.items()},
        problems=(*problems, *promises.problems),
        entry_of_meter=rows_by_meter(entries, dpids),
        priority=promises.priority,
        curves=curves_of(rows, config),
        place_problems=tuple(problems),
    )


def repriced(s: Structure, config: Config, policies: Policies) -> Structure:
    """The same pools and meters under the policies of now: what ``build`` would make, without places and meters."""
    rows = Rows()
    rows.path, rows.level, rows.parent = list(s.path), s.level.tolist(), s.parent.tolist()
    promises = promises_of(rows, config, policies)
    return replace(
        s,
        guarantee_bps=promises.guarantee_bps,
        ceiling_bps=promises.ceiling_bps,
        weight=promises.weight,
        trees=promises.trees,
        priority=promises.priority,
        problems=(*s.place_problems, *promises.problems),
    )
