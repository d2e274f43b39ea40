"""A planner that plans nothing but keeps what it is told, over real snapshots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from allocation.allocate import Bound
from forecasting.forecast import Rung
from planner.plan import MeterOwner, MeterTable, Plan, SwitchLayout
from planner.snapshot import (
    GroupView,
    Health,
    Level,
    Pools,
    Refused,
    Snapshot,
    SwitchView,
    UnknownGroup,
)

NOW = 1_000_000.0
TOKEN = "a-token-of-more-than-32-characters"
EDGE = 0x11
NAN = float("nan")


def both(*up: float) -> np.ndarray:
    """A column of rates whose download is twice its upload: swapped directions show."""
    return np.array([up, [2 * rate for rate in up]])


def make_pools() -> Pools:
    """A tree of one region, one group and two users; nothing was measured of the second."""
    n = 5
    return Pools(
        path=("global", "global/west", "global/west/g1", "global/west/g1/anna", "global/west/g1/ben"),
        level=np.array([Level.GLOBAL, Level.REGION, Level.GROUP, Level.USER, Level.USER], np.uint8),
        parent=np.array([-1, 0, 1, 2, 2], np.int32),
        guarantee_bps=both(0, 10e6, 2e6, 1e6, 1e6),
        ceiling_bps=both(60e6, 36e6, np.inf, 20e6, 20e6),
        weight=np.ones(n),
        offered_bps=both(5e6, 5e6, 5e6, 0, NAN),
        delivered_bps=both(4e6, 4e6, 4e6, 0, NAN),
        p50_bps=both(6e6, 6e6, 6e6, 3e6, NAN),
        p90_bps=both(8e6, 8e6, 8e6, 5e6, NAN),
        grant_bps=both(9e6, 9e6, 9e6, 4.4e6, 4.6e6),
        rung=np.full((2, n), Rung.AUTO_BANDWIDTH, np.uint8),
        bound=np.full((2, n), Bound.CEILING, np.uint8),
    )


def make_plan() -> Plan:
    """Two meters on one switch."""
    return Plan(
        version=7,
        time=NOW,
        layout_version=3,
        layouts={
            EDGE: SwitchLayout(
                owners=(MeterOwner(1, "global/west/g1/anna", 0), MeterOwner(2, "global/west/g1/anna", 1))
            )
        },
        meters={
            EDGE: MeterTable(np.array([1, 2], "u4"), np.array([4400, 8800], "u4"), np.array([440, 880], "u4"))
        },
    )


def make_snapshot() -> Snapshot:
    """What a healthy planner shows."""
    group = GroupView(
        id="g1",
        source="discovered",
        state="active",
        members=("anna", "ben"),
        since=NOW - 60,
        reason="they talk to one another",
        guarantee_bps=None,
        ceiling_bps=None,
        weight=1.0,
        pools=(2,),
    )
    return Snapshot(
        time=NOW,
        health=Health(status="ok", last_tick=NOW, tick_ms=12.5, ticks=9, steps_ms={"forecast": 4.0}),
        pools=make_pools(),
        groups=(group,),
        shared_services=("names",),
        switches=(
            SwitchView(EDGE, True, "west", NOW, 7, True, 2, 0),
            SwitchView(0xC0, True, None, 0.0, 0, None, 0, 1),
        ),
        plan=make_plan(),
    )


class FakeOperations:
    """Keeps what was written and shows it in the next snapshot."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or make_snapshot()
        self.written: list[tuple[str, Any]] = []

    def create_group(self, group_id: str, members: tuple[str, ...], policy: dict[str, Any]) -> None:
        if any(group.id == group_id for group in self.snapshot.groups):
            raise Refused(f"id must be new, got {group_id!r}, which exists")
        for member in members:
            if member not in ("anna", "ben"):
                raise Refused(f"members must be users, got {member!r}")
        group = GroupView(
            group_id, "operator", "active", members, NOW, "asked for by an operator",
            policy.get("guarantee_bps"), policy.get("ceiling_bps"), policy.get("weight", 1.0), (),
        )  # fmt: skip
        self.written.append((group_id, policy))
        self.snapshot = replace(self.snapshot, groups=(*self.snapshot.groups, group))

    def set_group_bandwidth(self, group_id: str, policy: dict[str, Any]) -> None:
        groups = {group.id: group for group in self.snapshot.groups}
        if group_id not in groups:
            raise UnknownGroup(group_id)
        if policy.get("guarantee_bps", (0, 0))[0] > 36_000_000:
            raise Refused("guarantee_mbps.up must be <= the region's capacity 36, got more")
        self.written.append((group_id, policy))
        groups[group_id] = replace(groups[group_id], **policy)
        self.snapshot = replace(self.snapshot, groups=tuple(groups.values()))

    def group_history(self, group_id: str, since: float) -> dict[str, Any]:
        if all(group.id != group_id for group in self.snapshot.groups):
            raise UnknownGroup(group_id)
        times = np.array([NOW - 10, NOW - 5, NOW])
        columns = {"offered_bps": both(1e6, NAN, 3e6), "grant_bps": both(2e6, 2e6, 4e6)}
        recent = times >= since
        return {"time": times[recent], **{name: column[:, recent] for name, column in columns.items()}}

    def summary(self) -> dict[str, Any]:
        row = {
            "path": "global/west/g1/anna",
            "level": "user",
            "offered_bps": 0.0,
            "p50_bps": NAN,
            "p90_bps": 5e6,
            "grant_bps": 4.4e6,
            "measured_bps": NAN,
            "static_equal_bps": 3e6,
            "auto_bandwidth_bps": 2e6,
        }
        return {
            "window": {"since": NOW - 60, "until": NOW, "what": "the last minute"},
            "pools": [{**row, "direction": "up"}, {**row, "direction": "down", "grant_bps": 8.8e6}],
            "totals": {"carried_bps": {"tidegate": 9e6, "static": NAN}},
            "meters_equal_plan": True,
        }
