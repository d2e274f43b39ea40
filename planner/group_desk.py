"""What operators ask of groups: their own, pins and forbidden pairs, and what happened to any."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.loop import Planner
from planner.policy import Override
from planner.snapshot import NotThere, Refused, UnknownGroup
from topology.group_log import LoggedEvent
from topology.groups import ResourceGroup
from topology.wishes import Pair


@dataclass(frozen=True)
class Standing:
    """How discovery stands: who is pinned where, and how much may still change."""

    #: Discovered group by user.
    pins: dict[str, str]
    forbidden_pairs: tuple[Pair, ...]
    #: Memberships that discovery may still change within the hour, and members that are found elsewhere.
    churn_left: int
    waiting: int


class GroupDesk:
    """For any thread. Writes return when they are stored; the next tick follows them."""

    def __init__(
        self, planner: Planner, written: Callable[[str], None], now: Callable[[], float] = time.time
    ) -> None:
        """``written`` is told in words what was changed; when it returns that is on disk."""
        self._planner = planner
        self._written = written
        self._now = now

    # Operators' own groups.

    def create(self, group_id: str, members: Sequence[str], policy: dict[str, Any]) -> None:
        """See ``Operations.create_group``."""
        planner = self._planner
        with planner.lock:
            if any(group.id == group_id for group in planner.grouping.groups):
                raise Refused(f"groups.{group_id} must be a new id, got one that exists")
            override = Override().updated(policy)
            self._check_users(f"groups.{group_id}.members", members)
            planner.policies.check_override(group_id, frozenset(members), override)
            self._pin(group_id, members)
            planner.policies.overrides[group_id] = override
        self._written(f"group {group_id} created with {', '.join(members)}")

    def set_bandwidth(self, group_id: str, policy: dict[str, Any]) -> None:
        """See ``Operations.set_group_bandwidth``."""
        planner = self._planner
        with planner.lock:
            members = self._group(group_id).members
            override = planner.policies.overrides.get(group_id, Override()).updated(policy)
            planner.policies.check_override(group_id, members, override)
            planner.policies.overrides[group_id] = override
            planner.restructure()
        self._written(f"group {group_id} set to {policy}")

    def set_members(self, group_id: str, members: Sequence[str]) -> None:
        """Replace the members of an operator's group; who leaves may be discovered elsewhere.

        Raises UnknownGroup, Refused (the group is the file's or discovered, a member is unknown or in another
        operator's group, guarantees would not fit).
        """
        planner = self._planner
        with planner.lock:
            self._check_own(group_id, "set its members there")
            self._check_users(f"groups.{group_id}.members", members)
            override = planner.policies.overrides.get(group_id, Override())
            planner.policies.check_override(group_id, frozenset(members), override)
            self._pin(group_id, members)
        self._written(f"group {group_id} now has {', '.join(members)}")

    def delete(self, group_id: str) -> None:
        """Take an operator's group away, and what it was allowed. Raises UnknownGroup, Refused."""
        planner = self._planner
        with planner.lock:
            self._check_own(group_id, "delete it there")
            planner.grouping.unpin(group_id, self._now())
            planner.policies.overrides.pop(group_id, None)
            planner.restructure()
        self._written(f"group {group_id} deleted")

    # Pins and pairs.

    def standing(self) -> Standing:
        """Pins, pairs, and how much discovery may still change."""
        with self._planner.lock:
            tracker = self._planner.grouping.tracker
            return Standing(
                dict(tracker.member_pins),
                tracker.forbidden_pairs,
                tracker.churn_left(self._now()),
                tracker.waiting,
            )

    def pin(self, group_id: str, user: str) -> None:
        """Put a user into a discovered group for good. Raises UnknownGroup, Refused."""
        with self._planner.lock:
            self._check_users("user", [user])
            if self._group(group_id).kind == "operator":
                raise Refused(
                    f"groups.{group_id} must be a discovered group to pin to, set its members instead"
                )
            grouping = self._planner.grouping
            self._try(lambda: grouping.tracker.pin_member(group_id, user, self._now()))
        self._written(f"user {user} pinned to group {group_id}")

    def unpin(self, group_id: str, user: str) -> None:
        """Let discovery decide again where a user is. Raises NotThere."""
        with self._planner.lock:
            grouping = self._planner.grouping
            if not grouping.tracker.unpin_member(group_id, user, self._now()):
                raise NotThere(f"user must be one pinned to {group_id}, got {user!r}")
            self._changed()
        self._written(f"user {user} no longer pinned to group {group_id}")

    def forbid(self, one: str, other: str) -> None:
        """Keep two users out of a common discovered group. Raises Refused."""
        with self._planner.lock:
            self._check_users("users", [one, other])
            self._try(lambda: self._planner.grouping.tracker.forbid(one, other, self._now()))
        self._written(f"users {one} and {other} kept apart")

    def allow(self, one: str, other: str) -> None:
        """Take that back. Raises NotThere."""
        with self._planner.lock:
            if not self._planner.grouping.tracker.allow(one, other, self._now()):
                raise NotThere(f"users must be a forbidden pair, got {one!r} and {other!r}")
            self._changed()
        self._written(f"users {one} and {other} may meet")

    def events(self, group_id: str, since: int = 0) -> tuple[LoggedEvent, ...]:
        """What happened to a group after the event with this id, oldest first. Raises UnknownGroup.

        A group that is gone is known for as long as its events are kept.
        """
        with self._planner.lock:
            tracker = self._planner.grouping.tracker
            if not tracker.log(group_id):
                self._group(group_id)
            return tracker.log(group_id, since)

    def conversations(self, members: Collection[str]) -> dict[tuple[str, str], float]:
        """Who of these talks to whom of these, both ways together, bit/s of lately; names ascend in a pair."""
        planner = self._planner
        with planner.lock:
            # A view of its own: what is done with it need not hold the lock.
            view = planner.grouping.graph.view(self._now())
        wanted = np.array([name in members for name in view.endpoints], bool)
        rows = np.flatnonzero(wanted[view.src] & wanted[view.dst]) if len(view.src) else ()
        found: dict[tuple[str, str], float] = {}
        for row in rows:
            one, other = sorted((view.endpoints[view.src[row]], view.endpoints[view.dst[row]]))
            if one != other:
                found[one, other] = found.get((one, other), 0.0) + float(view.rate_bps[row])
        return found

    def _group(self, group_id: str) -> ResourceGroup:
        for group in self._planner.grouping.groups:
            if group.id == group_id:
                return group
        raise UnknownGroup(group_id)

    def _check_own(self, group_id: str, instead: str) -> None:
        group = self._group(group_id)
        if group.kind != "operator":
            raise Refused(
                f"groups.{group_id} must be an operator's group, it was found from traffic: pin members"
            )
        shape = self._planner.shapes.of_group(group_id)
        if shape is not None:
            raise Refused(f"groups.{group_id} must be no traffic shape's, it is {shape.id}'s: change that")
        if group_id not in self._planner.grouping.made_by_rest:
            raise Refused(
                f"groups.{group_id} must be made by REST, it is the configuration file's: {instead}"
            )

    def _check_users(self, path: str, users: Sequence[str]) -> None:
        for user in users:
            if user not in self._planner.config.users:
                raise Refused(f"{path} must be users, got {user!r}")

    def _pin(self, group_id: str, members: Sequence[str]) -> None:
        grouping = self._planner.grouping
        self._try(lambda: grouping.pin(group_id, members, self._now()))

    def _try(self, wish: Callable[[], object]) -> None:
        try:
            wish()
        except ValueError as error:
            raise Refused(str(error)) from None
        self._changed()

    def _changed(self) -> None:
        self._planner.grouping.regrouped()
        self._planner.restructure()
