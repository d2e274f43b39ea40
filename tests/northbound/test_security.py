"""Every route, by all who may not ask it; and the faults that audits of such systems have found."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from northbound.api import create_app
from northbound.security.callers import Scope
from northbound.security.desk import Security
from northbound.security.routes import rule_for
from northbound.security.tokens import make
from planner.audit import AuditLog
from planner.config_northbound import Limits
from tests.northbound.doubles import NOW, TOKEN, FakeOperations
from tests.northbound.guarded import Guarded

#: What may be had without a token, and why: a login begins there, and nothing of the network is shown.
OPEN = {("POST", "/session"), ("GET", "/dashboard/login"), ("HEAD", "/dashboard/login")}
#: What is no read and still is for those who may only read.
QUESTIONS = {("POST", "/session"), ("DELETE", "/session"), ("POST", "/predictDemand")}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def guarded(tmp_path: Any) -> Guarded:
    return Guarded(tmp_path)


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every route with a path that reaches it."""
    found = []
    for context in iter_route_contexts(app.routes):
        path = context.path or ""
        while "{" in path:
            name = path[path.index("{") : path.index("}") + 1]
            path = path.replace(name, "1")
        if path.startswith(("/static-offline-docs", "/dashboard/static")):
            path += "/x"
        found += [(method, path) for method in context.methods or {"GET"}]
    return sorted(set(found))


def test_every_route_is_refused_to_all_who_may_not_ask_it(guarded: Guarded):
    """No token, a wrong, an expired or a revoked one: 401. Too small a scope: 403. Of routes to come as well."""
    fresh = {scope: guarded.token(scope) for scope in ("read", "operate", "admin")}
    expired, revoked = guarded.token("admin", expires=NOW + 1), guarded.token("admin", name="revoked")
    guarded.book.revoke("revoked")
    guarded.now = NOW + 2
    every = routes(guarded.app)
    assert len(every) > 30
    every += [(method, path) for _, path in every for method in METHODS]
    wrong = ("", "wrong", "tg_00000000_" + "x" * 43, expired, revoked, fresh["read"][:-1] + "!")

    async def go() -> None:
        for method, path in sorted(set(every) - OPEN):
            if path.startswith("/dashboard/static"):
                continue
            for token in (None, *wrong):
                answer = await guarded.asked(method, path, token)
                assert answer.status_code == 401, (method, path, token)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert method == "HEAD" or answer.json()["status"] == 401
            needed = rule_for(method, path)[0].scope
            for name, token in fresh.items():
                if Scope[name.upper()] < needed:
                    assert (await guarded.asked(method, path, token)).status_code == 403, (method, path, name)

    anyio.run(go)
    assert guarded.operations.written == []


def test_nobody_who_may_only_read_can_write(guarded: Guarded):
    """Whatever the table of scopes says: a method that changes something is refused to the scope read."""
    read = guarded.token("read")
    for method, path in routes(guarded.app):
        if method not in ("GET", "HEAD", "OPTIONS") and (method, path) not in QUESTIONS:
            assert guarded.ask(method, path, read, json={}).status_code == 403, (method, path)


def test_what_is_not_declared_needs_an_unlimited_admin(guarded: Guarded):
    """A route that somebody adds and forgets to declare is open to nobody else."""

    @guarded.app.get("/forgotten")
    def forgotten() -> dict[str, str]:
        return {"secret": "of the planner"}

    assert guarded.ask("GET", "/forgotten", guarded.token("operate")).status_code == 403
    assert guarded.ask("GET", "/forgotten", guarded.token("admin")).status_code == 200


def test_what_needs_no_token_shows_nothing_of_the_network(guarded: Guarded):
    """The login page and what it loads know no user, group or switch."""
    for path in ("/dashboard/login", "/dashboard/static/dashboard.js"):
        answer = guarded.ask("GET", path, None)
        if answer.status_code == 200:
            assert not any(word in answer.text for word in ("anna", "ben", "0000000000000011"))


@pytest.mark.parametrize(
    "query",
    ["token={}", "access_token={}", "a=1&Token={}", "x={}", "api_key=abc", "jwt=eyJhbGciOi.x.y", "a[]={}"],
)
def test_url_holds_no_secret(guarded: Guarded, query: str):
    """A token in a URL is refused though it would be right, and the refusal repeats nothing of it."""
    token = guarded.token("admin")
    for given in (None, token):
        answer = guarded.ask("GET", f"/plan?{query.format(token)}", given)
        assert answer.status_code == 400
        assert token not in answer.text


def test_token_in_a_path_is_refused(guarded: Guarded):
    """Paths end in the same places."""
    token = guarded.token("admin")
    assert guarded.ask("GET", f"/forecasts/{token}", token).status_code == 400


# The faults that LibreQoS' own audit of 2026 found in it.


def test_subscribers_cannot_be_read_anonymously(guarded: Guarded):
    """Not one answer to somebody without a token holds a user, an address or a rate."""
    for method, path in routes(guarded.app):
        text = guarded.ask(method, path, None).text
        assert not any(word in text for word in ("anna", "ben", "grant_bps", "global/west")), (method, path)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)"]
)
def test_names_do_not_become_script(guarded: Guarded, name: str):
    """No page and no answer can be made to run what somebody wrote into a reason or a name."""
    token = guarded.token("operate")
    for path in ("/plan/freeze", "/groups/create", "/events", "/boosts", "/alarms/2/acknowledge"):
        guarded.ask("POST", path, token, json={"reason": name, "id": name, "name": name, "summary": name})
    for method, path in routes(guarded.app):
        if method != "GET" or path == "/stream":
            continue
        answer = guarded.ask(method, path, token)
        if "html" in answer.headers.get("content-type", ""):
            assert name not in answer.text, path
        else:
            # What is no page is never taken for one.
            assert answer.headers["x-content-type-options"] == "nosniff", path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert path.startswith(("/docs", "/static-offline-docs")) or "'unsafe-inline'" not in policy, path


def test_error_page_does_not_run_what_was_asked_for(guarded: Guarded):
    """An error repeats the path as JSON, never as markup."""
    answer = guarded.ask("GET", "/forecasts/<script>alert(1)</script>", guarded.token("read"))
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_logins_are_limited(guarded: Guarded):
    """Ten wrong ones a minute from one address; then the right one waits as well, and others do not."""
    token = guarded.token("admin")
    statuses = [guarded.log_in("wrong-" * 6, address="192.0.2.1").status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = guarded.log_in(token, address="192.0.2.1")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 7
    assert guarded.log_in(token, address="192.0.2.2").status_code == 201
    guarded.now += 6
    assert guarded.log_in(token, address="192.0.2.1").status_code == 201


def test_wrong_tokens_are_limited_and_right_ones_are_not_locked_out(tmp_path: Any):
    """A stranger who tries tokens is told to wait; an operator behind the same address works on."""
    guarded = Guarded(tmp_path, Limits(failures_per_minute=5))
    token = guarded.token("read")
    statuses = [guarded.ask("GET", "/plan", "wrong").status_code for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    assert guarded.ask("GET", "/plan", token).status_code == 200


def test_requests_are_limited_by_token(tmp_path: Any):
    """One who asks too often is told when to ask again; another token is not concerned."""
    guarded = Guarded(tmp_path, Limits(requests_per_s=3))
    busy, other = guarded.token("read", name="busy"), guarded.token("read", name="other")
    answers = [guarded.ask("GET", "/plan", busy) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert guarded.ask("GET", "/plan", other).status_code == 200
    guarded.now += 1
    assert guarded.ask("GET", "/plan", busy).status_code == 200


# Bounds.


def test_deep_json_is_refused_before_it_is_parsed(guarded: Guarded):
    """Nesting is counted outside of strings."""
    token = guarded.token("operate")
    headers = {"Content-Type": "application/json"}
    deep = b'{"id": ' + b"[" * 40 + b"]" * 40 + b"}"
    answer = guarded.ask("POST", "/groups/create", token, content=deep, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["title"] == "body must nest at most 16 deep, got more"
    flat = json.dumps({"id": "[" * 40, "members": ["anna"] * 40}).encode()
    assert "nest" not in guarded.ask("POST", "/groups/create", token, content=flat, headers=headers).text


def test_concurrent_requests_are_bounded(tmp_path: Any):
    """Those above the bound are told to come back; the others are answered."""
    guarded = Guarded(tmp_path, Limits(concurrent=2))
    token = guarded.token("admin")
    gate = anyio.Event()

    @guarded.app.get("/slow")
    async def slow() -> dict[str, str]:
        await gate.wait()
        return {}

    async def go() -> list[int]:
        answers: list[int] = []

        async def one() -> None:
            answers.append((await guarded.asked("GET", "/slow", token)).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one)
            while not answers:
                await anyio.sleep(0.01)
            gate.set()
        return answers

    assert sorted(anyio.run(go)) == [200, 200, 503]


def test_answer_that_does_not_begin_is_given_up(tmp_path: Any):
    """The client is told so in time."""
    guarded = Guarded(tmp_path, Limits(answer_timeout_s=0.05))
    never = anyio.Event()

    @guarded.app.get("/never")
    async def answer_never() -> dict[str, str]:
        await never.wait()
        return {}

    answer = guarded.ask("GET", "/never", guarded.token("admin"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


# Browsers.


def test_no_other_page_may_ask(guarded: Guarded):
    """Without configured origins no answer allows one."""
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = guarded.ask(method, "/plan", guarded.token("read"), headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_configured_origin_may_ask_with_a_token_and_without_cookies(tmp_path: Any):
    """Its preflight needs no token; another's gets nothing; credentials are never allowed."""
    guarded = Guarded(tmp_path, cors_origins=("https://noc.example",))

    def preflight(origin: str) -> httpx.Headers:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        return guarded.ask("OPTIONS", "/plan", None, headers=headers).headers

    assert preflight("https://noc.example")["access-control-allow-origin"] == "https://noc.example"
    assert "access-control-allow-credentials" not in preflight("https://noc.example")
    assert "access-control-allow-origin" not in preflight("https://evil.example")


def test_answers_are_not_kept_framed_or_sniffed(guarded: Guarded):
    """Refusals included."""
    for token in (None, guarded.token("read")):
        headers = guarded.ask("GET", "/plan", token).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"


def test_answer_that_fails_is_protected_too_and_tells_nothing(guarded: Guarded):
    """The traceback is in the log alone."""

    @guarded.app.get("/broken")
    def broken() -> None:
        raise RuntimeError("the inside of the planner")

    answer = guarded.ask("GET", "/broken", guarded.token("admin"))
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_log_holds_no_secret(guarded: Guarded, caplog: pytest.LogCaptureFixture):
    """Not of right tokens, wrong ones, sessions or bodies, however much is logged."""
    token, wrong = guarded.token("admin"), "tg_12345678_" + "w" * 43
    with caplog.at_level(logging.DEBUG):
        guarded.ask("GET", "/plan", token)
        guarded.ask("GET", "/plan", wrong)
        guarded.ask("GET", f"/plan?token={token}", None)
        guarded.ask("GET", f"/plan?x={wrong}", token)
        cookie = guarded.log_in(token).headers["set-cookie"].split("=", 1)[1].split(";")[0]
        guarded.log_in(wrong)
        guarded.ask("GET", "/plan", None, headers={"Cookie": f"tidegate_session={cookie}"})
        guarded.ask("POST", "/plan/freeze", token, json={"reason": "x", "password": "hunter2"})
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("tidegate"))
    log = guarded.security.audit.path.read_text() if guarded.security.audit else ""
    for secret in (token, wrong, cookie, "hunter2"):
        assert secret not in ours
        assert secret not in log
    assert "refused GET from" in ours


def test_writes_are_in_the_audit_log_with_who_what_and_how_it_ended(guarded: Guarded):
    """Refused ones of somebody known as well; reads and strangers' attempts are not."""
    operate, read = guarded.token("operate", name="ops"), guarded.token("read", name="eyes")
    guarded.ask("GET", "/session", operate)
    guarded.ask("PUT", "/groups/g1/bandwidth", None, json={"weight": 9})
    guarded.ask("PUT", "/groups/g1/bandwidth", operate, json={"weight": 2, "token": "hidden"})
    guarded.ask("PUT", "/groups/g1/bandwidth?x=1", operate, json={"weight": 3})
    guarded.ask("PUT", "/groups/g1/bandwidth", read, json={"weight": 4})
    assert guarded.security.audit is not None
    entries, _ = guarded.security.audit.page(0, 10)
    path = "/groups/g1/bandwidth"
    assert [(e["actor"], e["action"], e["target"], e["after"], e["outcome"]) for e in entries] == [
        ("ops", f"PUT {path}", path, {"weight": 2, "token": "not kept"}, "refused with status 422"),
        ("ops", f"PUT {path}", f"{path}?x=1", {"weight": 3}, "ok"),
        ("eyes", f"PUT {path}", path, None, "refused with status 403"),
    ]
    admin = guarded.token("admin")
    shown = guarded.ask("GET", "/audit?after=1&limit=1", admin).json()
    assert (shown["total"], [entry["n"] for entry in shown["entries"]]) == (3, [2])
    assert [entry["n"] for entry in guarded.ask("GET", "/audit?limit=2", admin).json()["entries"]] == [2, 3]


def test_writes_wait_for_the_audit_log(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    """A write that cannot be recorded is not made; reads go on, and so do writes once it can."""
    token = guarded.token("operate")
    audit = guarded.security.audit
    assert isinstance(audit, AuditLog)
    write = ("PUT", "/groups/g1/bandwidth", token)
    audit.writable = False
    real: Callable[..., None] = audit.record

    def full(*_: Any, **__: Any) -> None:
        raise_for_full()

    monkeypatch.setattr(audit, "record", full)
    assert guarded.ask(*write, json={"weight": 2}).status_code == 503
    assert guarded.operations.written == []
    assert guarded.ask("GET", "/plan", token).status_code == 200
    monkeypatch.setattr(audit, "record", real)
    assert guarded.ask(*write, json={"weight": 2}).status_code == 200


def raise_for_full() -> None:
    from planner.audit import AuditError

    raise AuditError("disk full")


def test_app_made_with_a_token_alone_knows_no_other():
    """What tests and small tools make is as closed."""
    text, _ = make("x", "admin", NOW, None)
    app = create_app(FakeOperations(), TOKEN, security=Security.of_token(TOKEN, lambda: NOW))

    async def ask(token: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/plan", headers={"Authorization": f"Bearer {token}"})).status_code

    assert [anyio.run(ask, token) for token in (TOKEN, text)] == [200, 401]
