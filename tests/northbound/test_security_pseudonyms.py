"""Who may only read sees users under other names, the same at every answer, and can ask for them by these."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import Response
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st

from northbound.security.pseudonyms import PREFIX, Pseudonyms
from tests.northbound.doubles import make_snapshot
from tests.northbound.guarded import Guarded

NAMES = re.compile(r"\b(anna|ben|emma)\b")


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


@pytest.fixture
def hidden() -> Pseudonyms:
    return Pseudonyms("k" * 43, ("anna", "ben", "a.b@c-d"))


def test_no_read_names_a_user(guarded: Guarded):
    """Whatever the route, those to come included; and the answer still fits its schema."""
    token = guarded.token("read")
    plain = guarded.token("read", users=True)
    named = 0
    for context in iter_route_contexts(guarded.app.routes):
        path = (context.path or "").replace("{groupID}", "g1").replace("{version}", "2")
        if (
            "GET" not in (context.methods or ())
            or "{" in path
            or path in ("/stream", "/docs", "/openapi.json")
        ):
            continue
        text = guarded.ask("GET", path, token).text
        assert not NAMES.search(text), path
        with_names = guarded.ask("GET", path, plain).text
        named += bool(NAMES.search(with_names))
        if PREFIX in text and text.startswith("{"):
            assert json.loads(text).keys() == json.loads(with_names).keys()
    assert named >= 3


def test_who_may_write_or_was_granted_sees_names(guarded: Guarded):
    """Nobody can lift the right user's ceiling without knowing who it is."""
    for token in (guarded.token("operate"), guarded.token("admin"), guarded.token("read", users=True)):
        assert "anna" in guarded.ask("GET", "/groups", token).text
    assert "anna" not in guarded.ask("GET", "/groups", guarded.token("read")).text


def test_answers_of_the_same_moment_do_not_mix(guarded: Guarded):
    """An answer is encoded once for all; who may see names gets them, before and after one who may not."""
    read, operate = guarded.token("read"), guarded.token("operate")
    for _ in range(2):
        assert "anna" in guarded.ask("GET", "/metrics/global", operate).text
        assert "anna" not in guarded.ask("GET", "/metrics/global", read).text


def test_what_was_read_can_be_asked_for(guarded: Guarded):
    """By its pseudonym, in paths, queries and bodies; and nobody can find a user by trying names."""
    token = guarded.token("read")
    paths = [pool["path"] for pool in guarded.ask("GET", "/metrics/global", token).json()["pools"]]
    anna = guarded.security.pseudonyms.of("anna")
    assert f"global/west/g1/{anna}" in paths
    for path in (f"/forecasts/{anna}", f"/forecasts/global/west/g1/{anna}"):
        answer = guarded.ask("GET", path, token)
        assert answer.status_code == 200
        assert answer.json()["path" if "path" in answer.json() else "pool"].endswith(anna)
    alarms = guarded.ask("GET", f"/alarms?pool=global/west/g1/{anna}", token).json()["alarms"]
    assert [alarm["pool"] for alarm in alarms] == [f"global/west/g1/{anna}"]
    refused = guarded.ask("GET", "/forecasts/anna", token)
    unknown = guarded.ask("GET", "/forecasts/zoe", token)
    assert (refused.status_code, unknown.status_code) == (404, 404)
    assert "anna" not in refused.text


def test_pseudonyms_are_stable_and_of_no_use_without_the_key(hidden: Pseudonyms):
    """The same after a restart; another planner's are others; and they look like names."""
    again, other = Pseudonyms("k" * 43), Pseudonyms("j" * 43)
    assert hidden.of("anna") == again.of("anna") != other.of("anna")
    assert re.fullmatch(r"anon-[a-z2-7]{12}", hidden.of("anna"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("anna", "{anna}"), ("global/west/g1/anna", "global/west/g1/{anna}"), ("user:anna", "user:{anna}"),
        ("anna: 18 Mbit/s above the forecast.", "{anna}: 18 Mbit/s above the forecast."),
        ("it is anna.", "it is {anna}."), ("anna, ben", "{anna}, {ben}"), ("annabel", "annabel"), ("hanna", "hanna"),
        ("a.b@c-d and anna-1", "{a.b@c-d} and anna-1"), ('say "anna"', 'say "{anna}"'), ("ünna/anna", "ünna/{anna}"),
    ],
)  # fmt: skip
def test_names_are_found_in_other_text(hidden: Pseudonyms, text: str, shown: str):
    """In paths, in sentences and beside colons; and parts of longer names are no names."""
    wanted = re.sub(r"\{(.*?)\}", lambda match: hidden.of(match[1]), shown)
    body = json.dumps({"x": text, "list": [text]}).encode()
    assert json.loads(hidden.hide(body, "application/json")) == {"x": wanted, "list": [wanted]}


@pytest.mark.parametrize(
    ("one", "another"),
    [("10.0.0.7", "10.0.0.7"), ("fe80::1", "FE80:0:0::1"), ("00:00:00:00:01:0a", "00-00-00-00-01-0A")],
)
def test_addresses_are_hidden_however_they_are_written(hidden: Pseudonyms, one: str, another: str):
    """Known or not: an address tells who somebody is as a name does."""
    first, second = (
        hidden.hide(json.dumps(f"host {text} talks").encode(), "application/json") for text in (one, another)
    )
    assert first == second
    assert one.encode() not in first
    assert PREFIX.encode() in first


@pytest.mark.parametrize(
    "text", ["12:30:00", "1.5", "0.1.0", "127.0", "2026-01-02T03:04:05Z", "dp 00000000000000a1", "::"]
)
def test_what_is_no_address_stays(hidden: Pseudonyms, text: str):
    """Times, versions and datapath ids."""
    assert json.loads(hidden.hide(json.dumps(text).encode(), "application/json")) == text


def test_users_called_like_words_of_the_api_do_not_break_it(guarded: Guarded):
    """Keys and enumerated values stay; the user's own places are hidden all the same."""
    snapshot = make_snapshot()
    path = (*snapshot.pools.path[:-1], "global/west/g1/user")
    guarded.operations.snapshot = replace(snapshot, pools=replace(snapshot.pools, path=path))
    pools = guarded.ask("GET", "/metrics/global", guarded.token("read")).json()["pools"]
    assert pools[-1]["level"] == "user"
    assert pools[-1]["path"] == f"global/west/g1/{guarded.security.pseudonyms.of('user')}"


def test_pages_streams_and_text_are_hidden_too(guarded: Guarded):
    """Also where a part ends within a name; what is no text is left alone."""

    @guarded.app.get("/dashboard/page")
    def page() -> Response:
        return HTMLResponse('<a class="anna" href="/pools/anna" title="anna">anna &amp; ben</a>')

    @guarded.app.get("/stream/x")
    def stream() -> Response:
        parts = [b'data: {"user": "an', b'na"}\n\n', b'data: {"user": "ben"}\n\n', b"data: end"]

        async def told():
            for part in parts:
                yield part

        return StreamingResponse(told(), media_type="text/event-stream")

    @guarded.app.get("/metrics/text")
    def text() -> Response:
        return Response('offered_bps{pool="global/west/g1/anna"} 1\n', media_type="text/plain")

    @guarded.app.get("/metrics/picture")
    def picture() -> Response:
        return Response(b"\x89PNG anna", media_type="image/png")

    token = guarded.token("read")
    of = guarded.security.pseudonyms.of
    assert guarded.ask("GET", "/dashboard/page", token).text == (
        f'<a class="anna" href="/pools/{of("anna")}" title="{of("anna")}">{of("anna")} &amp; {of("ben")}</a>'
    )
    told = guarded.ask("GET", "/stream/x", token).text
    assert told == f'data: {{"user": "{of("anna")}"}}\n\ndata: {{"user": "{of("ben")}"}}\n\ndata: end'
    assert of("anna") in guarded.ask("GET", "/metrics/text", token).text
    assert guarded.ask("GET", "/metrics/picture", token).content == b"\x89PNG anna"


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["anna", "x/anna", "user:ben"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("anna"), inner),
    max_leaves=20,
)


@given(_JSON)
def test_json_stays_json_and_comes_back(value: Any):
    """Of the same shape; without a name; and revealing undoes hiding."""
    hidden = Pseudonyms("k" * 43, ("anna", "ben"))
    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
        try:
            body.decode()
        except UnicodeDecodeError:
            continue
        shown = hidden.hide(body, "application/json")
        assert not re.search(r"\b(anna|ben)\b", json.dumps(json.loads(shown)))
        assert _shape(json.loads(shown)) == _shape(value)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted(map(_shape, value.values()), key=repr)
    return [_shape(entry) for entry in value] if isinstance(value, list) else type(value)


def test_large_answer_is_hidden_once_for_all_who_ask(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    """Ten thousand pools are worked through once a snapshot, not once a request."""
    snapshot = make_snapshot()
    users = tuple(f"global/west/g1/u{number}" for number in range(2000))
    rows = [4] * len(users)
    pools = snapshot.pools
    columns = {name: getattr(pools, name)[..., rows] for name in vars(pools) if name != "path"}
    guarded.operations.snapshot = replace(snapshot, groups=(), pools=replace(pools, path=users, **columns))
    calls = []
    real = guarded.security.pseudonyms.hide

    def hide(body: bytes, media_type: str) -> bytes:
        calls.append(len(body))
        return real(body, media_type)

    monkeypatch.setattr(guarded.security.pseudonyms, "hide", hide)
    token = guarded.token("read")

    async def go() -> set[bytes]:
        path = "/metrics/global?limit=10000"
        return {(await guarded.asked("GET", path, token)).content for _ in range(5)}

    (body,) = anyio.run(go)
    assert len(calls) == 1
    assert len(set(re.findall(rb"anon-[a-z2-7]{12}", body))) == 2000
