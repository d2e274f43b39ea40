"""An API with tokens on disk, an audit log and a clock that a test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx

from northbound.api import create_app
from northbound.security.desk import Security
from northbound.security.pseudonyms import Pseudonyms
from northbound.security.sessions import Sessions
from northbound.security.tokens import TokenBook, TokenKeeper, make
from planner.audit import AuditLog
from planner.config_northbound import Limits
from tests.northbound.doubles import NOW, TOKEN, FakeOperations


class Guarded:
    """One planner's API, and whoever asks it."""

    def __init__(
        self, directory: Path, limits: Limits | None = None, cors_origins: tuple[str, ...] = ()
    ) -> None:
        self.now = NOW
        self.operations = FakeOperations()
        tokens, bootstrap = directory / "tokens.json", directory / "token"
        bootstrap.write_text(TOKEN)
        bootstrap.chmod(0o600)
        self.bootstrap_file = bootstrap
        self.book = TokenBook(tokens)
        self.keeper = TokenKeeper(TOKEN, bootstrap, tokens)
        self.security = Security(
            self.keeper,
            Sessions("k" * 43, self.keeper, 3600.0, secure=False),
            Pseudonyms("p" * 43, ("anna", "ben", "emma")),
            limits or Limits(failures_per_minute=1e6),
            audit=AuditLog(directory / "audit.jsonl", lambda: self.now),
            cors_origins=cors_origins,
            now=lambda: self.now,
        )
        self.app = create_app(self.operations, TOKEN, now=lambda: NOW, security=self.security)

    def token(self, scope: str, *, name: str | None = None, expires: float | None = None, **more: Any) -> str:
        """A new token, in force."""
        name = name or f"{scope}-{len(self.book.tokens())}"
        text, token = make(name, scope, self.now, expires, **more)
        self.book.add(token)
        return text

    def ask(
        self, method: str, path: str, token: str | None, *more_places: Any, **more: Any
    ) -> httpx.Response:
        """One request, from 127.0.0.1 unless ``address`` is another."""
        return anyio.run(lambda: self.asked(method, path, token, *more_places, **more))

    async def asked(
        self, method: str, path: str, token: str | None, address: str = "127.0.0.1", **more: Any
    ) -> httpx.Response:
        """The same, in a loop."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.request(method, path, headers=headers, **more)

    def log_in(self, token: str, address: str = "127.0.0.1", **more: Any) -> httpx.Response:
        """``POST /session``."""
        return self.ask("POST", "/session", None, address, json={"token": token}, **more)
