"""The traffic shapes in force, and whom they concern: users come into a range and leave it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from planner.fleet import Fleet
from planner.grouping import Grouping
from planner.policy import Policies
from planner.shaping import TrafficShape
from planner.snapshot import NotThere, Refused

LOG = logging.getLogger("tidegate.planner")

MAX_SHAPES: Final = 1000


@dataclass
class Shapes:
    """All traffic shapes. Writers hold the planner's lock; readers need none: mappings are replaced, not changed."""

    policies: Policies
    grouping: Grouping
    fleet: Fleet
    shapes: dict[str, TrafficShape] = field(default_factory=dict)
    #: The users of each shape, by its id.
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: What ``users`` was found from: other objects mean that it may be out of date.
    found_for: tuple[object, ...] = ()

    def step(self, now: float) -> bool:
        """End what is over, and follow the users. True if groups changed."""
        over = [shape for shape in self.shapes.values() if shape.end is not None and shape.end <= now]
        self.shapes = {name: one for name, one in self.shapes.items() if one not in over}
        for shape in over:
            self._disband(shape, now)
            LOG.info("traffic shape %s is over", shape.id)
        seen = (self.fleet.resolution, self.fleet.bindings.index)
        if over or len(self.found_for) != len(seen) or any(map(_differ, self.found_for, seen)):
            self.found_for = seen
            return self._place(now) or bool(over)
        return False

    def put(self, shape: TrafficShape, now: float) -> bool:
        """Take a shape, in place of one of the same id. True if there was none.

        Raises
        ------
        Refused : if it is over, its users' guarantees would not fit, or it would make a group of nobody, or of
            those who are in a group of an operator's.
        """
        path = f"trafficShapes.{shape.id}"
        if shape.end is not None and shape.end <= now:
            raise Refused(f"{path}.until must be in the future, got {shape.end:.0f}")
        if shape.id not in self.shapes and len(self.shapes) >= MAX_SHAPES:
            raise Refused(f"trafficShapes must be at most {MAX_SHAPES}, got one more")
        users = self._within(shape)
        if shape.group is not None:
            self._check_group(path, shape.group, users)
        self.policies.check_shape(shape, users)
        before = self.shapes.get(shape.id)
        if before is not None and before.group != shape.group:
            self._disband(before, now)
        self.shapes = {**self.shapes, shape.id: shape}
        self._place(now)
        return before is None

    def remove(self, shape_id: str, now: float) -> None:
        """End a shape now. Raises NotThere."""
        shape = self.shapes.get(shape_id)
        if shape is None:
            raise NotThere(f"shapeID must be the id of a traffic shape, got {shape_id!r}")
        self.shapes = {name: one for name, one in self.shapes.items() if name != shape_id}
        self._disband(shape, now)
        self._place(now)

    def restore(self, shapes: Mapping[str, TrafficShape]) -> None:
        """What an earlier planner held; ``step`` finds the users."""
        self.shapes, self.found_for = dict(shapes), ()

    def of_group(self, group_id: str) -> TrafficShape | None:
        """The shape whose users make up this group."""
        return next((shape for shape in self.shapes.values() if shape.group == group_id), None)

    def _check_group(self, path: str, group_id: str, users: tuple[str, ...]) -> None:
        if not users:
            raise Refused(f"{path}.addresses must hold a user's now for scope together, got none")
        for group in self.grouping.groups:
            conflicts = sorted(group.members & set(users)) if group.kind == "operator" else []
            if conflicts and group.id != group_id:
                raise Refused(
                    f"{path}.addresses must hold users of no other operator's group for scope together, "
                    f"got {conflicts[0]} of {group.id}"
                )

    def _disband(self, shape: TrafficShape, now: float) -> None:
        if shape.group is not None:
            self.grouping.unpin(shape.group, now)

    def _place(self, now: float) -> bool:
        """Find the users of every shape and tell the policies. True if a group has other members."""
        addresses = self._addresses()
        self.users = {shape.id: _inside(shape, addresses) for shape in self.shapes.values()}
        changed = False
        groups = {}
        by_user: dict[str, tuple[TrafficShape, ...]] = {}
        # The narrower the range, the later: its values stand over those of a wider one.
        for shape in sorted(self.shapes.values(), key=lambda one: (-one.addresses.size, one.start, one.id)):
            if shape.group is None:
                for user in self.users[shape.id]:
                    by_user[user] = (*by_user.get(user, ()), shape)
            else:
                groups[shape.group] = shape
                changed |= self._gather(shape.group, self.users[shape.id], now)
        self.policies.shape(by_user, groups)
        return changed

    def _gather(self, group_id: str, users: Iterable[str], now: float) -> bool:
        """Make these users, but for those in other operators' groups, the members of a shape's group."""
        operators = [group for group in self.grouping.groups if group.kind == "operator"]
        taken = {user for group in operators if group.id != group_id for user in group.members}
        wanted = frozenset(users) - taken
        present = next((group.members for group in operators if group.id == group_id), frozenset())
        # Whoever has left the network is still meant: an empty group would be none.
        if not wanted or wanted == present:
            return False
        self.grouping.pin(group_id, sorted(wanted), now)
        return True

    def _within(self, shape: TrafficShape) -> tuple[str, ...]:
        return _inside(shape, self._addresses())

    def _addresses(self) -> dict[str, set[str]]:
        """Each user's addresses: bound to it, and of its devices on the network."""
        found: dict[str, set[str]] = {}
        for address, user in self.fleet.bindings.index.by_address.items():
            found.setdefault(user, set()).add(address)
        for user, devices in self.fleet.attachments.items():
            for device in devices:
                found.setdefault(user, set()).update(device.addresses)
        return found


def _inside(shape: TrafficShape, addresses: Mapping[str, set[str]]) -> tuple[str, ...]:
    return tuple(
        sorted(user for user, own in addresses.items() if any(one in shape.addresses for one in own))
    )


def _differ(one: object, other: object) -> bool:
    return one is not other
