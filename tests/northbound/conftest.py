"""An API over a fake planner, and a client in the same loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from northbound.api import create_app
from northbound.client import TOKEN_VARIABLE
from northbound.security.desk import Security
from planner.config_northbound import Limits
from tests.northbound.doubles import NOW, TOKEN, FakeOperations


@pytest.fixture(autouse=True, scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The token as the command line finds it."""
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(TOKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, str(path))
        yield path


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def app(operations: FakeOperations) -> FastAPI:
    # The clock stands still, so buckets do not fill: what is asked in one test is never too much.
    limits = Limits(requests_per_s=1e6, failures_per_minute=1e6)
    security = Security.of_token(TOKEN, lambda: NOW, limits)
    return create_app(operations, TOKEN, now=lambda: NOW, security=security)


Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(app: FastAPI) -> Ask:
    """One request; ``token`` is sent as the bearer, the admin's unless another is given; None: none."""

    def asked(method: str, path: str, token: str | None = TOKEN, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
                return await client.request(method, path, headers=headers, **more)

        return anyio.run(go)

    return asked
