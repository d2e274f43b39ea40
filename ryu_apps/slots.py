"""Which meters of a switch stand for which of a plan's.

The plan counts meters from 1. A switch may have its own from a later id on, and one that
cannot modify a meter gets two ids for each: the new setting is added under the
one that is free, the entries are pointed at it, and the old one goes. So no packet goes
unmetered, and it is read from the switch itself which of the two is in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from planner.plan import UNMETERED
from ryu_apps.framework import U32
from ryu_apps.meters import MeterSetting, Settings


@dataclass(frozen=True)
class Placement:
    """The meters that a switch shall hold, by their ids there."""

    settings: dict[int, MeterSetting] = field(default_factory=dict)
    #: Id on the switch by the plan's; those without room are absent.
    id_of: dict[int, int] = field(default_factory=dict)
    #: Those that entries shall use in place of another that is there and lets more through.
    tighter: tuple[int, ...] = ()


@dataclass(frozen=True)
class Slots:
    """The ids of one switch's meters."""

    first: int = 1
    #: From a meter's id to its other one; 0: it has none, and is modified in place.
    spare: int = 0
    #: Of the plan's meters, how many there is room for.
    budget: int = 0

    def owns(self, meter_id: int) -> bool:
        """Whether a meter on the switch is Tidegate's."""
        return meter_id >= self.first

    def place(
        self,
        installed: Settings,
        wanted: Settings,
        is_met: Callable[[MeterSetting, MeterSetting], bool],
    ) -> Placement:
        """Where the plan's meters go, given what the switch holds."""
        if not self.spare:
            shift = self.first - 1
            # What an earlier plan put beyond the budget is refused by the switch, not by us.
            return Placement(
                {meter + shift: setting for meter, setting in wanted.items()} if shift else dict(wanted),
                {meter: meter + shift for meter in wanted},
            )
        settings, id_of, tighter = {}, {}, []
        for meter, setting in wanted.items():
            if meter > self.budget:
                continue
            here, other = (self.first - 1 + meter + step for step in (0, self.spare))
            held = [slot for slot in (here, other) if slot in installed]
            met = [slot for slot in held if is_met(setting, installed[slot])]
            free = [slot for slot in (here, other) if slot not in installed]
            if met:
                slot, content = met[0], installed[met[0]]
            elif free:
                slot, content = free[0], setting
            else:
                # Both taken by what is no longer wanted: one is given up first, the tighter one stays.
                slot = min(held, key=lambda held_id: installed[held_id].limit_kbps)
                content = installed[slot]
            if any(content.limit_kbps <= installed[old].limit_kbps for old in held if old != slot):
                tighter.append(slot)
            settings[slot], id_of[meter] = content, slot
        return Placement(settings, id_of, tuple(tighter))

    def plan_ids(self, on_switch: U32) -> U32:
        """The plan's ids of these meters, shape (n,); UNMETERED for others' meters."""
        number = on_switch.astype(np.int64) - (self.first - 1)
        if self.spare:
            number = np.where(number > self.spare, number - self.spare, number)
        return np.where(number > 0, number, UNMETERED).astype(np.uint32)
