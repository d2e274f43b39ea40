"""How the planner and its speakers know each other on the seam, without either sending the secret.

Each request carries an HMAC of all of it, a time and a nonce; each answer an HMAC of all of it and of
the request's nonce. So a stranger on the planner's port learns no secret and can feed no plan, a
stranger on the network can change nothing, and what was overheard cannot be played again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

#: A request's header, an answer's, and who speaks.
REQUEST_HEADER: Final = "authorization"
ANSWER_HEADER: Final = "tidegate-seal"
SPEAKER_HEADER: Final = "tidegate-speaker"
#: How far the clocks of a speaker and its planner may be apart, and how long nonces are remembered.
WINDOW_S: Final = 300.0
_SHAPE: Final = re.compile(
    r"Tidegate time=(\d{1,12}), nonce=([0-9a-f]{32}), digest=([0-9a-f]{64}), mac=([0-9a-f]{64})"
)


class NotAuthentic(Exception):
    """A message is not from whom it should be. Says which rule it breaks."""


def sign(secret: str, method: str, target: str, speaker: str, body: bytes, now: float) -> tuple[str, str]:
    """The header's value for a request, and its nonce. ``target`` is path and query; ``now`` epoch seconds."""
    nonce, moment, digest = secrets.token_hex(16), f"{now:.0f}", hashlib.sha256(body).hexdigest()
    mac = _mac(secret, "request", method, target, speaker, moment, nonce, digest)
    return f"Tidegate time={moment}, nonce={nonce}, digest={digest}, mac={mac}", nonce


def seal(secret: str, nonce: str, status: int, body: bytes) -> str:
    """The header's value for an answer to the request of this nonce."""
    return _mac(secret, "answer", nonce, str(status), hashlib.sha256(body).hexdigest())


def check_seal(secret: str, nonce: str, status: int, body: bytes, given: str | None) -> None:
    """Raise NotAuthentic unless the planner that has the secret gave this answer to this request."""
    if given is None or not hmac.compare_digest(given.encode(), seal(secret, nonce, status, body).encode()):
        raise NotAuthentic(
            f"answer must be sealed with the seam's secret, got {'none' if given is None else 'another seal'}"
        )


class Requests:
    """Which requests are authentic, as the planner judges. Used from one event loop."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        #: Nonces of two windows, the older of which goes as a whole.
        self._seen: tuple[set[str], set[str]] = (set(), set())
        self._turned = 0.0

    def check(self, header: str, method: str, target: str, speaker: str, now: float) -> tuple[str, str]:
        """The nonce and the body's digest of an authentic request's head. Raises NotAuthentic."""
        match = _SHAPE.fullmatch(header)
        if match is None:
            raise NotAuthentic("request must be signed with the seam's secret, got none")
        moment, nonce, digest, mac = match.groups()
        wanted = _mac(self._secret, "request", method, target, speaker, moment, nonce, digest)
        if not hmac.compare_digest(mac, wanted):
            raise NotAuthentic("request must be signed with the seam's secret, got another signature")
        if abs(now - int(moment)) > WINDOW_S:
            raise NotAuthentic(
                f"request must be of the last {WINDOW_S:g} s, got {now - int(moment):.0f} s: are both clocks right?"
            )
        self._once(nonce, now)
        return nonce, digest

    def _once(self, nonce: str, now: float) -> None:
        # A request is good for a window before and after its time: two of them hold all that could come again.
        if not 0 <= now - self._turned < 2 * WINDOW_S:
            self._seen, self._turned = (set(), self._seen[0]), now
        if nonce in self._seen[0] or nonce in self._seen[1]:
            raise NotAuthentic("request must be new, got one that came before")
        self._seen[0].add(nonce)


def digest_fits(digest: str, body: bytes) -> bool:
    """Whether a body is the one that was signed."""
    return hmac.compare_digest(hashlib.sha256(body).hexdigest(), digest)


def _mac(secret: str, *parts: str) -> str:
    # Lengths first: two different lists of parts never read the same.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()
