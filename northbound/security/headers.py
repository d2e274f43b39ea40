"""Headers that browsers obey: what a page may load, who may frame it, and what is not kept."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders

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
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def protect(headers: MutableHeaders, path: str, by_tls: bool) -> None:
    """Add them to an answer; what a route has set for itself stands, but for its policy's absence."""
    headers.setdefault("Content-Security-Policy", DOCS_POLICY if path.startswith(_DOCS) else PAGE_POLICY)
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    # No proxy and no disk of a shared machine may keep what was shown to one who might.
    headers.setdefault("Cache-Control", "no-store")
    if by_tls:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
