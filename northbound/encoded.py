"""Answers encoded once a snapshot, however many ask."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Hashable
from typing import Final

from planner.snapshot import Snapshot

#: Pages of the user level have many offsets; more than this are not kept.
MAX_ANSWERS: Final = 64

_Answers = dict[Hashable, asyncio.Task[bytes]]


class EncodedAnswers:
    """The bytes of answers about the newest snapshot, made in a thread when first asked for.

    Snapshots are told apart by identity: they are never changed, only replaced. Callers who see
    different parts of one have one each. All who ask at the same time wait for the same encoding.
    """

    def __init__(self) -> None:
        #: By the snapshot's identity; what nobody holds any more goes with its answers.
        self._answers: dict[int, tuple[weakref.ref[Snapshot], _Answers]] = {}

    async def get(self, snapshot: Snapshot, key: Hashable, encode: Callable[[Snapshot], bytes]) -> bytes:
        """What ``encode`` makes of this snapshot. Raises what it raises."""
        answers = self._of(snapshot)
        task = answers.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            if len(answers) >= MAX_ANSWERS:
                answers.pop(next(iter(answers)))
            task = asyncio.create_task(asyncio.to_thread(encode, snapshot))
            answers[key] = task
        # Shielded: a client that hangs up must not take the answer from the others.
        return await asyncio.shield(task)

    def _of(self, snapshot: Snapshot) -> _Answers:
        kept = self._answers.get(id(snapshot))
        if kept is not None and kept[0]() is snapshot:
            return kept[1]
        self._answers = {key: one for key, one in self._answers.items() if one[0]() is not None}
        answers: _Answers = {}
        self._answers[id(snapshot)] = (weakref.ref(snapshot), answers)
        return answers
