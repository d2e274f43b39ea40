"""What becomes of an answer on its way out: recorded, protected, and without users' names where they are hidden."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from northbound.security.headers import protect

if TYPE_CHECKING:
    from northbound.security.desk import Security
    from northbound.security.pseudonyms import Pseudonyms

#: Above this a body is worked through in a thread.
_LARGE: Final = 32 << 10
_KEPT: Final = 64
_HIDDEN: Final = ("application/json", "application/problem+json", "text/")


class HiddenBodies:
    """Bodies that many are answered with, hidden once: an encoded answer is one object for as long as it holds."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._kept: OrderedDict[int, tuple[bytes, asyncio.Task[bytes]]] = OrderedDict()

    async def get(self, body: bytes, media_type: str) -> bytes:
        """The body with pseudonyms for users."""
        if len(body) < _LARGE:
            return self._pseudonyms.hide(body, media_type)
        kept = self._kept.get(id(body))
        if kept is None or kept[0] is not body:
            task = asyncio.create_task(asyncio.to_thread(self._pseudonyms.hide, body, media_type))
            kept = self._kept[id(body)] = (body, task)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return await asyncio.shield(kept[1])


class Answer:
    """One answer under way."""

    def __init__(self, security: Security, path: str, send: Send) -> None:
        self._security = security
        self._path = path
        self._send = send
        self._hides = False
        self._start: Message | None = None
        self._media_type = ""
        self._parts: list[bytes] = []
        self.has_started = False
        #: Called with the status before anything is sent.
        self.before_start: Callable[[int], Awaitable[Any]] | None = None
        #: Called when the answer begins.
        self.started: Callable[[], None] = lambda: None

    def hide(self) -> None:
        """From now on, with pseudonyms for users."""
        self._hides = True

    async def send(self, message: Message) -> None:
        """Instead of the server's own."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body" and self._start is not None:
            await self._hide(message)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        if self.before_start is not None:
            await self.before_start(message["status"])
        self.has_started = True
        self.started()
        message["headers"] = list(message.get("headers", ()))
        protect(message["headers"], self._path, self._security.by_tls)
        self._media_type = (
            Headers(raw=message["headers"]).get("content-type", "").partition(";")[0].strip().lower()
        )
        if self._hides and self._media_type.startswith(_HIDDEN):
            self._start = message
            if self._media_type == "text/event-stream":
                await self._send(message)
        else:
            await self._send(message)

    async def _hide(self, message: Message) -> None:
        assert self._start is not None
        hidden = self._security.hidden
        more = message.get("more_body", False)
        body = message.get("body", b"")
        if self._media_type == "text/event-stream":
            # A name may be cut in two between parts, but not by a line's end.
            lines, end, rest = (b"".join(self._parts) + body).rpartition(b"\n")
            self._parts = [rest]
            whole = lines + end if more else lines + end + rest
            if whole or not more:
                await self._send({**message, "body": await hidden.get(whole, self._media_type)})
            return
        self._parts.append(body)
        if more:
            return
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        body = await hidden.get(whole, self._media_type)
        headers = MutableHeaders(scope=self._start)
        headers["Content-Length"] = str(len(body))
        await self._send(self._start)
        await self._send({**message, "body": body})
