"""What a worker makes of the traffic graph: communities, roles, and which of the two are the groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from topology.communities import Communities, follow_communities
from topology.matching import match_by_overlap
from topology.roles import Role, find_roles
from topology.traffic import TrafficView

By = Literal["communities", "roles", "auto"]
Kind = Literal["application", "role"]

#: Communities that shorten the description of the traffic by less than this part tell nothing.
LEAST_STRUCTURE: Final = 0.02
#: Roles that share less than this part of their members (of both together) are not the same.
_SAME_ROLE: Final = 0.25


@dataclass(frozen=True)
class Findings:
    """What was found; ``kind`` says what groups are to be made of."""

    communities: Communities
    roles: tuple[Role, ...]
    kind: Kind

    @property
    def partition(self) -> tuple[frozenset[str], ...]:
        """The endpoints of each group to be."""
        if self.kind == "role":
            return tuple(role.members for role in self.roles)
        return self.communities.groups()


def findings_of(view: TrafficView, last: Communities | None = None, by: By = "communities") -> Findings:
    """The communities, near to the last ones, and the roles: the errand of a worker."""
    edges = view.endpoints, view.src, view.dst
    communities = follow_communities(last, *edges, view.rate_bps)
    roles = find_roles(*edges, view.app, view.rate_bps).described()
    return Findings(communities, roles, _kind(by, communities, roles))


def _kind(by: By, communities: Communities, roles: Sequence[Role]) -> Kind:
    if by == "auto":
        return "role" if roles and communities.structure < LEAST_STRUCTURE else "application"
    return "role" if by == "roles" else "application"


@dataclass(frozen=True)
class NamedRole:
    """A role under an id that it keeps while most of its members stay."""

    id: str
    role: Role


@dataclass(frozen=True)
class RoleBook:
    """The roles by id, the oldest first. Numbers are not used twice."""

    roles: tuple[NamedRole, ...] = ()
    next_number: int = 1

    def follow(self, found: Collection[Role]) -> RoleBook:
        """The same roles as they are found now, and new ones for those that resemble none."""
        listed = list(found)
        before = [(named.id, named.role.members) for named in self.roles]
        matched = match_by_overlap(before, [role.members for role in listed], _SAME_ROLE)
        age = {named.id: place for place, named in enumerate(self.roles)}
        kept = [NamedRole(role_id, listed[index]) for index, role_id in matched.items()]
        kept.sort(key=lambda named: age[named.id])
        new = [role for index, role in enumerate(listed) if index not in matched]
        added = [NamedRole(f"role-{number}", role) for number, role in enumerate(new, self.next_number)]
        return replace(self, roles=(*kept, *added), next_number=self.next_number + len(new))
