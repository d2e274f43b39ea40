"""Which pools there are, by rows: regions, groups by region, users and their application classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from planner.config import Config
from planner.config_fields import UNGROUPED
from planner.plan import TABLES_FOR_APPLICATIONS
from planner.snapshot import Level
from telemetry.samples import DIRECTIONS
from topology.identity import Attachment
from topology.regions import RegionMap

ROOT = "global"
#: The levels that have a parent, those below first.
BOTTOM_UP: Final = tuple(sorted(set(Level) - {Level.GLOBAL}, reverse=True))


class Rows:
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
        """A pool below an earlier row; its own row."""
        self.path.append(path)
        self.level.append(level)
        self.parent.append(parent)
        self.series.append(series)
        return len(self.path) - 1


def region_of_users(
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


def add_pools(rows: Rows, config: Config, region_of: Mapping[str, str], group_of: Mapping[str, str]) -> None:
    """The network, its regions, the part of each group in each region, and the users there."""
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
class Place:
    """One switch that is known, and whose devices are at it."""

    devices: list[tuple[int, str, Attachment]]
    #: The rows of the pools that have meters here. The switch's own region is the first.
    regions: list[int]
    groups: list[int]
    users: list[int]
    #: How many meters the switch can hold, and how many of them pools down to users leave over.
    budget: int
    room: int


def places_of(
    rows: Rows,
    dpids: tuple[int, ...],
    regions: RegionMap,
    attachments: Mapping[str, tuple[Attachment, ...]],
    max_meters: Mapping[int, int],
) -> dict[int, Place]:
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
        places[dpid] = Place(here, above, groups, users, budget, room)
    return places


def add_applications(
    rows: Rows,
    config: Config,
    places: Mapping[int, Place],
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
