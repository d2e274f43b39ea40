"""Which ports lead to other switches, found by LLDP.

A port that came up is *pending*: it carries nothing until it has been quiet for
a while (then hosts may be on it) or a probe arrived through it (then it leads
to a switch). So no loop closes before discovery has seen it.

Pure: frames and events in, a new state out, ``now`` an argument.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, field
from typing import Final

from topology.network import Link

PortKey = tuple[int, int]

_LLDP_MULTICAST: Final = bytes.fromhex("0180c200000e")
_ETH_LLDP: Final = b"\x88\xcc"
#: Organisationally specific TLV under a locally administered identifier.
_OUI: Final = b"\x02tg"
_TTL_S: Final = 120
_DIGEST_BYTES: Final = 16


def probe(dpid: int, port_no: int, mac: bytes, key: bytes) -> bytes:
    """The LLDP frame that says from which port of which switch it left.

    It is signed, since hosts can send LLDP too and could pretend to be a link.
    """
    body = struct.pack("!QI", dpid, port_no)
    tlvs = (
        _tlv(1, b"\x07" + f"{dpid:016x}".encode())  # chassis id, locally assigned
        + _tlv(2, b"\x07" + str(port_no).encode())  # port id, locally assigned
        + _tlv(3, struct.pack("!H", _TTL_S))
        + _tlv(127, _OUI + b"\x01" + body + _sign(body, key))
        + _tlv(0, b"")
    )
    return _LLDP_MULTICAST + mac + _ETH_LLDP + tlvs


def read_probe(frame: bytes, key: bytes) -> PortKey | None:
    """The switch and port that a frame says it left; None where it is not a probe of ours."""
    if frame[12:14] != _ETH_LLDP:
        return None
    at = 14
    while at + 2 <= len(frame):
        head = int.from_bytes(frame[at : at + 2], "big")
        kind, length = head >> 9, head & 0x1FF
        value = frame[at + 2 : at + 2 + length]
        at += 2 + length
        if kind == 0:
            break
        if kind == 127 and value[:4] == _OUI + b"\x01" and len(value) == 4 + 12 + _DIGEST_BYTES:
            body, signature = value[4:16], value[16:]
            if hmac.compare_digest(signature, _sign(body, key)):
                dpid, port_no = struct.unpack("!QI", body)
                return dpid, port_no
    return None


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(value)) + value


def _sign(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_DIGEST_BYTES]


@dataclass
class Discovery:
    """Ports by role, and the links between them.

    ``settle_s`` is how long a new port stays pending, ``link_timeout_s`` how
    long a link lives without a probe.
    """

    settle_s: float
    link_timeout_s: float
    _pending: dict[PortKey, float] = field(default_factory=dict)
    _edges: set[PortKey] = field(default_factory=set)
    _link_ports: set[PortKey] = field(default_factory=set)
    _heard: dict[Link, float] = field(default_factory=dict)

    def port_up(self, dpid: int, port_no: int, now: float, afresh: bool = False) -> None:
        """A port came up. One whose role is known keeps it, unless it is to be found ``afresh``."""
        key = (dpid, port_no)
        if afresh:
            self.port_down(dpid, port_no)
        if key not in self._edges and key not in self._link_ports:
            self._pending.setdefault(key, now)

    def port_down(self, dpid: int, port_no: int) -> None:
        """A port went down or away: its role and its links with it."""
        key = (dpid, port_no)
        self._pending.pop(key, None)
        self._edges.discard(key)
        self._link_ports.discard(key)
        for link in [link for link in self._heard if key in _ends(link)]:
            del self._heard[link]

    def heard(self, source: PortKey, at: PortKey, now: float) -> bool:
        """A probe from ``source`` came in ``at``. True if that changed what is known."""
        link = Link(*source, *at)
        known = link in self._heard
        self._heard[link] = now
        moved = [other for other in self._heard if other != link and _shares_end(other, link)]
        for other in moved:
            del self._heard[other]
        for key in _ends(link):
            known &= key in self._link_ports
            self._pending.pop(key, None)
            self._edges.discard(key)
            self._link_ports.add(key)
        return not known or bool(moved)

    def advance(self, now: float, connected: frozenset[int]) -> bool:
        """Let time pass. True if a port became an edge or a link died.

        A link to a switch whose control channel is lost is not probed, so
        its silence means nothing: the data plane may well be alive.
        """
        quiet = [key for key, since in self._pending.items() if now - since >= self.settle_s]
        for key in quiet:
            del self._pending[key]
            self._edges.add(key)
        dead = [
            link
            for link, heard_at in self._heard.items()
            if now - heard_at > self.link_timeout_s and {link.src_dpid, link.dst_dpid} <= connected
        ]
        for link in dead:
            # Its ports stay link ports until they go down: no host is behind a dead link.
            del self._heard[link]
        return bool(quiet or dead)

    def reprieve(self, dpid: int, now: float) -> None:
        """A switch is back: its links get a whole time-out to be heard again."""
        for link in self._heard:
            if dpid in (link.src_dpid, link.dst_dpid):
                self._heard[link] = now

    def forget(self, dpid: int) -> None:
        """Drop all that is known of a switch."""
        for key in [k for k in (*self._pending, *self._edges, *self._link_ports) if k[0] == dpid]:
            self.port_down(*key)

    @property
    def links(self) -> frozenset[Link]:
        """Every direction of every link that is alive."""
        return frozenset(self._heard)

    def settled(self, dpid: int) -> bool:
        """Whether no port of the switch is pending."""
        return not any(key[0] == dpid for key in self._pending)

    def edge_ports(self, dpid: int) -> tuple[int, ...]:
        """Ports where hosts may be, ascending."""
        return tuple(sorted(no for of, no in self._edges if of == dpid))

    def link_ports(self, dpid: int) -> tuple[int, ...]:
        """Ports that lead to switches, those of dead links included, ascending."""
        return tuple(sorted(no for of, no in self._link_ports if of == dpid))

    def is_edge(self, dpid: int, port_no: int) -> bool:
        """Whether a host may be on this port."""
        return (dpid, port_no) in self._edges

    def is_pending(self, dpid: int, port_no: int) -> bool:
        """Whether it is not known yet what is on this port."""
        return (dpid, port_no) in self._pending


def _ends(link: Link) -> tuple[PortKey, PortKey]:
    return (link.src_dpid, link.src_port), (link.dst_dpid, link.dst_port)


def _shares_end(one: Link, other: Link) -> bool:
    """Whether two links cannot both be: a port has one cable."""
    if one == other.reverse:
        return False
    return bool(set(_ends(one)) & set(_ends(other)))
