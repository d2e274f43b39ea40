"""All that decides who may ask, in one value: what ``create_app`` gets and the guard puts in force."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from northbound.security.answering import HiddenBodies
from northbound.security.callers import Caller, Unrecognised
from northbound.security.oidc import Provider
from northbound.security.pseudonyms import Pseudonyms
from northbound.security.rates import Buckets
from northbound.security.sessions import Sessions
from northbound.security.tokens import TokenKeeper
from planner.audit import AuditLog
from planner.config import Config
from planner.config_northbound import LOOPBACK, Limits, Northbound
from planner.secret import read_or_make


@dataclass
class Security:
    """Who is who, and what bounds there are."""

    keeper: TokenKeeper
    sessions: Sessions
    pseudonyms: Pseudonyms
    limits: Limits = field(default=Limits())
    #: Names by which clients may call the planner.
    hosts: frozenset[str] = frozenset({*LOOPBACK, "[::1]"})
    provider: Provider | None = None
    audit: AuditLog | None = None
    by_tls: bool = False
    cors_origins: tuple[str, ...] = ()
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        limits = self.limits
        self.hidden = HiddenBodies(self.pseudonyms)
        self.requests = Buckets(limits.requests_per_s, limits.requests_per_s)
        self.failures = Buckets(limits.failures_per_minute / 60, limits.failures_per_minute)
        self.logins = Buckets(limits.logins_per_minute / 60, limits.logins_per_minute)

    @classmethod
    def of_token(
        cls, token: str, now: Callable[[], float] = time.time, limits: Limits | None = None
    ) -> Security:
        """One admin token and nothing on disk."""
        keeper = TokenKeeper(token)
        return cls(
            keeper,
            Sessions(token, keeper, 3600.0, secure=False),
            Pseudonyms(token),
            limits or Limits(),
            now=now,
        )

    @classmethod
    def of_config(cls, config: Config, token: str, audit: AuditLog | None) -> Security:
        """What the configuration says. Files that are missing are made. Raises SecretError."""
        northbound = config.northbound
        keeper = TokenKeeper(token, northbound.token_file, northbound.tokens_path)
        key = read_or_make(northbound.beside_token("session.key"))
        sessions = Sessions(key, keeper, northbound.session_s, northbound.by_tls)
        pseudonyms = Pseudonyms(read_or_make(northbound.beside_token("pseudonym.key")), config.users)
        return cls(
            keeper,
            sessions,
            pseudonyms,
            northbound.limits,
            host_names(northbound),
            Provider(northbound.oidc) if northbound.oidc is not None else None,
            audit,
            northbound.by_tls,
            northbound.cors_origins,
        )

    async def recognise(self, headers: Headers) -> Caller:
        """Whose request this is: by its bearer token, or else by its session. Raises Unrecognised."""
        authorization = headers.get("authorization")
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise Unrecognised("Authorization must be Bearer TOKEN")
            return (await self.by_token(given.strip()))[0]
        value = self.sessions.value_in(headers.get("cookie", ""))
        if value is None:
            raise Unrecognised("Authorization must be Bearer TOKEN, got none")
        return self.sessions.recognise(value, self.now())

    async def by_token(self, text: str) -> tuple[Caller, bool]:
        """Whose token this is, and whether it is one of the planner's own. Raises Unrecognised."""
        if self.provider is not None and text.count(".") == 2:
            return await self.provider.recognise(text, self.now()), False
        return self.keeper.recognise(text, self.now()), True


def host_names(northbound: Northbound) -> frozenset[str]:
    """The names that a ``Host`` header may have, IPv6 addresses in brackets."""
    named: Iterable[str] = (*LOOPBACK, northbound.host, *northbound.allowed_hosts)
    return frozenset(
        f"[{name}]" if ":" in name and not name.startswith("[") else name for name in map(str.lower, named)
    )
