"""Tokens of an identity provider: signed JWTs, checked against its published keys (OpenID Connect)."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Final

import httpx
import jwt

from northbound.security.callers import SCOPES, Caller, Unrecognised
from planner.config_northbound import Oidc
from planner.secret import OwnerFile

LOG = logging.getLogger("tidegate.northbound")

#: Signatures by a key that only the provider has. Never ``none``; never a shared secret, which a
#: verifier could be tricked to take a public key for.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY_S: Final = 30.0
#: Keys are asked for again after this, and for an unknown key id not before the second.
_FRESH_S: Final = 3600.0
_ASK_AGAIN_S: Final = 60.0
_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 1 << 20


class Provider:
    """One identity provider. Used from one event loop."""

    def __init__(self, settings: Oidc) -> None:
        self._settings = settings
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = float("-inf")
        self._file = OwnerFile(settings.jwks_file) if settings.jwks_file is not None else None
        self._lock = asyncio.Lock()

    async def recognise(self, text: str, now: float) -> Caller:
        """Who holds this token. Raises Unrecognised."""
        try:
            key = await self._key(jwt.get_unverified_header(text).get("kid"), now)
            claims = jwt.decode(
                text,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            # The planner's own clock, for one notion of now.
            expires, begins = float(claims["exp"]), float(claims.get("nbf", 0))
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise Unrecognised(f"the provider's token is not valid: {type(error).__name__}") from None
        if now >= expires + _LEEWAY_S or now < begins - _LEEWAY_S:
            raise Unrecognised("the provider's token is not valid now")
        return self._caller(claims, expires)

    def _caller(self, claims: dict[str, Any], expires: float) -> Caller:
        own = self._settings
        given = claims.get(own.scope_claim, ())
        granted = set(given.split() if isinstance(given, str) else map(str, given))
        scopes = [SCOPES[scope] for name, scope in own.scopes.items() if name in granted]
        if not scopes:
            raise Unrecognised("the provider's token has none of the planner's scopes")
        region, group = (_text(claims.get(name)) for name in (own.region_claim, own.group_claim))
        name = _text(claims.get(own.name_claim)) or str(claims["sub"])
        return Caller(
            f"oidc-{claims['sub']}",
            f"oidc:{name}",
            max(scopes),
            region,
            group,
            own.users_scope in granted,
            expires,
        )

    async def _key(self, key_id: str | None, now: float) -> jwt.PyJWK:
        async with self._lock:
            if self._is_due(key_id, now):
                self._read_at = now
                try:
                    self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(await self._read()).keys}
                except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError) as error:
                    # What was known serves on: a provider away for a minute locks nobody out.
                    LOG.warning("northbound.oidc: keys not read: %s", error)
        key = self._keys.get(key_id)
        if key is None and key_id is None and len(self._keys) == 1:
            (key,) = self._keys.values()
        if key is None:
            raise Unrecognised("the provider's token is signed by an unknown key")
        return key

    def _is_due(self, key_id: str | None, now: float) -> bool:
        if self._file is not None:
            return self._file.changed()
        wait_s = _FRESH_S if key_id in self._keys else _ASK_AGAIN_S
        return now - self._read_at >= wait_s

    async def _read(self) -> dict[str, Any]:
        if self._settings.jwks_file is not None:
            raw = json.loads(self._settings.jwks_file.read_bytes())
        else:
            assert self._settings.jwks_url is not None
            async with (
                httpx.AsyncClient(timeout=_TIMEOUT_S) as client,
                client.stream("GET", self._settings.jwks_url) as answer,
            ):
                answer.raise_for_status()
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise ValueError(f"keys must be at most {_MAX_BYTES} bytes, got more")
                raw = json.loads(body)
        if not isinstance(raw, dict):
            raise ValueError("keys must be a JWKS object")
        return raw


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
