"""Answers encoded once a snapshot, however many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from planner.snapshot import Snapshot

#: Pages of the user level have many offsets; more than this are not kept.
MAX_ANSWERS: Final = 64


class EncodedAnswers:
    """The bytes of answers about the newest snapshot, made in a thread when first asked for.

    Snapshots are told apart by identity: they are never changed, only replaced.
    All who ask at the same time wait for the same encoding.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._answers: dict[Hashable, asyncio.Task[bytes]] = {}

    async def get(self, snapshot: Snapshot, key: Hashable, encode: Callable[[Snapshot], bytes]) -> bytes:
        """What ``encode`` makes of this snapshot. Raises what it raises."""
        if snapshot is not self._snapshot:
            self._snapshot, self._answers = snapshot, {}
        task = self._answers.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.pop(next(iter(self._answers)))
            task = asyncio.create_task(asyncio.to_thread(encode, snapshot))
            self._answers[key] = task
        # Shielded: a client that hangs up must not take the answer from the others.
        return await asyncio.shield(task)
