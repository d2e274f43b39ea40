"""What the configuration says of the network itself: link capacities, damping, learnt bindings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from planner.config_block import Block
from planner.config_fields import MAX_MBPS, Positive, number, parse_dpid
from topology.damping import DampingRules


def parse_port_of_switch(value: object) -> str:
    """``DPID/PORT`` with the dpid in 16 digits."""
    match = re.fullmatch(r"\s*([^/\s]+)/(\d{1,10})\s*", str(value))
    if not match or not 0 < int(match[2]) <= 0xFFFFFF00:
        raise ValueError("must be a switch's port such as 0x11/3")
    dpid = int(match[1]) if match[1].isdecimal() and len(match[1]) < 16 else parse_dpid(match[1])
    return f"{dpid:016x}/{int(match[2])}"


class CableCapacity(Block):
    """What a cable between two switches carries, where its ports do not say or say too much."""

    a: Annotated[str, BeforeValidator(parse_port_of_switch)] = Field(description="one end, DPID/PORT")
    b: Annotated[str, BeforeValidator(parse_port_of_switch)] = Field(description="the other end, DPID/PORT")
    capacity_mbps: Positive = Field(le=MAX_MBPS, description="each way, Mbit/s")

    @property
    def ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Dpid and port of both ends."""
        one, other = ((int(dpid, 16), int(port)) for dpid, port in (self.a.split("/"), self.b.split("/")))
        return one, other


class Topology(Block):
    """How the network is followed."""

    flap_half_life_s: Positive = Field(
        default=15.0, description="after which a link's penalty for going down has halved"
    )
    flaps: Annotated[int, BeforeValidator(number), Field(ge=2, le=8)] = Field(
        default=3,
        description="so often down within about that time, and a link is not used if there is another way",
    )
    events_kept: Annotated[int, BeforeValidator(number), Field(ge=1, le=100_000)] = Field(
        default=1000, description="changes of the network kept, the newest ones"
    )
    learned_ttl_s: Positive = Field(
        default=86_400.0, description="a user's card that was learnt by its address is forgotten after"
    )

    @property
    def damping(self) -> DampingRules:
        """How links that flap are held down."""
        return DampingRules(self.flap_half_life_s, hold_above=self.flaps - 1.0)
