"""How requests come off the wire: quickly, and only so long and so large."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: A request's head must have come within this, a connection's first from its opening on.
HEAD_TIMEOUT_S: Final = 10.0
#: A head and what came with it; a request for a page needs a few hundred bytes.
MAX_HEAD_BYTES: Final = 65_536


def run_to_end(serving: Coroutine[Any, Any, None]) -> None:
    """Run a server in a fast event loop until it ends, as ``asyncio.run`` does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


class PromptProtocol(HttpToolsProtocol):
    """HTTP/1.1 that waits for a request's head only so long, and for so much of it.

    A stranger must not hold connections open for good, nor fill the memory: a dribble of bytes wins no
    time, and the parser itself sets no bound.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._due: asyncio.TimerHandle | None = self.loop.call_later(HEAD_TIMEOUT_S, self._hang_up)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        super().data_received(data)
        if not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._hang_up()

    def on_message_begin(self) -> None:
        """Wait anew: for the head of the next request on a kept connection."""
        super().on_message_begin()
        if not self._in_head:
            self._in_head, self._head_bytes = True, 0
            self._due = self.loop.call_later(HEAD_TIMEOUT_S, self._hang_up)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _hang_up(self) -> None:
        """Nothing came that could be answered."""
        self.transport.close()
