"""What stands in front of every route: who may write, and how much.

It is in front of routing and parsing, so a route added later cannot forget it
and nothing of a stranger's body is ever looked at.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from northbound.problems import ProblemResponse, problem

#: Ten thousand members of a group need about 200 kB.
MAX_BODY_BYTES: Final = 1 << 20
BODY_TIMEOUT_S: Final = 10.0
_READS = ("GET", "HEAD", "OPTIONS")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Refuses foreign Host headers, writes without the token, and large or slow bodies.

    The Host header is checked because a page in the operator's browser can point
    a name of its own at 127.0.0.1 and read what is served there.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._authorization = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request or hand it on, as ASGI wants it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        if refusal is None and scope["method"] not in _READS:
            body = await _whole_body(headers, receive)
            if isinstance(body, ProblemResponse):
                refusal = body
            else:
                receive = _replay(body, receive)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> ProblemResponse | None:
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.lower() not in _LOOPBACK_NAMES:
            return problem(421, f"Host must be one of {', '.join(_LOOPBACK_NAMES)}, got {host[:60]!r}")
        if method in _READS:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        presented = f"{'Bearer' if scheme.lower() == 'bearer' else scheme} {given.strip()}"
        if hmac.compare_digest(presented.encode(), self._authorization):
            return None
        return problem(
            401,
            f"Authorization must be Bearer TOKEN for {method[:20]}, with the token of northbound.token_file",
            headers={"WWW-Authenticate": 'Bearer realm="tidegate"'},
        )


async def _whole_body(headers: Headers, receive: Receive) -> bytes | ProblemResponse:
    too_large = problem(
        413, f"body must be at most {MAX_BODY_BYTES} bytes, got more", headers={"Connection": "close"}
    )
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    return too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return problem(
            408,
            f"body must arrive within {BODY_TIMEOUT_S:g} s, got {len(body)} bytes",
            headers={"Connection": "close"},
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """What the app receives instead: the body at once, then whatever comes (a disconnect)."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
