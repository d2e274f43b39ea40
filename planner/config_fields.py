"""What single values of the configuration may look like: rates, dpids, MACs, addresses, ports, names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

MEGA = 1e6
#: Pools of this name hold the users that belong to no group.
UNGROUPED = "ungrouped"

#: Names of regions, users, groups and applications.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"
#: A rate above this is bit/s or kbit/s written where Mbit/s belong.
MAX_MBPS = 1e7
#: Beyond these weights a share is nothing or all, and a slip of the keyboard.
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6


def number(value: object) -> object:
    """Pydantic would take ``true`` for 1 and ``"5"`` for 5; an operator meant something else."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Fraction = Annotated[float, BeforeValidator(number), Field(ge=0, le=1)]
Positive = Annotated[float, BeforeValidator(number), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(number), Field(ge=0, allow_inf_nan=False)]
Port = Annotated[int, BeforeValidator(number), Field(ge=0, le=65535)]


def parse_dpid(value: object) -> int:
    """The datapath id that a number, ``0x1a`` or 16 hexadecimal digits name."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a datapath id")
    if isinstance(value, str):
        text = value.strip().lower().removeprefix("0x").replace(":", "")
        if not re.fullmatch(r"[0-9a-f]{1,16}", text):
            raise ValueError("must be a datapath id of at most 16 hexadecimal digits")
        value = int(text, 16)
    if not 0 < value < 1 << 64:
        raise ValueError("must be a datapath id of 1 to 64 bits")
    return value


def parse_mac(value: object) -> str:
    """A unicast MAC address in lower case with colons."""
    text = str(value).strip().lower().replace("-", ":")
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text):
        raise ValueError("must be a MAC address such as 00:00:00:00:00:01")
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise ValueError("must be a unicast MAC address")
    return text


def parse_address(value: object) -> str:
    """An IPv4 or IPv6 address in canonical form."""
    try:
        address = ipaddress.ip_address(str(value).strip())
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None
    if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
        raise ValueError("must be the address of one host, without a zone")
    return str(address)


def parse_prefix(value: object) -> str:
    """An IPv4 or IPv6 prefix in canonical form."""
    try:
        return str(ipaddress.ip_network(str(value).strip()))
    except ValueError:
        raise ValueError("must be a prefix such as 10.1.0.0/16, without bits beyond its length") from None


def parse_ports(value: object) -> tuple[int, int]:
    """First and last port of ``443`` or ``"8000-8100"``."""
    match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", str(value))
    if not match:
        raise ValueError('must be a port or a range such as "8000-8100"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last < 65536:
        raise ValueError("must be ports from 1 to 65535, the first not above the last")
    return first, last


def both_directions(value: object) -> object:
    """A rate given as one number, written out for upload and download."""
    return value if isinstance(value, Mapping | BaseModel) else {"up": value, "down": value}


Dpid = Annotated[int, BeforeValidator(parse_dpid)]
Mac = Annotated[str, BeforeValidator(parse_mac)]
Address = Annotated[str, BeforeValidator(parse_address)]
Prefix = Annotated[str, BeforeValidator(parse_prefix)]
PortRange = Annotated[tuple[int, int], BeforeValidator(parse_ports)]
