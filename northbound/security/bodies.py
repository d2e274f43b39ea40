"""Bodies of requests: whole, small, in time and not deep, before anything reads them."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from northbound.problems import ProblemResponse, problem

BODY_TIMEOUT_S: Final = 10.0
_CLOSE: Final = {"Connection": "close"}
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


async def whole_body(headers: Headers, receive: Receive, most_bytes: int) -> bytes | ProblemResponse:
    """The body of a request, or the refusal of one that is too large or too slow."""
    too_large = problem(413, f"body must be at most {most_bytes} bytes, got more", headers=_CLOSE)
    length = headers.get("content-length", "0")
    # Twenty digits are more bytes than there are; int() of a million would take a while.
    if not length.isdecimal() or len(length) > 20 or int(length) > most_bytes:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > most_bytes:
                    return too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        slow = f"body must arrive within {BODY_TIMEOUT_S:g} s, got {len(body)} bytes"
        return problem(408, slow, headers=_CLOSE)


def depth_refusal(headers: Headers, body: bytes, most: int) -> ProblemResponse | None:
    """Why JSON that nests too deep is refused; None where it does not.

    A parser follows each bracket with a call of its own, and then a validator does.
    """
    if "json" not in headers.get("content-type", "json") or body.count(b"[") + body.count(b"{") <= most:
        return None
    depth = 0
    for bracket in _BRACKET.finditer(_TEXT.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > most:
            return problem(422, f"body must nest at most {most} deep, got more")
    return None


def replay(body: bytes, receive: Receive) -> Receive:
    """What the app receives instead: the body at once, then whatever comes (a disconnect)."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
