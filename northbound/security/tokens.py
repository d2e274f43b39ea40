"""Tokens: made by command, kept as hashes, in force as soon as their file is written.

A token is ``tg_ID_SECRET`` with 256 random bits of secret. What is kept is its SHA-256: a
slow hash guards passwords that can be guessed, and 2**256 cannot, at any speed; a slow one
would only let strangers burn the planner's time.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from northbound.security.callers import SCOPES, Caller, Scope, Unrecognised
from planner.secret import OwnerFile, SecretError, read_owned, write_owned

LOG = logging.getLogger("tidegate.northbound")

PREFIX: Final = "tg_"
_SHAPE: Final = re.compile(r"tg_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
#: The name of the token that the planner makes at its first start.
BOOTSTRAP: Final = "bootstrap"


class TokenError(Exception):
    """A token cannot be made, found or changed so. One line: path, rule and value."""


@dataclass(frozen=True)
class Token:
    """One token as it is kept."""

    id: str
    name: str
    scope: str
    #: SHA-256 of the whole token, hexadecimal.
    hash: str
    #: Epoch seconds. ``expires`` None: never.
    created: float
    expires: float | None
    region: str | None = None
    group: str | None = None
    users: bool = False

    @property
    def caller(self) -> Caller:
        """Who holds it."""
        expires = float("inf") if self.expires is None else self.expires
        return Caller(self.id, self.name, SCOPES[self.scope], self.region, self.group, self.users, expires)


def make(
    name: str,
    scope: str,
    now: float,
    expires: float | None,
    *,
    region: str | None = None,
    group: str | None = None,
    users: bool = False,
) -> tuple[str, Token]:
    """A new token: what its holder sends, and what is kept of it.

    Raises
    ------
    TokenError : if a value is not one that a token can have.
    """
    if not _NAME.fullmatch(name) or name == BOOTSTRAP:
        raise TokenError(
            f"name must be letters, digits and . _ @ - (63 at most, not {BOOTSTRAP!r}), got {name!r}"
        )
    if scope not in SCOPES:
        raise TokenError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    if SCOPES[scope] is Scope.ADMIN and (region or group):
        raise TokenError("scope must be read or operate where a region or group is named, got 'admin'")
    if expires is not None and not expires > now:
        raise TokenError(f"expires must be later than now, got {expires:.0f}")
    token_id = secrets.token_hex(4)
    text = f"{PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
    return text, Token(token_id, name, scope, _hash(text), now, expires, region, group, users)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse_file(body: bytes) -> tuple[Token, ...]:
    """The tokens of a file. Raises TokenError."""
    try:
        raw: dict[str, Any] = json.loads(body) if body.strip() else {"tokens": []}
        tokens = tuple(Token(**entry) for entry in raw["tokens"])
        for token in tokens:
            if token.scope not in SCOPES or not re.fullmatch(r"[0-9a-f]{64}", token.hash):
                raise ValueError(f"token {token.id!r}")
    except (ValueError, LookupError, TypeError) as error:
        raise TokenError(f"the file of tokens is malformed: {error}") from None
    return tokens


class TokenBook:
    """The file of tokens, as the command changes it: whole or not at all, one change at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tokens(self) -> tuple[Token, ...]:
        """All, in the order of their making. Raises TokenError, SecretError."""
        return parse_file(read_owned(self._path)) if self._path.exists() else ()

    def add(self, token: Token) -> None:
        """Put a new one in force. Raises TokenError, SecretError."""
        with self._changing():
            tokens = self.tokens()
            if any(one.name == token.name for one in tokens):
                raise TokenError(f"name must be new, got {token.name!r}, which exists")
            self._write((*tokens, token))

    def rotate(self, name: str, now: float, expires: float | None) -> tuple[str, Token]:
        """A new secret and a new end for a token; the old secret is void at once. Raises TokenError."""
        with self._changing():
            tokens, old = self._find(name)
            text, new = make(
                old.name, old.scope, now, expires, region=old.region, group=old.group, users=old.users
            )
            self._write(tuple(new if one is old else one for one in tokens))
            return text, new

    def revoke(self, name: str) -> Token:
        """End a token. Raises TokenError."""
        with self._changing():
            tokens, old = self._find(name)
            self._write(tuple(one for one in tokens if one is not old))
            return old

    def _find(self, name: str) -> tuple[tuple[Token, ...], Token]:
        tokens = self.tokens()
        for token in tokens:
            if name in (token.name, token.id):
                return tokens, token
        raise TokenError(f"name must be the name or id of a token, got {name!r}")

    def _write(self, tokens: tuple[Token, ...]) -> None:
        body = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1)
        write_owned(self._path, body.encode() + b"\n")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold off other commands; readers need no lock, since the file is replaced whole."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._path.with_name(f".{self._path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class TokenKeeper:
    """Recognises tokens. Files are read again as soon as they change: what is revoked is void at once."""

    def __init__(
        self, bootstrap: str, bootstrap_file: Path | None = None, tokens_file: Path | None = None
    ) -> None:
        """``bootstrap`` is the token of ``northbound.token_file``; without that file, it stands for good."""
        self._bootstrap_hash: str | None = _hash(bootstrap)
        self._bootstrap_file = OwnerFile(bootstrap_file) if bootstrap_file else None
        self._tokens_file = OwnerFile(tokens_file) if tokens_file else None
        self._by_id: dict[str, Token] = {}
        self._generation = 0

    @property
    def generation(self) -> int:
        """Grows whenever a file was read anew."""
        return self._generation

    def recognise(self, text: str, now: float) -> Caller:
        """Who sends this token. Raises Unrecognised."""
        self._reread()
        shape = _SHAPE.fullmatch(text)
        digest = _hash(text)
        if shape is not None and (token := self._by_id.get(shape[1])) is not None:
            if hmac.compare_digest(digest, token.hash):
                return _unexpired(token.caller, now)
        elif self._bootstrap_hash is not None and hmac.compare_digest(digest, self._bootstrap_hash):
            return _bootstrap_caller(self._bootstrap_hash)
        raise Unrecognised("the token is unknown or was revoked")

    def by_id(self, token_id: str, now: float) -> Caller:
        """Who holds the token of this id, for as long as it is in force. Raises Unrecognised."""
        self._reread()
        if (token := self._by_id.get(token_id)) is not None:
            return _unexpired(token.caller, now)
        if self._bootstrap_hash is not None:
            caller = _bootstrap_caller(self._bootstrap_hash)
            if caller.id == token_id:
                return caller
        raise Unrecognised("the session's token was revoked")

    def _reread(self) -> None:
        if self._tokens_file is not None and self._tokens_file.changed():
            self._generation += 1
            self._by_id = {}
            try:
                body = self._tokens_file.read()
                self._by_id = {token.id: token for token in parse_file(body or b"")}
            except (TokenError, SecretError) as error:
                # Nobody's token holds until the file is right: a broken file must not keep a revoked one alive.
                LOG.error("tokens not read, all but %s are refused: %s", BOOTSTRAP, error)
        if self._bootstrap_file is not None and self._bootstrap_file.changed():
            self._generation += 1
            self._bootstrap_hash = None
            try:
                body = self._bootstrap_file.read()
                if body is not None and len(text := body.decode("ascii").strip()) >= 32:
                    self._bootstrap_hash = _hash(text)
            except (SecretError, UnicodeDecodeError) as error:
                LOG.error("northbound.token_file not read, its token is refused: %s", error)


def _bootstrap_caller(digest: str) -> Caller:
    # The id follows the secret: a session ends when the token is rotated.
    return Caller(f"{BOOTSTRAP}-{digest[:8]}", BOOTSTRAP, Scope.ADMIN, users=True)


def _unexpired(caller: Caller, now: float) -> Caller:
    if now >= caller.expires:
        raise Unrecognised("the token has expired")
    return caller
