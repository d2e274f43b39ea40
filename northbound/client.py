"""What the command line asks of a running planner."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from northbound.cli_exit import Exit, of_http
from planner.config_northbound import Northbound

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TIMEOUT_S: Final = 10.0
#: Where a token is, and who signed the planner's certificate, where no option says so.
TOKEN_VARIABLE: Final = "TIDEGATE_TOKEN_FILE"  # noqa: S105 - the name of a variable
CA_VARIABLE: Final = "TIDEGATE_CA_FILE"
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # nosec B104 - seen from here


class NoAnswer(Exception):
    """The planner did not answer as it should: where, and what came instead, a line each."""

    def __init__(self, *lines: str, status: Exit = Exit.FAILED, http: int | None = None) -> None:
        super().__init__(*lines)
        #: How a command ends that wanted the answer.
        self.status = status
        #: The status that was answered; None: none was.
        self.http = http

    def __str__(self) -> str:
        return "\n".join(self.args)


def base_url(url: str | None, config: Path | None) -> str:
    """Where the planner is: what was given, what the file says, or the default.

    Raises
    ------
    ConfigError : if the configuration is wrong.
    NoAnswer : if what was given is no address.
    """
    if url is not None:
        return _checked(url).rstrip("/")
    if config is None:
        return DEFAULT_URL
    northbound = _northbound(config)
    host = _ANY_ADDRESS.get(northbound.host, northbound.host)
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if northbound.by_tls else 'http'}://{host}:{northbound.port}"


def _checked(url: str) -> str:
    rule = "--url must be like http://127.0.0.1:8080 or https://HOST:PORT"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise NoAnswer(f"{rule}, got {url!r}", status=Exit.MISUSED) from None
    if "@" in parts.netloc:
        # Not shown: it may hold a password.
        raise NoAnswer(f"{rule}, got one with a user in it", status=Exit.MISUSED)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise NoAnswer(f"{rule}, got {url!r}", status=Exit.MISUSED)
    return url


def get(
    url: str,
    path: str,
    token: str,
    query: Mapping[str, Any] | None = None,
    also: tuple[int, ...] = (),
    ca: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """The JSON object that the planner answers; statuses in ``also`` are answers too.

    Raises
    ------
    NoAnswer : if nothing answers there, or not with such an object.
    """
    return _ask(url, "GET", path, token, also, ca, timeout_s, params=dict(query or {}))


def write(
    url: str,
    method: str,
    path: str,
    token: str,
    body: Mapping[str, Any] | None = None,
    ca: Path | None = None,
) -> dict[str, Any]:
    """The JSON object that the planner answers to a write. Raises NoAnswer."""
    return _ask(url, method, path, token, (), ca, TIMEOUT_S, json=body)


def send(
    url: str,
    method: str,
    path: str,
    token: str,
    content: bytes,
    media_type: str,
    query: Mapping[str, Any],
    ca: Path | None = None,
) -> dict[str, Any]:
    """The JSON object that the planner answers to a body that is no JSON. Raises NoAnswer."""
    headers = {"Content-Type": media_type}
    return _ask(url, method, path, token, (), ca, TIMEOUT_S, content=content, headers=headers, params=query)


def token_path(token_file: Path | None, config: Path | None) -> Path:
    """The file with the token: what was given, or what ``TIDEGATE_TOKEN_FILE`` or the configuration names.

    Raises
    ------
    ConfigError : if the configuration is wrong.
    """
    if token_file is None and (named := os.environ.get(TOKEN_VARIABLE)):
        token_file = Path(named)
    return _northbound(config).token_file if token_file is None else token_file


def token(path: Path) -> str:
    """The token in a file. Raises NoAnswer if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoAnswer(
            f"token not read: {error}; give --config or --token-file, or set {TOKEN_VARIABLE}"
        ) from None


def authority(config: Path | None) -> Path | None:
    """Who signed the planner's certificate: a file that is named, or the certificate that it made itself."""
    if named := os.environ.get(CA_VARIABLE):
        return Path(named)
    northbound = _northbound(config)
    return northbound.cert_path if northbound.by_tls and northbound.cert_path.exists() else None


def _northbound(config: Path | None) -> Northbound:
    if config is None:
        return Northbound()
    # Here and not above: most calls have no file, and it loads a quarter of a second of libraries.
    from planner.config import load

    return load(config).northbound


def _ask(
    url: str,
    method: str,
    path: str,
    token: str,
    also: tuple[int, ...],
    ca: Path | None,
    timeout_s: float,
    **more: Any,
) -> dict[str, Any]:
    try:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca is not None else True
        # Proxies of the environment are for the world outside, not for the loopback.
        with httpx.Client(timeout=timeout_s, trust_env=False, verify=verify) as client:
            headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
            response = client.request(method, url + path, headers=headers, **more)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fault = f"no planner answers at {url}: {error}; is it running?"
        raise NoAnswer(fault, status=Exit.UNREACHABLE) from None
    except (OSError, ValueError) as error:
        raise NoAnswer(f"{url} not asked: {error}") from None
    if response.status_code == httpx.codes.NO_CONTENT:
        return {}
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer(
            f"{url}{path} must answer a JSON object, got status {response.status_code} and something else",
            http=response.status_code,
        )
    if not response.is_success and response.status_code not in also:
        faults = answer.get("errors") or [answer.get("title", response.status_code)]
        lines = (f"{url}{path}: {fault}" for fault in faults)
        raise NoAnswer(*lines, status=of_http(response.status_code), http=response.status_code)
    return answer
