"""The seam as the planner sees it: an ASGI application on loopback that speakers call.

``POST /v1/samples | /v1/network | /v1/applied`` take reports and answer the network
version that is known of the speaker; ``GET /v1/plan`` holds the request open until there
is a plan newer than the caller's. Both sides prove that they have the secret: ``seam_auth``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner.loop import Planner
from planner.plan import encode_plan
from planner.report import decode_applied, decode_network
from planner.seam_auth import (
    ANSWER_HEADER,
    REQUEST_HEADER,
    SPEAKER_HEADER,
    NotAuthentic,
    Requests,
    digest_fits,
    seal,
)
from telemetry.samples import decode_batch

LOG = logging.getLogger("tidegate.planner")

#: A poll of the largest switch thinkable: a million entries of some 30 bytes.
MAX_BODY_BYTES = 64 << 20
_MAX_WAIT_S = 30.0


class PlanBoard:
    """Tells waiting requests that there is a new plan. Used from the event loop and the planner's thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Condition | None = None

    async def wait(self, timeout_s: float) -> None:
        """Return when a plan was published, or after the time-out."""
        if self._changed is None:
            self._loop, self._changed = asyncio.get_running_loop(), asyncio.Condition()
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                return

    def published(self) -> None:
        """There is a new plan; called from the planner's thread."""
        if self._loop is not None and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._notify(), self._loop)

    async def _notify(self) -> None:
        assert self._changed is not None
        async with self._changed:
            self._changed.notify_all()


def seam_app(planner: Planner, secret: str, board: PlanBoard, on_network: Callable[[], None]) -> ASGIApp:
    """The application. ``on_network`` is called when a network report came in."""

    async def samples(request: Request) -> Response:
        batch = decode_batch(await request.body())
        planner.ingest(batch)
        return PlainTextResponse(str(_known(request)))

    async def network(request: Request) -> Response:
        report = decode_network(await request.body())
        known[report.speaker] = report.version
        planner.report(report)
        on_network()
        return PlainTextResponse(str(report.version))

    async def applied(request: Request) -> Response:
        planner.applied(decode_applied(await request.body()))
        return PlainTextResponse(str(_known(request)))

    async def plan(request: Request) -> Response:
        after = int(request.query_params.get("after", -1))
        layout = int(request.query_params.get("layout", -1))
        wait_s = float(request.query_params.get("wait_s", 0))
        if not wait_s >= 0:  # NaN is none either, and would upset the event loop's timers
            raise ValueError(f"wait_s must be >= 0, got {wait_s}")
        wait_s = min(wait_s, _MAX_WAIT_S)
        # A caller that is ahead knew another planner: it is told the truth at once.
        # A stale plan is none: switches are left as they are.
        while (
            (current := planner.snapshot.plan).version == after
            or not current.layouts
            or planner.plan_is_stale
        ):
            if wait_s <= 0:
                return Response(b"")
            started = asyncio.get_running_loop().time()
            await board.wait(wait_s)
            wait_s -= asyncio.get_running_loop().time() - started
        # Coding a large plan takes a while; the event loop has other callers.
        body = await asyncio.to_thread(encode_plan, current, layout)
        return Response(body, media_type="application/msgpack")

    #: By speaker; a planner that has just started knows of none and is told again.
    known: dict[str, int] = {}

    def _known(request: Request) -> int:
        return known.get(request.headers.get("tidegate-speaker", ""), -1)

    routes = [
        Route("/v1/samples", _guarded(samples), methods=["POST"]),
        Route("/v1/network", _guarded(network), methods=["POST"]),
        Route("/v1/applied", _guarded(applied), methods=["POST"]),
        Route("/v1/plan", _guarded(plan), methods=["GET"]),
    ]
    return _Authenticated(Starlette(routes=routes), secret)


Handler = Callable[[Request], Awaitable[Response]]


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ValueError as error:
            LOG.warning("seam: refused %s: %s", request.url.path, error)
            return PlainTextResponse(str(error), status_code=422)

    return guarded


class _Authenticated:
    """Lets only callers through that know the seam's secret, and proves to them that the planner does."""

    def __init__(self, app: ASGIApp, secret: str, now: Callable[[], float] = time.time) -> None:
        self._app = app
        self._secret = secret
        self._requests = Requests(secret)
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        query = scope["query_string"].decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        speaker = headers.get(SPEAKER_HEADER, "")
        try:
            nonce, digest = self._requests.check(
                headers.get(REQUEST_HEADER, ""), scope["method"], target, speaker, self._now()
            )
        except NotAuthentic as error:
            LOG.warning("seam: refused %s: %s", scope["path"][:100], error)
            await PlainTextResponse(str(error), status_code=401)(scope, receive, send)
            return
        body = await _whole(receive)
        if body is None:
            too_large = PlainTextResponse(f"body must be <= {MAX_BODY_BYTES} bytes", status_code=413)
            await too_large(scope, receive, send)
            return
        if not digest_fits(digest, body):
            await PlainTextResponse("body must be the one that was signed", status_code=401)(
                scope, receive, send
            )
            return
        answer = _Sealed(self._secret, nonce, send)
        await self._app(scope, _replayed(body, receive), answer.send)


class _Sealed:
    """An answer, held until it is whole, with the seal that proves whose it is."""

    def __init__(self, secret: str, nonce: str, send: Send) -> None:
        self._secret = secret
        self._nonce = nonce
        self._send = send
        self._start: Message = {}
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Instead of the server's own."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(self._parts)
        proof = seal(self._secret, self._nonce, self._start["status"], body)
        MutableHeaders(scope=self._start)[ANSWER_HEADER] = proof
        await self._send(self._start)
        await self._send({**message, "body": body})


async def _whole(receive: Receive) -> bytes | None:
    """A body, or None if it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
