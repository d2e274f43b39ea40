"""The guides' requests: pasted one below another, each works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.northbound.conftest import Ask
from tests.northbound.doubles import TOKEN, FakeOperations

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("rest.md", "getting-started.md", "security.md", "events.md")
BASE = "http://127.0.0.1:8080"
#: What stands for what: ids of `make demo` for those of the double, and what the shell would put in.
STAND_INS = {"$API": BASE, "$TOKEN": TOKEN, "$(cat var/token)": TOKEN, "/groups/auto-2/": "/groups/auto-1/"}
SECTION = re.compile(r"^### `(\w+) (\S+)`\n(.*?)(?=^##|\Z)", flags=re.DOTALL | re.MULTILINE)
HEADER_INTO = re.compile(r"(\w+)=\$\((curl .*-w '%header\{([\w-]+)\}' .*)\)")


def text(page: str) -> str:
    """A page as it is printed."""
    return (DOCS / page).read_text()


def curls(text: str) -> list[str]:
    """The requests of a page, in its order, one a line."""
    lines = (
        line.replace("\\\n", " ")
        for block in re.findall(r"```(?:sh|text)\n(.*?)```", text, flags=re.DOTALL)
        for line in re.split(r"(?<!\\)\n", block)
    )
    return [line for line in lines if line.startswith("curl") or HEADER_INTO.match(line)]


def options(words: list[str], name: str) -> list[str]:
    """What follows each occurrence of an option."""
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def written(name: str, text: str) -> str:
    """What the page has the reader write into a file."""
    found = re.search(rf"cat > {name.removeprefix('@')} <<'EOF'\n(.*?)EOF\n", text, flags=re.DOTALL)
    assert found, name
    return found[1]


def method_and_path(line: str) -> tuple[str, str]:
    """What a request asks of the planner, as curl sends it."""
    words = shlex.split(line, comments=True)
    (url,) = [word for word in words if word.startswith(("http://", "https://", "$API"))]
    path = re.sub(r"^(\$API|https?://[^/]*)", "", url).partition("?")[0]
    posts = {"-d", "--data-binary"} & set(words)
    return (options(words, "-X") or ["POST" if posts else "GET"])[0], path


class Reader:
    """Somebody who pastes one request after another into one shell."""

    def __init__(self, ask: Ask, page: str) -> None:
        self._ask = ask
        self._text = text(page)
        self._variables = dict(STAND_INS)
        self._cookies = httpx.Cookies()

    def paste(self, line: str) -> str:
        """What was wrong with the answer, if anything."""
        into = HEADER_INTO.match(line)
        if into:
            self._variables[f"${into[1]}"] = self._answer(into[2]).headers[into[3]]
            return ""
        answer = self._answer(line)
        return "" if answer.is_success else f"{answer.status_code} {answer.text}\n  {line}"

    def _answer(self, line: str) -> httpx.Response:
        # Split first: as in a shell, quotes in a variable's value are part of it.
        words = [self._expanded(word) for word in shlex.split(line, comments=True)]
        (url,) = [word for word in words if word.startswith(BASE)]
        bodies = options(words, "-d") + [
            written(name, self._text) for name in options(words, "--data-binary")
        ]
        headers = dict(header.split(": ", 1) for header in options(words, "-H"))
        if "-b" in words:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        method, _ = method_and_path(line)
        content = bodies[0] if bodies else None
        answer = self._ask(method, url.removeprefix(BASE), None, content=content, headers=headers)
        if "-c" in words:
            self._cookies = answer.cookies
        return answer

    def _expanded(self, word: str) -> str:
        for name, value in self._variables.items():
            word = word.replace(name, value)
        return word


class Linked(FakeOperations):
    """The double whose planner knows the groups that are made, as a real one does, and none beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.grouping.delete("crew")

    def create_group(self, group_id: str, members: tuple[str, ...], policy: dict[str, Any]) -> None:
        super().create_group(group_id, members, policy)
        # Without carla its one discovered group would be gone, and nothing would find it again.
        pinned = tuple(member for member in members if member != "carla")
        self.running.planner.grouping.pin(group_id, pinned, self.running.now)


@pytest.fixture
def operations() -> FakeOperations:
    return Linked()


def test_every_route_has_a_section_with_its_request(app: FastAPI):
    """A route that is not described, or without a line to paste, is found by nobody."""
    sections = {(method, path): below for method, path, below in SECTION.findall(text("rest.md"))}
    for path, operations in app.openapi()["paths"].items():
        pattern = re.compile(re.sub(r"{\w+}", "[^/]+", path))
        for method in operations:
            assert (method.upper(), path) in sections
            asked = map(method_and_path, curls(sections[method.upper(), path]))
            assert any(one == method.upper() and pattern.fullmatch(there) for one, there in asked), path


@pytest.mark.parametrize("page", PAGES)
def test_pasted_requests_work_in_the_page_s_order(ask: Ask, page: str):
    """From the top down, each curl is answered with what it asks for."""
    reader = Reader(ask, page)
    # A stream has no end to wait for (test_stream_api.py), and another host is not here.
    lines = [line for line in curls(text(page)) if "/stream" not in line and "https://" not in line]
    assert lines
    assert [fault for line in lines if (fault := reader.paste(line))] == []


def test_request_that_fails_is_seen(ask: Ask):
    """The tests above would tell of an id that is not there."""
    reader = Reader(ask, "rest.md")
    assert reader.paste('curl -s -H "Authorization: Bearer $TOKEN" $API/groups/nowhere').startswith("404 ")
    assert reader.paste('curl -s "$API/groups/g1"').startswith("401 ")
