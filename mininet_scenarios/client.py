"""Reads the planner's REST API, and knows nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx


class ApiError(Exception):
    """The API did not answer, or not with what was asked for."""


class Client:
    """The API at an address such as ``http://127.0.0.1:8080``, asked with the token in a file."""

    def __init__(self, url: str, token_file: Path, timeout_s: float = 5.0) -> None:
        self.url = url
        self._token_file = token_file
        # Proxies of the environment have no say on loopback.
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """``status`` and what is wrong. An unhealthy answer is an answer, whatever its HTTP status."""
        return self._get("/health", any_status=True)

    def plan(self) -> dict[str, Any]:
        """The plan in force: version, mode, and meters by switch."""
        return self._get("/plan")

    def pools(self) -> dict[str, Any]:
        """``time`` and ``pools``: every pool with its upload and download values."""
        return self._get("/metrics/global")

    def _get(self, path: str, any_status: bool = False) -> dict[str, Any]:
        try:
            # Read each time: the planner makes it at its first start, and an operator may rotate it.
            token = self._token_file.read_text().strip()
            reply = self._http.get(path, headers={"Authorization": f"Bearer {token}"})
            if not any_status or reply.status_code == httpx.codes.UNAUTHORIZED:
                reply.raise_for_status()
            body = reply.json()
        except (OSError, httpx.HTTPError, ValueError) as error:
            raise ApiError(f"GET {path} must give JSON, got {error}") from None
        if not isinstance(body, dict):
            raise ApiError(f"GET {path} must give an object, got {type(body).__name__}")
        return body
