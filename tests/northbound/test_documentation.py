"""docs/rest.md: what a reader pastes works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.northbound.conftest import Ask
from tests.northbound.doubles import TOKEN

TEXT = (Path(__file__).parents[2] / "docs" / "rest.md").read_text()
CURLS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("curl")
]


def options(words: list[str], name: str) -> list[str]:
    """What follows each occurrence of an option."""
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def written(name: str) -> str:
    """What the page has the reader write into a file."""
    found = re.search(rf"cat > {name.removeprefix('@')} <<'EOF'\n(.*?)EOF\n", TEXT, flags=re.DOTALL)
    assert found, name
    return found[1]


def test_every_route_has_a_section(app: FastAPI):
    """A route that is not described is found by nobody."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            assert f"### `{method.upper()} {path}`" in TEXT
    assert len(CURLS) >= 10


@pytest.mark.parametrize("line", CURLS)
def test_pasted_request_works(ask: Ask, line: str):
    """Each curl of the page is answered with what it asks for."""
    words = shlex.split(line.replace("$TOKEN", TOKEN).replace("$API", "http://127.0.0.1:8080"))
    (url,) = [word for word in words if word.startswith("http://")]
    method = (options(words, "-X") or ["GET"])[0]
    headers = dict(header.split(": ", 1) for header in options(words, "-H"))
    if "/groups/studio" in url or "/group/studio" in url:
        url = url.replace("studio", "g1")
    bodies = options(words, "-d") + [written(name) for name in options(words, "--data-binary")]
    response = ask(
        method,
        url.removeprefix("http://127.0.0.1:8080"),
        None,
        content=bodies[0] if bodies else None,
        headers=headers,
    )
    assert response.is_success, response.text
