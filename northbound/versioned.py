"""Version 1 of the API: every path as it stands, and below ``/v1`` too."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX: Final = "/v1"
#: What OpenAPI says of it: each path is documented once, for both.
SERVERS: Final = (
    {"url": PREFIX, "description": "version 1; what changes in a later version does not change here"},
    {"url": "/", "description": "the newest version"},
)


class Versioned:
    """Takes the version off the path, in front of all others: the guard, the log and the routes know one path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, as ASGI wants it."""
        if scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/"):
            raw = scope.get("raw_path") or scope["path"].encode()
            scope = {
                **scope,
                "path": scope["path"].removeprefix(PREFIX),
                "raw_path": raw.removeprefix(PREFIX.encode()),
            }
        await self._app(scope, receive, send)
