"""Answers encoded once a snapshot, however many ask; and told apart by a tag, so that none is sent twice."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from planner.snapshot import Snapshot

#: Pages of the user level have many offsets; more than this are not kept.
MAX_ANSWERS: Final = 64
#: What routes that answer so document.
UNCHANGED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "If-None-Match holds the tag (ETag) of the answer as it is now."}
}


@dataclass(frozen=True)
class Encoded:
    """The bytes of an answer, and what tells them apart from others."""

    body: bytes
    tag: str

    @classmethod
    def of(cls, body: bytes) -> Encoded:
        """The bytes with their tag."""
        return cls(body, tag_of(body))


def tag_of(body: bytes) -> str:
    """The entity tag of these bytes, quoted as RFC 9110 wants it."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def matches(tag: str, header: str) -> bool:
    """Whether the tag is one of those in an If-Match or If-None-Match header."""
    wanted = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in wanted or tag in wanted


def answer(request: Request, encoded: Encoded) -> Response:
    """The answer, or that the client has it already."""
    headers = {"ETag": encoded.tag}
    if matches(encoded.tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(encoded.body, media_type="application/json", headers=headers)


_Answers = dict[Hashable, asyncio.Task[Encoded]]


class EncodedAnswers:
    """Answers about the newest snapshot, made in a thread when first asked for.

    Snapshots are told apart by identity: they are never changed, only replaced. Callers who see
    different parts of one have one each. All who ask at the same time wait for the same encoding.
    """

    def __init__(self) -> None:
        #: By the snapshot's identity; what nobody holds any more goes with its answers.
        self._answers: dict[int, tuple[weakref.ref[Snapshot], _Answers]] = {}

    async def get(self, snapshot: Snapshot, key: Hashable, encode: Callable[[Snapshot], bytes]) -> Encoded:
        """What ``encode`` makes of this snapshot. Raises what it raises."""
        answers = self._of(snapshot)
        task = answers.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            if len(answers) >= MAX_ANSWERS:
                answers.pop(next(iter(answers)))
            task = asyncio.create_task(asyncio.to_thread(lambda: Encoded.of(encode(snapshot))))
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
