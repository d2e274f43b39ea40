"""One reading of a feed: bounded in time and size, over few schemes, and without telling secrets."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx

from planner.config_events import EventFeed, may_carry_token
from planner.events.parsed import BadFeed

MAX_BODY_BYTES: Final = 4 << 20
_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True)
class Validators:
    """What a server said to ask with the next time (RFC 9110, section 13)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The conditions of the next request."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Fetched:
    """What came: the body, or None where it is as it was."""

    body: bytes | None
    validators: Validators = Validators()


def fetch(
    feed: EventFeed, before: Validators = Validators(), clock: Callable[[], float] = time.monotonic
) -> Fetched:
    """Read a feed once.

    Raises
    ------
    BadFeed : when it cannot be read, is too large or too slow.
    """
    if feed.file is not None:
        return Fetched(_read_file(feed.file))
    assert feed.url is not None
    parts = urlsplit(feed.url)
    if parts.scheme == "file":
        return Fetched(_read_file(Path(unquote(parts.path))))
    token = None if feed.token_file is None else _read_token(feed.token_file)
    try:
        return _get(feed.url, feed.timeout_s, token, before, clock)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        # Its text may name the whole URL; the kind of error is enough.
        raise BadFeed(f"cannot be read: {_told(error)}") from None


def _get(
    url: str, timeout_s: float, token: str | None, before: Validators, clock: Callable[[], float]
) -> Fetched:
    deadline = clock() + timeout_s
    with httpx.Client(timeout=timeout_s, follow_redirects=False) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            # Compressed, a small answer could become a large one before it is counted.
            headers = {"Accept-Encoding": "identity", "User-Agent": "tidegate", **before.headers}
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            with client.stream("GET", url, headers=headers) as response:
                if response.status_code in _REDIRECTS:
                    url, token = _redirected(url, response.headers.get("location", ""), token)
                    continue
                if response.status_code == _NOT_MODIFIED and before.headers:
                    return Fetched(None, before)
                if response.status_code != httpx.codes.OK:
                    raise BadFeed(f"must answer 200, got {response.status_code}")
                return Fetched(
                    _whole_body(response, deadline, clock),
                    Validators(response.headers.get("etag"), response.headers.get("last-modified")),
                )
    raise BadFeed(f"must redirect at most {_MAX_REDIRECTS} times")


def _redirected(url: str, location: str, token: str | None) -> tuple[str, str | None]:
    """Where to go instead, and whether the secret goes along: only to the same origin."""
    here = httpx.URL(url)
    there = here.join(location)
    if there.scheme not in ("http", "https") or (here.scheme == "https" and there.scheme != "https"):
        raise BadFeed(f"must not redirect from {here.scheme} to {there.scheme}")
    if there.userinfo:
        raise BadFeed("must not redirect to a URL with a user or password")
    same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
    return str(there), token if same and may_carry_token(str(there)) else None


def _whole_body(response: httpx.Response, deadline: float, clock: Callable[[], float]) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BadFeed("must not be compressed: it was asked for as it is")
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadFeed(f"must have at most {MAX_BODY_BYTES} bytes, got more")
        # The library's time-out is for each read: one byte a second would never end.
        if clock() > deadline:
            raise BadFeed("must answer in time, got only a part")
    return bytes(body)


def _read_file(path: Path) -> bytes:
    try:
        # Not blocking: a pipe that nobody writes to would hold the thread for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadFeed(f"{path} must be a file")
            body = file.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise BadFeed(f"{path} must be readable, got {error.strerror}") from None
    if len(body) > MAX_BODY_BYTES:
        raise BadFeed(f"{path} must have at most {MAX_BODY_BYTES} bytes, got more")
    return body


def _read_token(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise BadFeed(f"{path} must be readable by its owner alone (chmod 600), got mode {mode:o}")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise BadFeed(f"{path} must be a readable token, got {type(error).__name__}") from None
    if not token or not token.isprintable() or " " in token:
        raise BadFeed(f"{path} must hold one token")
    return token


def _told(error: Exception) -> str:
    """The kind of error, and the system's own word for it where there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"{type(error).__name__}, {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
