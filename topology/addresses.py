"""One spelling for each MAC and IP address, and which of them can name a host."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@lru_cache(maxsize=262_144)
def canonical_mac(text: str) -> str:
    """The MAC in lower case with colons.

    Raises
    ------
    ValueError : if the text is not six octets.
    """
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"mac must be six octets such as 02:00:00:00:00:01, got {text!r}")
    return mac


@lru_cache(maxsize=262_144)
def canonical_address(text: str) -> str:
    """The IPv4 or IPv6 address in its shortest form; an IPv4-mapped IPv6 address as IPv4.

    Raises
    ------
    ValueError : if the text is not an address.
    """
    address = ipaddress.ip_address(text.strip())
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def host_mac(text: str) -> str | None:
    """The canonical MAC if it can be a host's: not multicast, not zero, not malformed."""
    try:
        mac = canonical_mac(text)
    except ValueError:
        return None
    is_group_address = int(mac[:2], 16) & 1
    return None if is_group_address or mac == "00:00:00:00:00:00" else mac


@lru_cache(maxsize=262_144)
def host_address(text: str) -> str | None:
    """The canonical address if it can be a host's.

    Not so: unspecified (a DHCP client, an ARP probe), multicast, loopback,
    broadcast and other reserved IPv4, malformed.
    """
    try:
        address = ipaddress.ip_address(canonical_address(text))
    except ValueError:
        return None
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return None
    if address.version == 4 and address.is_reserved:
        return None
    return str(address)
