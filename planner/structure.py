"""Who is where: the pool tree, the meters each pool has, and what each switch must know.

Built anew when the network, the groups or a policy changed, and left alone
otherwise: a tick works on its arrays only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from allocation.tree import PoolTree, Sharing
from planner.config import Config
from planner.config_fields import UNGROUPED
from planner.meter_ids import SHARED, MeterIds
from planner.plan import TABLES_FOR_APPLICATIONS, UNMETERED, Binding, MeterOwner, SwitchLayout
from planner.policies import NORMAL_PRIORITY, PoolPolicy
from planner.policy import Policies
from planner.snapshot import Level
from telemetry.samples import DIRECTIONS
from topology.groups import ResourceGroup
from topology.identity import Attachment
from topology.regions import RegionMap

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

ROOT = "global"
#: The levels that have a parent, those below first.
BOTTOM_UP: Final = tuple(sorted(set(Level) - {Level.GLOBAL}, reverse=True))
BY_FORECAST = "forecast"


@dataclass(frozen=True)
class Entries:
    """The meters: one row for each pool, switch and direction. All columns have shape (n_entries,)."""

    pool: I64
    direction: I64
    #: Row of ``Structure.dpids``.
    switch: I64
    meter_id: I64
    #: Row of the entry one level up on the same switch; -1 for regions.
    parent: I64
    #: False where several pools share the meter, so that it tells of none of them.
    alone: Bool


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
    region_of = _region_of_users(regions, attachments, problems)
    group_of = {user: group.id for group in groups for user in group.members if user in region_of}
    rows = _Rows()
    _add_pools(rows, config, region_of, group_of)
    dpids = tuple(sorted({dpid for region in config.regions.values() for dpid in region.dpids}))
    places = _places(rows, dpids, regions, attachments, max_meters)
    _add_applications(rows, config, places, n_tables, problems)
    promises = _promises(rows, config, policies)
    entries, layouts = _meters(rows, dpids, places, meter_ids, max_meters, problems)
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
        entry_of_meter=_lookup(entries, dpids),
        priority=promises.priority,
        curves=_curves(rows, config),
        place_problems=tuple(problems),
    )


def repriced(s: Structure, config: Config, policies: Policies) -> Structure:
    """The same pools and meters under the policies of now: what ``build`` would make, without places and meters."""
    rows = _Rows()
    rows.path, rows.level, rows.parent = list(s.path), s.level.tolist(), s.parent.tolist()
    promises = _promises(rows, config, policies)
    return replace(
        s,
        guarantee_bps=promises.guarantee_bps,
        ceiling_bps=promises.ceiling_bps,
        weight=promises.weight,
        trees=promises.trees,
        priority=promises.priority,
        problems=(*s.place_problems, *promises.problems),
    )


def _region_of_users(
    regions: RegionMap, attachments: Mapping[str, tuple[Attachment, ...]], problems: list[str]
) -> dict[str, str]:
    """Each attached user's region: the one with most of its devices."""
    region_of = {}
    for user, devices in attachments.items():
        if len(devices) == 1:
            region = regions.of_device(devices[0].dpid, devices[0].addresses)
            if region is not None:
                region_of[user] = region
            else:
                problems.append(
                    f"users.{user} is at {devices[0].dpid:016x}, which is in no region: not metered"
                )
            continue
        found = [
            region
            for device in devices
            if (region := regions.of_device(device.dpid, device.addresses)) is not None
        ]
        if found:
            region_of[user] = max(sorted(set(found)), key=found.count)
    return region_of


class _Rows:
    """The pools being collected, columns by row."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.level: list[int] = []
        self.parent: list[int] = []
        self.series: list[str] = []
        self.users: list[str] = []
        self.user_row: dict[str, int] = {}
        #: By row of the user: number and row of each of its application classes.
        self.classes: dict[int, list[tuple[int, int]]] = {}
        self.group_rows: dict[str, list[int]] = {}
        self.region_row: dict[str, int] = {}

    def add(self, path: str, level: Level, parent: int, series: str) -> int:
        self.path.append(path)
        self.level.append(level)
        self.parent.append(parent)
        self.series.append(series)
        return len(self.path) - 1


def _add_pools(
    rows: _Rows, config: Config, region_of: Mapping[str, str], group_of: Mapping[str, str]
) -> None:
    rows.add(ROOT, Level.GLOBAL, -1, ROOT)
    for name in config.regions:
        rows.region_row[name] = rows.add(f"{ROOT}/{name}", Level.REGION, 0, f"region/{name}")
    parts: dict[tuple[str, str], list[str]] = {}
    for user, region in region_of.items():
        parts.setdefault((region, group_of.get(user, UNGROUPED)), []).append(user)
    part_row = {}
    for region, group in sorted(parts):
        row = rows.add(
            f"{ROOT}/{region}/{group}", Level.GROUP, rows.region_row[region], f"group/{group}@{region}"
        )
        part_row[region, group] = row
        rows.group_rows.setdefault(group, []).append(row)
    for (region, group), members in sorted(parts.items()):
        row = part_row[region, group]
        for user in sorted(members):
            rows.users.append(user)
            rows.user_row[user] = rows.add(f"{rows.path[row]}/{user}", Level.USER, row, f"user/{user}")


@dataclass(frozen=True)
class _Place:
    """One switch that is known, and whose devices are at it."""

    devices: list[tuple[int, str, Attachment]]
    #: The rows of the pools that have meters here. The switch's own region is the first.
    regions: list[int]
    groups: list[int]
    users: list[int]
    #: How many meters the switch can hold, and how many of them pools down to users leave over.
    budget: int
    room: int


def _places(
    rows: _Rows,
    dpids: tuple[int, ...],
    regions: RegionMap,
    attachments: Mapping[str, tuple[Attachment, ...]],
    max_meters: Mapping[int, int],
) -> dict[int, _Place]:
    """The switches of regions. One never heard of has no plan, and keeps the meter ids of an earlier planner."""
    devices: dict[int, list[tuple[int, str, Attachment]]] = {dpid: [] for dpid in dpids if dpid in max_meters}
    for user, row in rows.user_row.items():
        for device in attachments[user]:
            if device.dpid in devices:
                devices[device.dpid].append((row, user, device))
    places = {}
    for dpid, here in devices.items():
        users = sorted({row for row, _, _ in here})
        groups = sorted({rows.parent[row] for row in users})
        # A switch without users still polices what strangers send there; users may be of other regions.
        own = rows.region_row[regions.by_dpid[dpid]]
        above = [own, *sorted({rows.parent[row] for row in groups} - {own})]
        budget = max_meters[dpid]
        room = budget - len(DIRECTIONS) * (len(above) + len(groups) + len(users))
        places[dpid] = _Place(here, above, groups, users, budget, room)
    return places


def _add_applications(
    rows: _Rows,
    config: Config,
    places: Mapping[int, _Place],
    n_tables: Mapping[int, int],
    problems: list[str],
) -> None:
    """The application classes of users whose blocks name some, where every switch of the user can tell them apart.

    What is measured at one switch only says nothing of the whole, so else the user's traffic is metered as one.
    """
    named = {user: one for user in rows.users if (one := config.users[user].applications)}
    if not named:
        return
    room = {dpid: place.room for dpid, place in places.items()}
    homes: dict[str, list[int]] = {user: [] for user in named}
    for dpid, place in places.items():
        for user in dict.fromkeys(user for _, user, _ in place.devices if user in named):
            homes[user].append(dpid)
    for user, wanted in named.items():
        # What is in none of the classes that are named has a pool too, so that they add up to the user.
        classes = [(n, name) for n, name in enumerate(config.application_names) if not n or name in wanted]
        meters = len(DIRECTIONS) * len(classes)
        for dpid in homes[user]:
            lack = ""
            if n_tables.get(dpid, 0) < TABLES_FOR_APPLICATIONS:
                lack = f"{n_tables.get(dpid, 0)} tables, which must be {TABLES_FOR_APPLICATIONS}"
            elif room[dpid] < meters:
                lack = f"{max(0, room[dpid])} meters left, which must be {meters}"
            if lack:
                problems.append(f"users.{user}.applications are metered as one: {dpid:016x} has {lack}")
                break
        else:
            for dpid in homes[user]:
                room[dpid] -= meters
            row = rows.user_row[user]
            rows.classes[row] = [
                (
                    n,
                    rows.add(
                        f"{rows.path[row]}/{name}", Level.APPLICATION, row, f"{rows.series[row]}/{name}"
                    ),
                )
                for n, name in classes
            ]


@dataclass(frozen=True)
class _Promises:
    """What every pool may have, by row; shapes as in ``Structure``."""

    guarantee_bps: F64
    ceiling_bps: F64
    weight: F64
    priority: npt.NDArray[np.uint8]
    trees: tuple[PoolTree, PoolTree]
    problems: tuple[str, ...]


def _promises(rows: _Rows, config: Config, policies: Policies) -> _Promises:
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
    return _Promises(guarantee, ceiling, weight, classes, (up, down), tuple(problems))


def _curves(rows: _Rows, config: Config) -> dict[str, I64]:
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


def _sharing(rows: _Rows, config: Config) -> npt.NDArray[np.uint8]:
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


def _policies_of(rows: _Rows, config: Config, policies: Policies) -> list[PoolPolicy]:
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


def _feasible(rows: _Rows, guarantee: F64, ceiling: F64, problems: list[str]) -> F64:
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


def _meters(
    rows: _Rows,
    dpids: tuple[int, ...],
    places: Mapping[int, _Place],
    meter_ids: MeterIds,
    max_meters: Mapping[int, int],
    problems: list[str],
) -> tuple[Entries, dict[int, SwitchLayout]]:
    switch_row = {dpid: row for row, dpid in enumerate(dpids)}
    collected = _EntryColumns()
    # Switches of no region only forward; they are told so.
    layouts = {dpid: SwitchLayout() for dpid in max_meters if dpid not in switch_row}
    for dpid, place in places.items():
        layouts[dpid] = _switch(rows, dpid, switch_row[dpid], place, meter_ids, collected, problems)
    return collected.entries(), layouts


class _EntryColumns:
    def __init__(self) -> None:
        self.pool: list[int] = []
        self.direction: list[int] = []
        self.switch: list[int] = []
        self.meter_id: list[int] = []
        self.parent: list[int] = []
        self.alone: list[bool] = []

    def add(self, pool: int, direction: int, switch: int, meter_id: int, parent: int, alone: bool) -> int:
        self.pool.append(pool)
        self.direction.append(direction)
        self.switch.append(switch)
        self.meter_id.append(meter_id)
        self.parent.append(parent)
        self.alone.append(alone)
        return len(self.pool) - 1

    def entries(self) -> Entries:
        pool, direction, switch, meter_id, parent = (
            np.array(column, np.int64)
            for column in (self.pool, self.direction, self.switch, self.meter_id, self.parent)
        )
        return Entries(pool, direction, switch, meter_id, parent, np.array(self.alone, bool))


def _switch(
    rows: _Rows,
    dpid: int,
    switch: int,
    place: _Place,
    meter_ids: MeterIds,
    collected: _EntryColumns,
    problems: list[str],
) -> SwitchLayout:
    """One switch's meters and bindings; its entries are added to ``collected``."""
    outer = place.regions + place.groups
    # Classes are there only where ids are left for them: whoever shares a meter has none.
    inner = place.users + [row for user in place.users for _, row in rows.classes.get(user, ())]
    first = [f"{rows.series[row]}:{d}" for row in outer for d in DIRECTIONS]
    then = [(f"{rows.series[row]}:{d}", i) for row in inner for i, d in enumerate(DIRECTIONS)]
    ids = meter_ids.assign(dpid, first, then, place.budget)
    shared = {ids[name] for name in SHARED if name in ids}
    if len(first) + len(then) > place.budget:
        problems.append(
            f"{dpid:016x} has {place.budget} meters for {len(first) + len(then)} pools: "
            f"users share {len(shared)} of them"
        )
    entry_of: dict[tuple[int, int], int] = {}
    meters: dict[int, tuple[int, int]] = {}
    owners = []
    for row in outer + inner:
        series = rows.series[row]
        meters[row] = (ids.get(f"{series}:up", UNMETERED), ids.get(f"{series}:down", UNMETERED))
        for direction, meter in enumerate(meters[row]):
            above = entry_of.get((rows.parent[row], direction), -1)
            alone = meter != UNMETERED and meter not in shared
            entry_of[row, direction] = collected.add(row, direction, switch, meter, above, alone)
            if alone:
                owners.append(MeterOwner(meter, rows.path[row], direction))
    owners += [
        MeterOwner(ids[name], f"{ROOT}/shared@{dpid:016x}", direction)
        for direction, name in enumerate(SHARED)
        if name in ids
    ]

    classes = {
        user: tuple((n, *meters[row]) for n, row in rows.classes[user])
        for user in place.users
        if user in rows.classes
    }
    bindings = tuple(
        Binding(user, device.mac, device.port_no, meters[row], meters[rows.parent[row]], classes.get(row, ()))
        for row, user, device in place.devices
    )
    own = place.regions[0]
    strangers = [row for row in place.groups if rows.parent[row] != own]
    return SwitchLayout(
        bindings,
        tuple(sorted(owners, key=lambda owner: owner.meter_id)),
        meters[own],
        other_regions=tuple((meters[row], meters[rows.parent[row]]) for row in strangers),
    )


def _lookup(entries: Entries, dpids: tuple[int, ...]) -> dict[int, I64]:
    found = {}
    for switch, dpid in enumerate(dpids):
        mine = np.flatnonzero((entries.switch == switch) & entries.alone)
        table = np.full(int(entries.meter_id[mine].max(initial=0)) + 1, -1, np.int64)
        table[entries.meter_id[mine]] = mine
        found[dpid] = table
    return found
