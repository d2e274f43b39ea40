"""Who is in which discovered group, and where the evidence finds everybody."""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from dataclasses import dataclass
from typing import Final

_NOBODY: Final[frozenset[str]] = frozenset()


class Places:
    """Each endpoint's group, and each group's members: one the other turned round.

    What nobody entered or left costs nothing to look at again: ``members`` gives the same object.
    """

    def __init__(self, group_of: Mapping[str, str] | None = None) -> None:
        self._group_of: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self._shown: dict[str, frozenset[str]] = {}
        for member, group_id in (group_of or {}).items():
            self.put(member, group_id)

    @property
    def group_of(self) -> Mapping[str, str]:
        """The group of each endpoint that is in one."""
        return self._group_of

    def groups(self) -> KeysView[str]:
        """The groups that somebody is in."""
        return self._members.keys()

    def members(self, group_id: str) -> frozenset[str]:
        """Who is in a group; nobody in one that is not known."""
        shown = self._shown.get(group_id)
        if shown is None:
            members = self._members.get(group_id)
            if members is None:
                return _NOBODY
            shown = self._shown[group_id] = frozenset(members)
        return shown

    def put(self, member: str, group_id: str) -> None:
        """Into this group, out of any other."""
        self.drop(member)
        self._group_of[member] = group_id
        self._members.setdefault(group_id, set()).add(member)
        self._shown.pop(group_id, None)

    def drop(self, member: str) -> str:
        """Out of its group: which that was, "" if it was in none."""
        group_id = self._group_of.pop(member, "")
        if group_id:
            self._shown.pop(group_id, None)
            self._members[group_id].discard(member)
            if not self._members[group_id]:
                del self._members[group_id]
        return group_id


@dataclass(frozen=True)
class Evidence:
    """Where endpoints are found now: by group, and by endpoint. No group is empty."""

    groups: Mapping[str, frozenset[str]]
    group_of: Mapping[str, str]

    def pinned(self, pins: Mapping[str, str]) -> Evidence:
        """The same with these users where they are pinned to, whatever was found of them."""
        if not pins:
            return self
        groups = dict(self.groups)
        for user, group_id in pins.items():
            found = self.group_of.get(user)
            if found is not None:
                groups[found] -= {user}
            groups[group_id] = groups.get(group_id, _NOBODY) | {user}
        filled = {group_id: members for group_id, members in groups.items() if members}
        return Evidence(filled, {**self.group_of, **pins})

    def differing(self, places: Places) -> set[str]:
        """Endpoints that are found elsewhere than they are, or are found or placed only."""
        found: set[str] = set()
        for group_id in self.groups.keys() | places.groups():
            here, there = places.members(group_id), self.groups.get(group_id, _NOBODY)
            if here != there:
                found |= here ^ there
        return found
