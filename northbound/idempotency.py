"""Writes that are sent twice and made once: ``Idempotency-Key`` names a write of its sender's."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from northbound.captured import Captured
from northbound.problems import problem
from northbound.security.audience import CALLER
from northbound.security.bodies import replay

HEADER: Final = "idempotency-key"
KEPT_S: Final = 24 * 3600.0
#: Answers kept, of one sender and of all; the oldest go first.
PER_SENDER: Final = 1000
IN_ALL: Final = 4000
#: A larger answer is sent, but not kept.
LARGEST: Final = 16 << 10
_MAX_KEY: Final = 255


@dataclass
class _Write:
    fingerprint: bytes
    time: float
    #: None: it is under way.
    answer: Captured | None = None


class Idempotent:
    """Answers a write that was made with what it was answered then. Nothing outlives the process.

    Only what was done is kept: a write that was refused changed nothing, and may be sent again.
    """

    def __init__(self, app: ASGIApp, now: Callable[[], float]) -> None:
        self._app = app
        self._now = now
        #: By sender and key, oldest first.
        self._writes: OrderedDict[tuple[str, str], _Write] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as ASGI wants it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        key = Headers(scope=scope).get(HEADER)
        caller = CALLER.get()
        if key is None or caller is None:
            await self._app(scope, receive, send)
            return
        if not 0 < len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
            refusal = f"Idempotency-Key must be 1 to {_MAX_KEY} printable characters, got {len(key)}"
            await problem(422, refusal)(scope, receive, send)
            return
        # The guard in front hands the body over in one piece.
        body = (await receive()).get("body", b"")
        await self._once((caller.id, key), _fingerprint(scope, body), scope, replay(body, receive), send)

    async def _once(
        self, name: tuple[str, str], fingerprint: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        now = self._now()
        self._forget(now, name[0])
        known = self._writes.get(name)
        if known is not None and known.fingerprint != fingerprint:
            refusal = problem(
                422, "Idempotency-Key must be another for another request, got one that was used"
            )
            await refusal(scope, receive, send)
        elif known is not None and known.answer is None:
            busy = "Idempotency-Key must be of a request that is done, got one under way"
            await problem(409, busy, headers={"Retry-After": "1"})(scope, receive, send)
        elif known is not None and known.answer is not None:
            await known.answer.replay(send, idempotency_replayed="true")
        else:
            write = self._writes[name] = _Write(fingerprint, now)
            captured = Captured()
            try:
                await self._app(scope, receive, captured.send)
            finally:
                if captured.status < 300 and len(captured) <= LARGEST:
                    write.answer = captured
                else:
                    self._writes.pop(name, None)
            await captured.replay(send)

    def _forget(self, now: float, sender: str) -> None:
        """Make room for one more."""
        while self._writes:
            oldest = next(iter(self._writes.values()))
            # A clock that was set back must not keep them for good.
            if 0 <= now - oldest.time < KEPT_S and len(self._writes) < IN_ALL:
                break
            self._writes.popitem(last=False)
        own = [name for name in self._writes if name[0] == sender]
        for name in own[: max(0, len(own) - PER_SENDER + 1)]:
            del self._writes[name]


def _fingerprint(scope: Scope, body: bytes) -> bytes:
    whole = hashlib.sha256()
    for part in (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body):
        whole.update(len(part).to_bytes(8))
        whole.update(part)
    return whole.digest()
