"""An answer that is looked at before it is sent."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send


class Captured:
    """The whole of an answer."""

    def __init__(self) -> None:
        self._start: Message = {"type": "http.response.start", "status": 500, "headers": []}
        self._body = b""

    @classmethod
    def of_json(cls, status: int, body: bytes) -> Captured:
        """An answer of JSON."""
        made = cls()
        headers = MutableHeaders({"content-type": "application/json", "content-length": str(len(body))})
        made._start = {"type": "http.response.start", "status": status, "headers": headers.raw}
        made._body = body
        return made

    async def send(self, message: Message) -> None:
        """Instead of the server's own."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self._start["status"])

    def __len__(self) -> int:
        return len(self._body)

    async def replay(self, send: Send, **more: str) -> None:
        """Send it, with more headers."""
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
        # The list is copied: whoever is in front adds headers to it.
        await send({**self._start, "headers": [*self._start["headers"], *raw]})
        await send({"type": "http.response.body", "body": self._body})
