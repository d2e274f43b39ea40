"""Headers that browsers obey: what a page may load, who may frame it, and what is not kept."""

from __future__ import annotations

from typing import Final

#: Nothing from elsewhere, no script in the page itself, no frame around it.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Swagger UI starts itself by a script in its page and styles itself as it goes; its page shows no data.
DOCS_POLICY: Final = PAGE_POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'").replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
)
_DOCS: Final = ("/docs", "/static-offline-docs")
_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    # No proxy and no disk of a shared machine may keep what was shown to one who might see it.
    (b"cache-control", b"no-store"),
)
_POLICY: Final = b"content-security-policy"
_TLS: Final = (b"strict-transport-security", b"max-age=31536000")


def protect(headers: list[tuple[bytes, bytes]], path: str, by_tls: bool) -> None:
    """Add them to an answer's; what a route has set for itself stands."""
    present = {name for name, _ in headers}
    policy = DOCS_POLICY if path.startswith(_DOCS) else PAGE_POLICY
    wanted = (*_ALWAYS, (_POLICY, policy.encode()), *((_TLS,) if by_tls else ()))
    headers.extend(pair for pair in wanted if pair[0] not in present)
