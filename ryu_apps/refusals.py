"""What a switch refused, by OpenFlow's own name, and which of our messages it was."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from ryu_apps.framework import ofproto_v1_3 as ofp

_METER_MOD: Final = struct.Struct("!BBHIHHI")


def _names() -> dict[tuple[int, int], str]:
    prefixes = {ofp.OFPET_METER_MOD_FAILED: "OFPMMFC_", ofp.OFPET_FLOW_MOD_FAILED: "OFPFMFC_"}
    return {
        (kind, getattr(ofp, name)): name
        for kind, prefix in prefixes.items()
        for name in dir(ofp)
        if name.startswith(prefix)
    }


_NAMES: Final = _names()


@dataclass(frozen=True)
class Refusal:
    """One error message, understood as far as it goes."""

    kind: int
    code: int
    xid: int
    #: Of the message that was refused, OFPT_*; None where the error does not carry it.
    message: int | None
    #: Of a meter-mod.
    command: int | None = None
    meter_id: int | None = None

    @property
    def of_a_meter(self) -> bool:
        """Whether a meter-mod was refused for what it says of the meter."""
        return bool(self.message == ofp.OFPT_METER_MOD and self.kind == ofp.OFPET_METER_MOD_FAILED)

    @property
    def of_an_entry(self) -> bool:
        """Whether a flow-mod was refused, be it for its meter."""
        return bool(self.message == ofp.OFPT_FLOW_MOD or self.kind == ofp.OFPET_FLOW_MOD_FAILED)

    def __str__(self) -> str:
        name = _NAMES.get((self.kind, self.code), f"error type {self.kind} code {self.code}")
        if self.meter_id is not None:
            return f"meter {self.meter_id}: {name}"
        return f"{'a flow entry' if self.of_an_entry else f'message {self.xid}'}: {name}"


def read_refusal(error: Any) -> Refusal:
    """The refusal in Ryu's error message."""
    data = bytes(error.data or b"")
    head = (int(error.type), int(error.code), int(error.xid))
    message = data[1] if len(data) > 1 else None
    if message == ofp.OFPT_METER_MOD and len(data) >= _METER_MOD.size:
        *_, command, _flags, meter_id = _METER_MOD.unpack_from(data)
        return Refusal(*head, message, command, meter_id)
    return Refusal(*head, message)
