"""The meters that pools have on each switch, and what the switch must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.meter_ids import SHARED, MeterIds
from planner.plan import UNMETERED, Binding, MeterOwner, SwitchLayout
from planner.pool_rows import ROOT, Place, Rows
from telemetry.samples import DIRECTIONS

I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


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


def meters_of(
    rows: Rows,
    dpids: tuple[int, ...],
    places: Mapping[int, Place],
    meter_ids: MeterIds,
    max_meters: Mapping[int, int],
    problems: list[str],
) -> tuple[Entries, dict[int, SwitchLayout]]:
    """All switches' meters, and what each switch must know; what is amiss is added to ``problems``."""
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
    rows: Rows,
    dpid: int,
    switch: int,
    place: Place,
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


def rows_by_meter(entries: Entries, dpids: tuple[int, ...]) -> dict[int, I64]:
    """By switch and meter id the row of the meter's only entry, or -1."""
    found = {}
    for switch, dpid in enumerate(dpids):
        mine = np.flatnonzero((entries.switch == switch) & entries.alone)
        table = np.full(int(entries.meter_id[mine].max(initial=0)) + 1, -1, np.int64)
        table[entries.meter_id[mine]] = mine
        found[dpid] = table
    return found
