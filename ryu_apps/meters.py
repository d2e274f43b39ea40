"""What turns the meters a switch holds into those it shall hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ryu_apps.codec.messages import MeterCommand, meter_deletes, meter_mods
from ryu_apps.framework import U32

#: Rate in kbit/s and burst in kbit by meter id.
MeterRates = Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class MeterChanges:
    """What to send, in this order, with a barrier after each: lower, then raise and add; at last delete.

    A decrease frees what an increase will use, so a parent is never
    oversubscribed while the change is under way. Deletes wait until no flow entry
    uses the meter: a switch takes the entries away with it.
    """

    lower: tuple[int, ...] = ()
    raise_: tuple[int, ...] = ()
    add: tuple[int, ...] = ()
    delete: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lower or self.raise_ or self.add or self.delete)

    @property
    def modified(self) -> tuple[int, ...]:
        """Ids of the meters whose rate or burst changes in place."""
        return self.lower + self.raise_


def meter_changes(installed: MeterRates, wanted: MeterRates) -> MeterChanges:
    """The changes that turn ``installed`` into ``wanted``; meters are modified in place."""
    both = installed.keys() & wanted.keys()
    changed = sorted(meter for meter in both if installed[meter] != wanted[meter])
    return MeterChanges(
        lower=tuple(m for m in changed if wanted[m][0] <= installed[m][0]),
        raise_=tuple(m for m in changed if wanted[m][0] > installed[m][0]),
        add=tuple(sorted(wanted.keys() - installed.keys())),
        delete=tuple(sorted(installed.keys() - wanted.keys())),
    )


def write_meters(command: MeterCommand, meters: tuple[int, ...], wanted: MeterRates, xids: U32) -> bytes:
    """The meter-mods that add, modify or delete these meters, as one buffer."""
    if command is MeterCommand.DELETE:
        return meter_deletes(meters, xids)
    rates = np.array([wanted[meter] for meter in meters], np.int64).reshape(-1, 2)
    return meter_mods(command, meters, rates[:, 0], rates[:, 1], xids)
