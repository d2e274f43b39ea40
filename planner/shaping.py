"""Traffic shapes: what the users of a range of addresses may have, each of them or all together.

Values and arithmetic only; ``planner.shapes`` finds the users, ``planner.policy`` applies them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

from planner.policies import LAST_PRIORITY, NORMAL_PRIORITY, Pair, PoolPolicy

Scope = Literal["each", "together"]

#: The priority class that each class selector of DSCP stands for (RFC 4594), from CS0 to CS7.
_CLASS_OF_SELECTOR: Final = (NORMAL_PRIORITY, 6, 3, 3, 2, 1, 0, 0)
#: Lower effort (RFC 8622) shares its selector with the default, and is meant to come last.
_LOWER_EFFORT: Final = 1


def priority_of_dscp(dscp: int) -> int:
    """The priority class that traffic marked so is meant to have."""
    return LAST_PRIORITY if dscp == _LOWER_EFFORT else _CLASS_OF_SELECTOR[dscp >> 3]


@dataclass(frozen=True)
class AddressRange:
    """The addresses of one family from the first to the last, in canonical form."""

    first: str
    last: str

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """A prefix, ``first-last``, or one address. Raises ValueError."""
        first, dash, last = (part.strip() for part in text.partition("-"))
        try:
            if dash:
                low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
            else:
                prefix = ipaddress.ip_network(first)
                low, high = prefix[0], prefix[-1]
            if any("%" in str(one) for one in (low, high)):
                raise ValueError("zone")
        except ValueError:
            raise ValueError(
                "must be a prefix such as 10.1.0.0/16, without bits beyond its length, or first-last"
            ) from None
        if low.version != high.version or int(low) > int(high):
            raise ValueError("must have a first address that is not above the last, of one family")
        return cls(str(low), str(high))

    @property
    def size(self) -> int:
        """How many addresses it holds."""
        return _number(self.last)[1] - _number(self.first)[1] + 1

    def __contains__(self, address: str) -> bool:
        return _number(self.first) <= _number(address) <= _number(self.last)


@lru_cache(maxsize=1 << 16)
def _number(address: str) -> tuple[int, int]:
    parsed = ipaddress.ip_address(address)
    return parsed.version, int(parsed)


@dataclass(frozen=True)
class TrafficShape:
    """What the users of a range may have. None: unchanged. Rates are bit/s, upload and download."""

    id: str
    addresses: AddressRange
    #: ``each`` user by itself, or all of them ``together`` as one group.
    scope: Scope = "each"
    #: No more than this, whatever else is allowed.
    limit_bps: Pair | None = None
    #: In place of the users' own, or of the group's.
    guarantee_bps: Pair | None = None
    ceiling_bps: Pair | None = None
    weight: float | None = None
    priority: int | None = None
    #: Stands for the priority class of that marking where no priority is given. Packets are not marked.
    dscp: int | None = None
    #: Epoch seconds; the end is None for good.
    start: float = 0.0
    end: float | None = None
    reason: str = ""

    @property
    def group(self) -> str | None:
        """The id of the group that its users are; None where each is by itself."""
        return f"shape-{self.id}" if self.scope == "together" else None

    def over(self, below: PoolPolicy) -> PoolPolicy:
        """The policy with what this sets."""
        priority = self.priority
        if priority is None and self.dscp is not None:
            priority = priority_of_dscp(self.dscp)
        return PoolPolicy(
            below.guarantee_bps if self.guarantee_bps is None else self.guarantee_bps,
            below.ceiling_bps if self.ceiling_bps is None else self.ceiling_bps,
            below.weight if self.weight is None else self.weight,
            below.priority if priority is None else priority,
        )

    def within(self, policy: PoolPolicy) -> PoolPolicy:
        """The policy with no more than the limit, and no promise above its ceiling."""
        ceiling = policy.ceiling_bps
        if self.limit_bps is not None:
            ceiling = min(ceiling[0], self.limit_bps[0]), min(ceiling[1], self.limit_bps[1])
        guarantee = min(policy.guarantee_bps[0], ceiling[0]), min(policy.guarantee_bps[1], ceiling[1])
        return replace(policy, guarantee_bps=guarantee, ceiling_bps=ceiling)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> TrafficShape:
        """What ``dataclasses.asdict`` made, through JSON. Raises LookupError, TypeError, ValueError."""
        pairs = {
            name: None if raw[name] is None else (float(raw[name][0]), float(raw[name][1]))
            for name in ("limit_bps", "guarantee_bps", "ceiling_bps")
        }
        addresses = AddressRange(raw["addresses"]["first"], raw["addresses"]["last"])
        return cls(**{**raw, **pairs, "addresses": addresses})
