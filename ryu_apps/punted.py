"""What a packet that a switch sent to the controller tells, read from its first bytes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from ryu_apps.pipeline import ETH_ARP, ETH_IPV4, ETH_IPV6

_VLAN: Final = (0x8100, 0x88A8)


@dataclass(frozen=True)
class Punted:
    """Who sent the packet to whom. ``address`` is the sender's own, None where the packet names none."""

    src: str
    dst: str
    address: str | None


def read_punted(frame: bytes) -> Punted | None:
    """The sender, receiver and source address of an Ethernet frame; None if it is cut short."""
    if len(frame) < 14:
        return None
    eth_type, at = int.from_bytes(frame[12:14], "big"), 14
    while eth_type in _VLAN and len(frame) >= at + 4:
        eth_type, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + 4
    return Punted(_mac(frame[6:12]), _mac(frame[:6]), _address(eth_type, frame[at:]))


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _address(eth_type: int, payload: bytes) -> str | None:
    if eth_type == ETH_ARP:
        raw = payload[14:18]
        # A probe (RFC 5227) asks from 0.0.0.0: it claims nothing yet.
        return _ip(raw, 4)
    if eth_type == ETH_IPV4:
        return _ip(payload[12:16], 4)
    if eth_type == ETH_IPV6:
        return _ip(payload[8:24], 16)
    return None


def _ip(raw: bytes, length: int) -> str | None:
    if len(raw) != length:
        return None
    address = ipaddress.ip_address(raw)
    return None if address.is_unspecified or address.is_multicast else str(address)
