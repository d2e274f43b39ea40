"""Logins of browsers: a signed cookie that names the token it was made of, never the token itself.

A session made of one of the planner's tokens is looked up again at each request, so
revoking the token ends it. One made of a provider's token holds who that was, and ends with it.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

import jwt

from northbound.security.callers import Caller, Scope, Unrecognised
from northbound.security.tokens import TokenKeeper

#: The second is taken from a page served by TLS only, by the host that set it only.
COOKIES: Final = {False: "tidegate_session", True: "__Host-tidegate_session"}
#: What a page must send with a write: another origin's page cannot, without asking us first.
CSRF_HEADER: Final = "tidegate-csrf"
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "tidegate-session"


class Sessions:
    """Makes and reads the cookies of one planner."""

    def __init__(self, secret: str, keeper: TokenKeeper, lasts_s: float, secure: bool) -> None:
        """``secret`` outlives a restart, and so do sessions."""
        # Not the secret itself: what signs cookies must open nothing else.
        self._key = hmac.digest(secret.encode(), b"tidegate session cookies", "sha256")
        self._keeper = keeper
        self._lasts_s = lasts_s
        self._secure = secure
        self.cookie_name = COOKIES[secure]

    def open(self, caller: Caller, from_token: bool, now: float) -> tuple[str, float]:
        """The value of a cookie for this caller, and when it ends, epoch seconds."""
        ends = min(now + self._lasts_s, caller.expires)
        claims: dict[str, Any] = {"aud": _AUDIENCE, "exp": int(ends), "id": caller.id}
        if not from_token:
            claims["who"] = [caller.name, int(caller.scope), caller.region, caller.group, caller.users]
        return jwt.encode(claims, self._key, _ALGORITHM), ends

    def set_cookie(self, value: str, max_age_s: float) -> str:
        """The header that gives a browser the cookie; an age of 0 takes it away."""
        secure = "; Secure" if self._secure else ""
        return (
            f"{self.cookie_name}={value}; Path=/; Max-Age={int(max_age_s)}; HttpOnly; SameSite=Strict{secure}"
        )

    def value_in(self, cookie_header: str) -> str | None:
        """The session's value in a ``Cookie`` header."""
        try:
            morsel = SimpleCookie(cookie_header).get(self.cookie_name)
        except CookieError:
            return None
        return morsel.value if morsel is not None else None

    def recognise(self, value: str, now: float) -> Caller:
        """Whose session it is. Raises Unrecognised."""
        try:
            # Time is checked below, by the planner's own clock.
            claims = jwt.decode(
                value,
                self._key,
                [_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "id"], "verify_exp": False},
            )
        except jwt.InvalidTokenError:
            raise Unrecognised("the session is not one of this planner's") from None
        if now >= claims["exp"]:
            raise Unrecognised("the session has ended")
        if "who" not in claims:
            found = self._keeper.by_id(claims["id"], now)
            return Caller(**{**vars(found), "by_cookie": True})
        name, scope, region, group, users = claims["who"]
        return Caller(claims["id"], name, Scope(scope), region, group, users, claims["exp"], by_cookie=True)
