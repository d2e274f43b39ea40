"""What operators ask of traffic shapes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.loop import Planner
from planner.shaping import TrafficShape
from planner.snapshot import NotThere


@dataclass(frozen=True)
class ShapeView:
    """A traffic shape, and the users that it concerns now."""

    shape: TrafficShape
    users: tuple[str, ...]


class ShapeDesk:
    """For any thread. Writes return when they are stored; the next tick follows them."""

    def __init__(
        self, planner: Planner, written: Callable[[str], None], now: Callable[[], float] = time.time
    ) -> None:
        """``written`` is told in words what was changed; when it returns that is on disk."""
        self._planner = planner
        self._written = written
        self._now = now

    def all(self) -> tuple[ShapeView, ...]:
        """Those in force, by id."""
        shapes, users = self._planner.shapes.shapes, self._planner.shapes.users
        return tuple(ShapeView(shapes[one], users.get(one, ())) for one in sorted(shapes))

    def show(self, shape_id: str) -> ShapeView:
        """One of them. Raises NotThere."""
        own = self._planner.shapes
        shape = own.shapes.get(shape_id)
        if shape is None:
            raise NotThere(f"shapeID must be the id of a traffic shape, got {shape_id!r}")
        return ShapeView(shape, own.users.get(shape_id, ()))

    def put(self, shape: TrafficShape) -> tuple[ShapeView, bool]:
        """Take a shape, new or in place of one of the same id (none: one is made); and whether it is new.

        Raises Refused.
        """
        now, planner = self._now(), self._planner
        shape = replace(shape, id=shape.id or f"s-{secrets.token_hex(4)}", start=now)
        with planner.lock:
            new = planner.shapes.put(shape, now)
            planner.restructure()
        rates = f"{shape.addresses.first} to {shape.addresses.last}"
        self._written(f"traffic shape {shape.id} for {rates}, {shape.scope}")
        return self.show(shape.id), new

    def remove(self, shape_id: str) -> None:
        """End a shape now. Raises NotThere."""
        planner = self._planner
        with planner.lock:
            planner.shapes.remove(shape_id, self._now())
            planner.restructure()
        self._written(f"traffic shape {shape_id} removed")
