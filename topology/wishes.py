"""What operators want of groups. It stands above whatever is discovered.

In this order: an operator's group has its members; a user pinned to a discovered group is in it; two users
that are forbidden a common group are never in one discovered group; the rest is discovery's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

GroupKind = Literal["discovered", "operator"]
GroupState = Literal["forming", "active", "dissolving"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class ResourceGroup:
    """Endpoints that share one pool. ``since`` is when ``state`` began, ``reason`` why."""

    id: str
    members: frozenset[str]
    kind: GroupKind
    state: GroupState
    since: float
    reason: str


@dataclass
class Wishes:
    """Operators' groups, users pinned to discovered groups, and pairs that must not meet."""

    groups: dict[str, ResourceGroup] = field(default_factory=dict)
    #: Group by user.
    pins: dict[str, str] = field(default_factory=dict)
    #: Whom each user must not meet; both ways.
    _apart: dict[str, set[str]] = field(default_factory=dict)

    @property
    def members(self) -> frozenset[str]:
        """Everybody who is in an operator's group."""
        return frozenset().union(*(group.members for group in self.groups.values()))

    @property
    def forbidden(self) -> tuple[Pair, ...]:
        """The forbidden pairs, each in order."""
        return tuple(sorted((a, b) for a, others in self._apart.items() for b in others if a < b))

    def apart(self, user: str) -> frozenset[str]:
        """Whom a user must not meet in a discovered group."""
        return frozenset(self._apart.get(user, ()))

    def forbid(self, one: str, other: str) -> None:
        """Keep two apart. Raises ValueError."""
        if one == other:
            raise ValueError(f"a forbidden pair must be two users, got {one!r} twice")
        pinned = self.pins.get(one)
        if pinned is not None and pinned == self.pins.get(other):
            raise ValueError(f"{one} and {other} must not both be pinned to {pinned}, to be kept apart")
        self._apart.setdefault(one, set()).add(other)
        self._apart.setdefault(other, set()).add(one)

    def allow(self, one: str, other: str) -> bool:
        """Take that back. False if the pair was not forbidden."""
        if other not in self._apart.get(one, ()):
            return False
        for a, b in ((one, other), (other, one)):
            self._apart[a].discard(b)
            if not self._apart[a]:
                del self._apart[a]
        return True

    def parted(self, community: frozenset[str], group_of: Mapping[str, str]) -> frozenset[str]:
        """A community without those who may not be in it together.

        Of a pair stays who is pinned, else who is in the group that most of the community is in, else who is
        in any group, else the first by name.
        """
        if community.isdisjoint(self._apart):
            return community
        homes = [group_of[member] for member in community if member in group_of]
        home = max(sorted(set(homes)), key=homes.count, default="")

        def claim(member: str) -> tuple[bool, bool, bool]:
            return member in self.pins, group_of.get(member, "-") == home, member in group_of

        out: set[str] = set()
        for one in sorted(community & self._apart.keys()):
            for other in sorted(self._apart[one] & community):
                if one < other and one not in out and other not in out:
                    out.add(one if claim(other) > claim(one) else other)
        return community - out

    def to_dict(self) -> dict[str, Any]:
        """The wishes as JSON-able values."""
        return {
            "operator": [
                {
                    "id": group.id,
                    "members": sorted(group.members),
                    "since": group.since,
                    "reason": group.reason,
                }
                for group in self.groups.values()
            ],
            "pins": dict(sorted(self.pins.items())),
            "forbidden": [list(pair) for pair in self.forbidden],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Wishes:
        """What ``to_dict`` gave; states of before there were pins and pairs have none."""
        wishes = cls(
            {str(item["id"]): _operator_group(item) for item in raw["operator"]},
            {str(user): str(group_id) for user, group_id in raw.get("pins", {}).items()},
        )
        for one, other in raw.get("forbidden", ()):
            wishes.forbid(str(one), str(other))
        return wishes


def _operator_group(item: Mapping[str, Any]) -> ResourceGroup:
    members, since = frozenset(item["members"]), float(item["since"])
    return ResourceGroup(str(item["id"]), members, "operator", "active", since, str(item["reason"]))


def check_members(groups: Iterable[ResourceGroup], group_id: str, members: frozenset[str]) -> None:
    """Whether an operator's group may have these members. Raises ValueError."""
    for other in groups:
        shared = other.members & members
        if other.id != group_id and shared:
            raise ValueError(f"groups.{group_id}.members must not hold {min(shared)}, it is in {other.id}")
