"""Snapshots as JSON. What is not known is null: never NaN, and never zero.

Rates are whole bit/s. Long lists are encoded in pieces, since the C encoder
keeps the interpreter's lock for the whole of a call and the loop wants it too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from allocation.allocate import Bound
from forecasting.forecast import Rung
from planner.plan import MeterTable, SwitchLayout
from planner.snapshot import GroupView, Level, Pools, Snapshot, SwitchView

Rows = npt.NDArray[np.intp]

DIRECTION_NAMES: Final = ("up", "down")
LEVEL_NAMES: Final = tuple(level.name.lower() for level in Level)
RUNG_NAMES: Final = {int(rung): rung.name.lower() for rung in Rung}
BOUND_NAMES: Final = {int(bound): bound.name.lower() for bound in Bound}
_RATES: Final = (
    "offered_bps",
    "delivered_bps",
    "p50_bps",
    "p90_bps",
    "grant_bps",
    "guarantee_bps",
    "ceiling_bps",
)
#: Of these a sum over the parts of a group means something; of quantiles it does not.
_ADDITIVE: Final = ("offered_bps", "delivered_bps", "grant_bps")
_PIECE: Final = 500


def whole_bps(column: npt.ArrayLike) -> list[int | None]:
    """Whole bit/s of a column; None where it is NaN or infinite."""
    values = np.asarray(column, np.float64)
    rounded = np.rint(np.where(np.isfinite(values), values, 0.0)).tolist()
    known = np.isfinite(values).tolist()
    return [int(value) if is_known else None for value, is_known in zip(rounded, known, strict=True)]


def plain(value: Any) -> Any:
    """Nested values as JSON has them; None for numbers that are none."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def forecaster_level(level: int) -> tuple[str, str]:
    """What a forecaster's level is called, and its direction; classes are of one level, pools or not."""
    return LEVEL_NAMES[level // 2], DIRECTION_NAMES[level % 2]


def encode(value: Any) -> bytes:
    """JSON of one small value. Raises ValueError for NaN: it must have become null before."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _encode_list(rows: Iterable[Any]) -> Iterator[bytes]:
    """The JSON of a list without its brackets, in pieces."""
    rows = iter(rows)
    separator = b""
    while piece := list(islice(rows, _PIECE)):
        yield separator + encode(piece)[1:-1]
        separator = b","


def _with_list(head: Mapping[str, Any], key: str, rows: Iterable[Any]) -> bytes:
    """The JSON of an object whose last entry is a long list."""
    return b"".join((encode(head)[:-1], b',"', key.encode(), b'":[', *_encode_list(rows), b"]}"))


def pool_rows(pools: Pools, rows: Rows) -> Iterator[dict[str, Any]]:
    """One object a pool, ``up`` and ``down`` apart."""
    columns: list[dict[str, list[Any]]] = [
        {
            **{name: whole_bps(getattr(pools, name)[direction, rows]) for name in _RATES},
            "rung": [RUNG_NAMES.get(code) for code in pools.rung[direction, rows].tolist()],
            "bound": [BOUND_NAMES.get(code) for code in pools.bound[direction, rows].tolist()],
        }
        for direction in (0, 1)
    ]
    for at, row in enumerate(rows.tolist()):
        up, down = ({name: column[at] for name, column in one.items()} for one in columns)
        level = LEVEL_NAMES[pools.level[row]]
        yield {
            "path": pools.path[row],
            "level": level,
            "weight": plain(pools.weight[row]),
            "up": up,
            "down": down,
        }


def global_metrics(snapshot: Snapshot, level: str | None, offset: int, limit: int) -> bytes:
    """``GET /metrics/global``: the pools of a level, or all, one page of them."""
    pools = snapshot.pools
    if level is None:
        rows = np.arange(len(pools.path))
    else:
        rows = np.flatnonzero(pools.level == LEVEL_NAMES.index(level))
    head = {"time": plain(snapshot.time), "total": len(rows), "offset": offset, "limit": limit}
    return _with_list(head, "pools", pool_rows(pools, rows[offset : offset + limit]))


def plan(snapshot: Snapshot, offset: int = 0, limit: int = 1000) -> bytes:
    """``GET /plan``: the meters that each switch shall hold, so many switches."""
    newest = snapshot.plan
    head = {
        "version": newest.version,
        "time": plain(newest.time),
        "mode": newest.mode,
        "layout_version": newest.layout_version,
    }
    seen = {switch.dpid: switch for switch in snapshot.switches}
    dpids = sorted(seen.keys() | newest.meters.keys())
    head |= _page(dpids, offset, limit)
    switches = (
        _planned_switch(
            dpid,
            newest.meters.get(dpid, MeterTable()),
            newest.layouts.get(dpid, SwitchLayout()),
            seen.get(dpid),
        )
        for dpid in dpids[offset : offset + limit]
    )
    return b"".join((encode(head)[:-1], b',"switches":{', b",".join(switches), b"}}"))


def _planned_switch(dpid: int, table: MeterTable, layout: SwitchLayout, seen: SwitchView | None) -> bytes:
    head = {
        "in_step": seen.in_step if seen else None,
        "plan_version": seen.plan_version if seen else None,
    }
    owners = {owner.meter_id: owner for owner in layout.owners}
    return b'"%016x":' % dpid + _with_list(head, "meters", _meters(table, owners))


def _meters(table: MeterTable, owners: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
    for meter, (rate_kbps, burst_kbit) in table.rates().items():
        owner = owners.get(meter)
        yield {
            "meter_id": meter,
            "rate_kbps": rate_kbps,
            "burst_kbit": burst_kbit,
            "pool": owner.pool if owner else None,
            "direction": DIRECTION_NAMES[owner.direction] if owner else None,
        }


def groups(snapshot: Snapshot, offset: int = 0, limit: int = 1000) -> bytes:
    """``GET /groups``: a page of the groups there are, and the services that glue none."""
    page = snapshot.groups[offset : offset + limit]
    head = {
        "time": plain(snapshot.time),
        "shared_services": list(snapshot.shared_services),
        **_page(snapshot.groups, offset, limit),
    }
    return _with_list(head, "groups", (group_row(snapshot.pools, group) for group in page))


def _page(entries: Sized, offset: int, limit: int) -> dict[str, int]:
    return {"total": len(entries), "offset": offset, "limit": limit}


def group_row(pools: Pools, group: GroupView) -> dict[str, Any]:
    """One group as ``GET /groups`` lists it."""
    return {
        "id": group.id,
        "source": group.source,
        "kind": group.kind,
        "state": group.state,
        "members": list(group.members),
        "since": plain(group.since),
        "reason": group.reason,
        "guarantee_bps": _both(group.guarantee_bps),
        "ceiling_bps": _both(group.ceiling_bps),
        "weight": plain(group.weight),
        "pools": [pools.path[row] for row in group.pools],
    }


def _both(rates: tuple[float, float] | None) -> dict[str, int | None] | None:
    return None if rates is None else dict(zip(DIRECTION_NAMES, whole_bps(rates), strict=True))


def group_metrics(snapshot: Snapshot, group: GroupView, history: dict[str, Any]) -> dict[str, Any]:
    """``GET /metrics/group/{groupID}``: the group now, its parts, and its recent past."""
    rows = np.asarray(group.pools, np.intp)
    totals: dict[str, dict[str, int | None]] = {name: {} for name in DIRECTION_NAMES}
    for name in _ADDITIVE:
        # One part of which nothing is known makes the sum unknown: NaN spreads by itself.
        column = getattr(snapshot.pools, name)[:, rows].sum(axis=1) if len(rows) else np.full(2, np.nan)
        for direction, value in zip(DIRECTION_NAMES, whole_bps(column), strict=True):
            totals[direction][name] = value
    return {
        "time": plain(snapshot.time),
        "group": group_row(snapshot.pools, group),
        "current": totals,
        "parts": list(pool_rows(snapshot.pools, rows)),
        "history": history,
    }


def switches(snapshot: Snapshot, offset: int = 0, limit: int = 1000) -> bytes:
    """``GET /switches``: a page of the switches as last reported."""
    rows = (
        {
            "dpid": f"{switch.dpid:016x}",
            "connected": switch.connected,
            "region": switch.region,
            "last_seen": plain(switch.last_seen) or None,
            "plan_version": switch.plan_version,
            "in_step": switch.in_step,
            "n_meters": switch.n_meters,
            "lost_polls": switch.lost_polls,
        }
        for switch in snapshot.switches[offset : offset + limit]
    )
    head = {"time": plain(snapshot.time), **_page(snapshot.switches, offset, limit)}
    return _with_list(head, "switches", rows)


def health(snapshot: Snapshot, now: float, stale_after_s: float, version: str) -> dict[str, Any]:
    """``GET /health``: the loop's own word, or ``stalled`` where its last tick is too old."""
    report = snapshot.health
    stalled = report.last_tick > 0 and now - report.last_tick > stale_after_s
    problems = list(report.problems)
    if stalled:
        problems.insert(0, f"no tick for {now - report.last_tick:.0f} s: the last plan stands")
    return {
        "status": "stalled" if stalled else report.status,
        "last_tick": plain(report.last_tick) or None,
        "tick_ms": plain(report.tick_ms),
        "ticks": report.ticks,
        "steps_ms": plain(report.steps_ms),
        "problems": problems,
        "version": version,
    }
