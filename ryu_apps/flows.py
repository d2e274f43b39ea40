"""Flow entries on the wire, and what turns the entries a switch holds into those it shall hold.

An entry's cookie carries a digest of its content, so the two sets are compared
by cookies alone, which every statistics reply brings along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from planner.plan import UNMETERED
from ryu_apps.cookies import Kind, content_digest, pack_cookie
from ryu_apps.framework import offline_datapath, ofproto_v1_3, ofproto_v1_3_parser
from ryu_apps.pipeline import PUNT_BYTES, FlowEntry

_OFFLINE = offline_datapath()
#: Bytes of an ofp_flow_mod before its match (OpenFlow 1.3.5, 7.3.4.1), and where its cookie stands.
_BEFORE_MATCH = 48
_COOKIE_AT = 8


@dataclass(frozen=True)
class WireEntry:
    """A flow entry ready to be sent: its cookie and the flow-mod that adds it (transaction id 0)."""

    cookie: int
    add: bytes


@lru_cache(maxsize=1 << 18)
def wire_entry(entry: FlowEntry) -> WireEntry:
    """The entry on the wire. Remembered, since most entries are the same from one change to the next."""
    ofp, parser = ofproto_v1_3, ofproto_v1_3_parser
    instructions = []
    if entry.meter_id != UNMETERED:
        instructions.append(parser.OFPInstructionMeter(entry.meter_id, ofp.OFPIT_METER))
    outputs = [parser.OFPActionOutput(port) for port in entry.output]
    if entry.to_controller:
        outputs.append(parser.OFPActionOutput(ofp.OFPP_CONTROLLER, PUNT_BYTES))
    if outputs:
        instructions.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, outputs))
    if entry.write_metadata is not None:
        instructions.append(parser.OFPInstructionWriteMetadata(*entry.write_metadata))
    if entry.goto_table is not None:
        instructions.append(parser.OFPInstructionGotoTable(entry.goto_table))
    message = parser.OFPFlowMod(
        _OFFLINE,
        table_id=entry.table_id,
        priority=entry.priority,
        idle_timeout=entry.idle_timeout_s,
        # Otherwise a replaced entry keeps its counters but not its age, and what it
        # counted in hours would look like the rate of a second.
        flags=ofp.OFPFF_RESET_COUNTS,
        match=parser.OFPMatch(**dict(entry.match)),
        instructions=instructions,
    )
    message.set_xid(0)
    message.serialize()
    raw = bytearray(message.buf)
    match_bytes = int.from_bytes(raw[_BEFORE_MATCH + 2 : _BEFORE_MATCH + 4], "big")
    content_at = _BEFORE_MATCH + (match_bytes + 7) // 8 * 8
    digest = content_digest(
        entry.table_id, entry.priority, bytes(raw[_BEFORE_MATCH:content_at]), bytes(raw[content_at:])
    )
    cookie = pack_cookie(entry.kind, entry.series, digest)
    raw[_COOKIE_AT : _COOKIE_AT + 8] = cookie.to_bytes(8, "big")
    return WireEntry(cookie, bytes(raw))


def delete_by_cookie(cookie: int, mask: int = 0xFFFF_FFFF_FFFF_FFFF) -> bytes:
    """The flow-mod (transaction id 0) that deletes the entries of one cookie, or of a masked set."""
    ofp, parser = ofproto_v1_3, ofproto_v1_3_parser
    message = parser.OFPFlowMod(
        _OFFLINE,
        cookie=cookie,
        cookie_mask=mask,
        table_id=ofp.OFPTT_ALL,
        command=ofp.OFPFC_DELETE,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
    )
    message.set_xid(0)
    message.serialize()
    return bytes(message.buf)


@dataclass(frozen=True)
class FlowChanges:
    """What to send, in this order: the adds, a barrier, the deletes.

    An entry whose content changed is replaced by its add, so there is no moment without it.
    """

    add: tuple[WireEntry, ...] = ()
    #: Cookies.
    delete: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


def flow_changes(installed: Iterable[int], wanted: Mapping[int, WireEntry]) -> FlowChanges:
    """What turns the entries with the ``installed`` cookies into those that are ``wanted``, by cookie.

    Accounting entries come and go by themselves and entries of others are not ours to touch.
    """
    held = {cookie for cookie in installed if cookie >> 60 not in (0, Kind.ACCOUNTING)}
    return FlowChanges(
        add=tuple(entry for cookie, entry in wanted.items() if cookie not in held),
        delete=tuple(sorted(held - wanted.keys())),
    )
