"""What stands in front of every route: who asks, whether they may, how much, and what is written down.

It is in front of routing and parsing, so a route added later cannot forget it and nothing of a
stranger's body is ever looked at. What it asks of a caller is in ``security.routes``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from northbound.problems import ProblemResponse, problem, too_many
from northbound.security.answering import Answer
from northbound.security.audience import CALLER
from northbound.security.bodies import depth_refusal, replay, whole_body
from northbound.security.callers import Caller, Unrecognised
from northbound.security.callers import Scope as Allowed
from northbound.security.desk import Security
from northbound.security.document import document, vocabulary
from northbound.security.routes import Rule, rule_for
from northbound.security.sessions import CSRF_HEADER
from northbound.security.territory import outside
from planner.audit import AuditError
from planner.snapshot import NotThere, Operations

LOG = logging.getLogger("tidegate.northbound")

_READS: Final = ("GET", "HEAD", "OPTIONS")
_SECRET_NAMES: Final = frozenset(
    ("token", "access_token", "id_token", "refresh_token", "jwt", "api_key", "apikey", "auth", "authorization",
     "secret", "password", "session")
)  # fmt: skip
#: A token of ours, or a signed one.
_SECRET: Final = re.compile(r"tg_[a-z0-9]{8}_|eyJ[A-Za-z0-9_-]{8,}\.")
_SECRET_KEY: Final = re.compile(r"token|secret|password|credential|api_?key", re.IGNORECASE)


def put_in_force(app: FastAPI, security: Security, operations: Operations) -> None:
    """Guard every route that the app has or will have.

    ``operations`` is all of the planner: what callers see is narrowed elsewhere.
    """
    document(app)
    security.pseudonyms.protect(vocabulary(app))
    app.add_middleware(Guard, security=security, operations=operations)
    if security.cors_origins:
        # In front of the guard: a browser asks whether it may send a token without sending one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=security.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "Idempotency-Key"],
            max_age=600,
        )


class Guard:
    """Lets only those to a route who may ask it."""

    def __init__(self, app: ASGIApp, security: Security, operations: Operations) -> None:
        self._app = app
        self._security = security
        #: All of the planner, whoever asks.
        self._operations = operations
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request or hand it on, as ASGI wants it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing here speaks WebSocket; what is not guarded is not there.
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = Answer(self._security, scope["path"], send)
        if self._under_way >= self._security.limits.concurrent:
            await _busy()(scope, receive, answer.send)
            return
        self._under_way += 1
        try:
            await self._guarded(scope, receive, answer)
        finally:
            self._under_way -= 1

    async def _guarded(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        headers = Headers(scope=scope)
        rule, stars = rule_for(scope["method"], scope["path"])
        try:
            caller = await self._admitted(scope, headers, rule)
            body = b""
            if scope["method"] not in _READS:
                received = await whole_body(headers, receive, self._security.limits.body_bytes)
                if isinstance(received, ProblemResponse):
                    raise _RefusedError(received)
                body = received
                if (too_deep := depth_refusal(headers, body, self._security.limits.json_depth)) is not None:
                    raise _RefusedError(too_deep)
            if caller is not None and not caller.sees_users:
                body = self._revealed(scope, body, rule)
                rule, stars = rule_for(scope["method"], scope["path"])
                answer.hide()
            if caller is not None and caller.limited:
                self._check_territory(scope, rule, stars, caller, body)
        except _RefusedError as refused:
            await refused.answer(scope, receive, answer.send)
            return
        if scope["method"] not in _READS:
            receive = replay(body, receive)
        if caller is not None and scope["method"] not in _READS and not rule.question:
            answer.before_start = self._recorder(scope, caller, body)
        await self._answered(scope, receive, answer, caller)

    async def _answered(self, scope: Scope, receive: Receive, answer: Answer, caller: Caller | None) -> None:
        reset = CALLER.set(caller)
        try:
            async with asyncio.timeout(self._security.limits.answer_timeout_s) as bound:
                # A stream begins in time, and then lasts as long as it likes.
                answer.started = lambda: bound.reschedule(None)
                await self._app(scope, receive, answer.send)
        except TimeoutError:
            if answer.has_started:
                raise
            # The bound has done its work, and would not be moved.
            answer.started = lambda: None
            late = f"answer must begin within {self._security.limits.answer_timeout_s:g} s, got none"
            await problem(503, late, headers={"Retry-After": "5"})(scope, receive, answer.send)
        except Exception:
            if not answer.has_started and answer.before_start is not None:
                await answer.before_start(500)
            raise
        finally:
            CALLER.reset(reset)

    # Who asks.

    async def _admitted(self, scope: Scope, headers: Headers, rule: Rule) -> Caller | None:
        """Whose request it is; None where anybody may ask. Raises _RefusedError."""
        security = self._security
        self._check_host(headers)
        _check_url(scope)
        address = scope["client"][0] if scope.get("client") else ""
        if rule.scope is Allowed.NOBODY:
            if scope["method"] not in _READS:
                _check_origin(headers)
            return None
        now = security.now()
        try:
            caller = await security.recognise(headers)
        except Unrecognised as error:
            if wait_s := security.failures.take(address, now):
                raise _RefusedError(too_many("refused credentials", wait_s)) from None
            # What is right is let through however often others of the address were wrong: 256 random
            # bits are not found by trying, and a stranger must not lock operators out.
            LOG.info("refused %s from %s: %s", scope["method"][:10], address, error)
            raise _RefusedError(_unauthorised(scope, headers, str(error))) from None
        if wait_s := security.requests.take(caller.id, now):
            raise _RefusedError(too_many("requests", wait_s))
        if caller.by_cookie and scope["method"] not in _READS:
            _check_origin(headers)
            if not headers.get(CSRF_HEADER):
                raise _RefusedError(
                    problem(403, f"{CSRF_HEADER} must be sent with a session's writes, got none")
                )
        if caller.scope < rule.scope:
            wanted, has = rule.scope.name.lower(), caller.scope.name.lower()
            refusal = problem(
                403,
                f"token must have scope {wanted} for {scope['method'][:10]} {scope['path'][:100]}, got {has}",
            )
            if scope["method"] not in _READS:
                await self._record(caller, scope, None, 403)
            raise _RefusedError(refusal)
        if scope["method"] not in _READS and not rule.question:
            await self._check_audit()
        return caller

    def _check_host(self, headers: Headers) -> None:
        """A page in the operator's browser can point a name of its own at our address and read what is served."""
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.lower() not in self._security.hosts:
            known = ", ".join(sorted(self._security.hosts - {"::1"}))
            raise _RefusedError(problem(421, f"Host must be one of {known}, got {host[:60]!r}"))

    # What it is about.

    def _revealed(self, scope: Scope, body: bytes, rule: Rule) -> bytes:
        """Take a request's pseudonyms for the users they stand for."""
        pseudonyms = self._security.pseudonyms
        pseudonyms.learn(self._operations.snapshot)
        try:
            if stars := rule.pattern.fullmatch(scope["path"]):
                # Only where the path names something: its other words are the API's.
                path, at = "", 0
                for number in range(1, len(stars.groups()) + 1):
                    path += scope["path"][at : stars.start(number)] + pseudonyms.reveal(stars[number])
                    at = stars.end(number)
                scope["path"] = path + scope["path"][at:]
                scope["raw_path"] = quote(scope["path"]).encode()
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            revealed = [(name, pseudonyms.reveal(value)) for name, value in query]
            scope["query_string"] = urlencode(revealed).encode()
            return pseudonyms.reveal(body.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        except KeyError:
            raise _RefusedError(
                problem(404, "users must be named by their pseudonyms for this token, got another name")
            ) from None

    def _check_territory(
        self, scope: Scope, rule: Rule, stars: tuple[str, ...], caller: Caller, body: bytes
    ) -> None:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        try:
            fault = outside(rule, stars, caller, self._operations, query, body)
        except NotThere as error:
            raise _RefusedError(problem(404, str(error))) from None
        if fault is not None:
            raise _RefusedError(problem(403, fault))

    # What is written down.

    async def _check_audit(self) -> None:
        """A write that cannot be recorded is not made."""
        audit = self._security.audit
        if audit is None or audit.writable:
            return
        try:
            await asyncio.to_thread(audit.record, "planner", "audit resumed", str(audit.path))
        except AuditError as error:
            LOG.error("writes are refused: %s", error)
            raise _RefusedError(
                problem(
                    503, "audit log must be writable before anything is changed; the planner's log says more"
                )
            ) from None

    def _recorder(self, scope: Scope, caller: Caller, body: bytes) -> Callable[[int], Any]:
        return lambda status: self._record(caller, scope, _recorded(body), status)

    async def _record(self, caller: Caller, scope: Scope, after: Any, status: int) -> None:
        audit = self._security.audit
        if audit is None:
            return
        action = f"{scope['method'][:10]} {scope['path'][:500]}"
        # With the query: a write that was only tried (dry_run) says so there. It holds no secret: _check_url.
        query = scope["query_string"].decode("latin-1")
        target = (scope["path"] + (f"?{query}" if query else ""))[:500]
        outcome = (
            "ok"
            if status < 400
            else f"refused with status {status}"
            if status < 500
            else f"failed with status {status}"
        )
        before = scope.get("state", {}).get("audit_before")
        await asyncio.to_thread(audit.note, caller.name, action, target, before, after, outcome)


class _RefusedError(Exception):
    """The request goes no further."""

    def __init__(self, answer: ProblemResponse) -> None:
        super().__init__()
        self.answer = answer


def _check_url(scope: Scope) -> None:
    """URLs end in logs, histories and headers of other sites: no secret may be in one."""
    query = scope["query_string"].decode("latin-1")
    names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)} if query else set()
    if names & _SECRET_NAMES or _SECRET.search(query) or _SECRET.search(scope["path"]):
        # Not a word of it is repeated.
        raise _RefusedError(
            problem(400, "URL must hold no token or secret: send it as Authorization: Bearer TOKEN")
        )


def _check_origin(headers: Headers) -> None:
    """What a page of another site makes a browser send is no wish of its user."""
    site = headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none"):
        raise _RefusedError(problem(403, f"Sec-Fetch-Site must be same-origin for this, got {site[:20]!r}"))


def _unauthorised(scope: Scope, headers: Headers, why: str) -> ProblemResponse:
    challenge = {"WWW-Authenticate": 'Bearer realm="tidegate"'}
    page = scope["path"] == "/" or scope["path"].startswith("/dashboard")
    if page and "text/html" in headers.get("accept", ""):
        return problem(303, why, headers={"Location": "/dashboard/login"})
    return problem(401, f"token must be given and in force: {why}", headers=challenge)


def _busy() -> ProblemResponse:
    return problem(503, "too many requests are under way: try again later", headers={"Retry-After": "1"})


def _recorded(body: bytes) -> Any:
    """A body as the audit log keeps it: without what may be secret."""
    if not body:
        return None
    try:
        return _without_secrets(json.loads(body))
    except ValueError:
        # Long, or of strangers' making: which body it was can be told all the same.
        return f"{len(body)} bytes, not JSON, SHA-256 {hashlib.sha256(body).hexdigest()}"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "not kept" if _SECRET_KEY.search(key) else _without_secrets(entry)
            for key, entry in value.items()
        }
    return [_without_secrets(entry) for entry in value] if isinstance(value, list) else value
