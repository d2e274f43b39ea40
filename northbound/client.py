"""What the command line asks of a running planner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from planner.config import Northbound, load

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TIMEOUT_S: Final = 10.0


class NoAnswer(Exception):
    """The planner did not answer as it should. One line: where, and what came instead."""


def base_url(url: str | None, config: Path | None) -> str:
    """Where the planner is: what was given, what the file says, or the default. Raises ConfigError."""
    if url is not None:
        return url.rstrip("/")
    if config is None:
        return DEFAULT_URL
    northbound = load(config).northbound
    host = f"[{northbound.host}]" if ":" in northbound.host else northbound.host
    return f"http://{host}:{northbound.port}"


def get(
    url: str, path: str, query: Mapping[str, Any] | None = None, also: tuple[int, ...] = ()
) -> dict[str, Any]:
    """The JSON object that the planner answers; statuses in ``also`` are answers too.

    Raises
    ------
    NoAnswer : if nothing answers there, or not with such an object.
    """
    return _ask(url, "GET", path, also, params=dict(query or {}))


def post(url: str, path: str, token: str) -> dict[str, Any]:
    """The JSON object that the planner answers to a write without a body. Raises NoAnswer."""
    return _ask(url, "POST", path, headers={"Authorization": f"Bearer {token}"})


def write(
    url: str, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON object that the planner answers to a write. Raises NoAnswer."""
    return _ask(url, method, path, headers={"Authorization": f"Bearer {token}"}, json=body)


def token(token_file: Path | None, config: Path | None) -> str:
    """The token for writes: from the file that was given, or the one that the configuration names.

    Raises
    ------
    ConfigError : if the configuration is wrong.
    NoAnswer : if the token cannot be read.
    """
    if token_file is None:
        token_file = load(config).northbound.token_file if config is not None else Northbound().token_file
    try:
        return token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoAnswer(f"token not read: {error}; give --config or --token-file") from None


def _ask(url: str, method: str, path: str, also: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    try:
        # Proxies of the environment are for the world outside, not for the loopback.
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            response = client.request(method, url + path, **more)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"no planner answers at {url}: {error}; is it running?") from None
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer(
            f"{url}{path} must answer a JSON object, got status {response.status_code} and something else"
        )
    if not response.is_success and response.status_code not in also:
        raise NoAnswer(f"{url}{path}: {answer.get('title', response.status_code)}")
    return answer
