"""A plan: which meters each switch shall hold, and whose packets go through them.

A plan is a value: immutable, versioned, timestamped. Rates change every tick;
the layout (which users are bound to which meters) changes when somebody
attaches, leaves or moves group, and travels only when it did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]

#: No meter: the stage lets the packet pass.
UNMETERED: Final = 0
#: Tables that a switch must have to meter application classes; with fewer it does without.
TABLES_FOR_APPLICATIONS: Final = 12


@dataclass(frozen=True)
class Binding:
    """One device of one user at one edge switch.

    The meter ids are the ones of the user itself and of its group, upload and
    download, and by number those of its application classes; 0 is all the rest of its traffic.
    """

    user: str
    mac: str
    port_no: int
    user_meter: tuple[int, int] = (UNMETERED, UNMETERED)
    group_meter: tuple[int, int] = (UNMETERED, UNMETERED)
    #: Class number, upload meter, download meter; empty: the user's traffic is metered as one.
    applications: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class MeterOwner:
    """Which pool a meter polices, in which direction (0 up, 1 down)."""

    meter_id: int
    pool: str
    direction: int


@dataclass(frozen=True)
class SwitchLayout:
    """What one switch needs to know besides rates."""

    bindings: tuple[Binding, ...] = ()
    owners: tuple[MeterOwner, ...] = ()
    #: The region's meters on this switch, upload and download.
    region_meter: tuple[int, int] = (UNMETERED, UNMETERED)
    #: MAC addresses whose packets the switch takes from none of its edge ports.
    isolated: tuple[str, ...] = ()
    #: Group meters here whose users are of another region by their address, and that region's meters.
    other_regions: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()


def _empty() -> U32:
    return np.empty(0, np.uint32)


@dataclass(frozen=True)
class MeterTable:
    """The meters of one switch, by rising id. All columns have shape (n_meters,)."""

    meter_id: U32 = field(default_factory=_empty)
    rate_kbps: U32 = field(default_factory=_empty)
    burst_kbit: U32 = field(default_factory=_empty)

    def __len__(self) -> int:
        return len(self.meter_id)

    def rates(self) -> dict[int, tuple[int, int]]:
        """Rate in kbit/s and burst in kbit by meter id."""
        rows = zip(self.meter_id.tolist(), self.rate_kbps.tolist(), self.burst_kbit.tolist(), strict=True)
        return {meter: (rate, burst) for meter, rate, burst in rows}


@dataclass(frozen=True)
class Plan:
    """What the switches shall hold from ``time`` on."""

    version: int = 0
    #: When it was decided, epoch seconds.
    time: float = 0.0
    #: ``live``; ``canary``: new in some regions only; ``shadow``: made and shown, not enforced.
    mode: str = "live"
    layout_version: int = 0
    layouts: dict[int, SwitchLayout] = field(default_factory=dict)
    meters: dict[int, MeterTable] = field(default_factory=dict)
    #: Switches that were out of reach when it was made. Their shares are taken into account: nobody waits for them.
    away: frozenset[int] = frozenset()

    def is_delayed(self, newest: Plan) -> bool:
        """Whether this is an earlier plan that arrives after ``newest``.

        A planner that lost its memory counts versions anew, but later; one
        whose clock was set back goes on counting.
        """
        return self.version < newest.version and self.time < newest.time


def encode_plan(plan: Plan, known_layout: int = -1) -> bytes:
    """The bytes that ``decode_plan`` reads; without the layout where it is known."""
    body: dict[str, Any] = {
        "version": plan.version,
        "time": plan.time,
        "mode": plan.mode,
        "layout_version": plan.layout_version,
        "meters": {
            dpid: [table.meter_id.tobytes(), table.rate_kbps.tobytes(), table.burst_kbit.tobytes()]
            for dpid, table in plan.meters.items()
        },
    }
    if plan.away:
        body["away"] = sorted(plan.away)
    if known_layout != plan.layout_version:
        body["layouts"] = {
            dpid: {
                "bindings": [_packed(binding) for binding in layout.bindings],
                "owners": [[o.meter_id, o.pool, o.direction] for o in layout.owners],
                "region_meter": list(layout.region_meter),
                "other_regions": [[list(group), list(region)] for group, region in layout.other_regions],
                "isolated": list(layout.isolated),
            }
            for dpid, layout in plan.layouts.items()
        }
    packed: bytes = msgpack.packb(body)
    return packed


def _packed(b: Binding) -> list[Any]:
    row: list[Any] = [b.user, b.mac, b.port_no, list(b.user_meter), list(b.group_meter)]
    # Left out where there is nothing to say, so that who does not know of classes can read it.
    return [*row, [list(one) for one in b.applications]] if b.applications else row


def decode_plan(body: bytes, known: Plan | None = None) -> Plan:
    """The plan in these bytes, its layout taken from ``known`` where it was left out.

    Raises
    ------
    ValueError : if the bytes are not a plan, or leave out a layout that is not known.
    """
    try:
        raw = msgpack.unpackb(body, strict_map_key=False)
        version = int(raw["layout_version"])
        if "layouts" in raw:
            layouts = {int(dpid): _layout(entry) for dpid, entry in raw["layouts"].items()}
        elif known is not None and known.layout_version == version:
            layouts = known.layouts
        else:
            raise ValueError(f"plan refers to layout {version}, which is not known here")
        return Plan(
            version=int(raw["version"]),
            time=float(raw["time"]),
            mode=str(raw["mode"]),
            layout_version=version,
            layouts=layouts,
            meters={int(dpid): _table(columns) for dpid, columns in raw["meters"].items()},
            away=frozenset(map(int, raw.get("away", ()))),
        )
    except (LookupError, TypeError, AttributeError, OverflowError, msgpack.UnpackException) as error:
        raise ValueError(f"plan is malformed: {error!r}") from None


def _layout(raw: dict[str, Any]) -> SwitchLayout:
    return SwitchLayout(
        bindings=tuple(
            Binding(
                user,
                mac,
                port_no,
                (um[0], um[1]),
                (gm[0], gm[1]),
                tuple((number, up, down) for rows in more for number, up, down in rows),
            )
            for user, mac, port_no, um, gm, *more in raw["bindings"]
        ),
        owners=tuple(MeterOwner(meter, pool, direction) for meter, pool, direction in raw["owners"]),
        region_meter=(raw["region_meter"][0], raw["region_meter"][1]),
        isolated=tuple(str(mac) for mac in raw.get("isolated", ())),
        other_regions=tuple(
            ((group[0], group[1]), (region[0], region[1])) for group, region in raw.get("other_regions", ())
        ),
    )


def _table(columns: list[bytes]) -> MeterTable:
    meter_id, rate_kbps, burst_kbit = (np.frombuffer(column, np.uint32) for column in columns)
    if not len(meter_id) == len(rate_kbps) == len(burst_kbit):
        raise ValueError("plan must have columns of one length in each meter table")
    return MeterTable(meter_id, rate_kbps, burst_kbit)
