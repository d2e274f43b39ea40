"""What turns the meters of one plan into those of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.plan import MeterTable, SwitchLayout


@dataclass(frozen=True)
class MeterChange:
    """One meter that is in one plan and not in the other, or has another rate or burst there."""

    dpid: int
    meter_id: int
    #: Path of the pool that it polices (after the change, if it is there then), and 0 for upload, 1 for
    #: download; None: nobody's.
    pool: str | None
    direction: int | None
    #: None: there is no such meter.
    before_kbps: int | None
    after_kbps: int | None
    before_burst_kbit: int | None
    after_burst_kbit: int | None

    @property
    def size_kbps(self) -> int:
        """How much it is."""
        return abs((self.after_kbps or 0) - (self.before_kbps or 0))


@dataclass(frozen=True)
class Meters:
    """The meters of all switches, and whose they are, by dpid."""

    tables: Mapping[int, MeterTable]
    layouts: Mapping[int, SwitchLayout]

    def owners(self, dpid: int) -> dict[int, tuple[str, int]]:
        """Pool and direction by meter id."""
        layout = self.layouts.get(dpid, SwitchLayout())
        return {owner.meter_id: (owner.pool, owner.direction) for owner in layout.owners}


def meter_changes(before: Meters, after: Meters) -> tuple[MeterChange, ...]:
    """Every meter that differs, the largest change first; a meter that another pool takes over differs."""
    found = []
    for dpid in before.tables.keys() | after.tables.keys():
        old, new = (one.tables.get(dpid, MeterTable()).rates() for one in (before, after))
        was, becomes = before.owners(dpid), after.owners(dpid)
        for meter in old.keys() | new.keys():
            (rate, burst), (rate_after, burst_after) = old.get(meter, _NONE), new.get(meter, _NONE)
            if (rate, burst, was.get(meter)) != (rate_after, burst_after, becomes.get(meter)):
                pool, direction = becomes.get(meter) or was.get(meter) or _NONE
                found.append(MeterChange(dpid, meter, pool, direction, rate, rate_after, burst, burst_after))
    return tuple(sorted(found, key=lambda one: (-one.size_kbps, one.dpid, one.meter_id)))


_NONE = (None, None)
