"""An API over a fake planner, and a client in the same loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from northbound.api import create_app
from tests.northbound.doubles import NOW, TOKEN, FakeOperations


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def app(operations: FakeOperations) -> FastAPI:
    return create_app(operations, TOKEN, now=lambda: NOW)


Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(app: FastAPI) -> Ask:
    """One request; ``token`` is sent as the bearer."""

    def asked(method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
                return await client.request(method, path, headers=headers, **more)

        return anyio.run(go)

    return asked
