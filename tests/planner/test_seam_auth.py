"""The seam's proofs: what was changed, overheard or made up is refused on either side."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.seam_auth import WINDOW_S, NotAuthentic, Requests, check_seal, digest_fits, seal, sign

SECRET = "s" * 43
NOW = 1_000_000.0
REQUEST = ("POST", "/v1/samples?a=1", "speaker")


def signed(body: bytes = b"body", now: float = NOW) -> tuple[str, str]:
    return sign(SECRET, *REQUEST, body, now)


def test_authentic_request_is_let_through():
    """Its nonce goes into the answer's seal, and its body is the one that was signed."""
    header, nonce = signed()
    found, digest = Requests(SECRET).check(header, *REQUEST, NOW)
    assert found == nonce
    assert digest == hashlib.sha256(b"body").hexdigest()
    assert digest_fits(digest, b"body")
    assert not digest_fits(digest, b"bodY")
    assert SECRET not in header


@pytest.mark.parametrize(
    "changed",
    [("GET", *REQUEST[1:]), ("POST", "/v1/samples?a=2", "speaker"), ("POST", "/v1/samples", "speaker"),
     (*REQUEST[:2], "another")],
)  # fmt: skip
def test_request_that_was_changed_is_refused(changed: tuple[str, str, str]):
    """Method, path, query and speaker are all signed."""
    header, _ = signed()
    with pytest.raises(NotAuthentic, match="another signature"):
        Requests(SECRET).check(header, *changed, NOW)


@given(st.data())
def test_header_with_any_character_changed_is_refused(data: st.DataObject):
    """No part of it is left to choose."""
    header, _ = signed()
    at = data.draw(st.integers(0, len(header) - 1))
    other = data.draw(st.sampled_from("0123456789abcdefTx =,").filter(lambda one: one != header[at]))
    with pytest.raises(NotAuthentic):
        Requests(SECRET).check(header[:at] + other + header[at + 1 :], *REQUEST, NOW)


def test_request_is_good_once():
    """What was overheard cannot be sent again, for as long as it would be in time."""
    requests = Requests(SECRET)
    header, _ = signed()
    requests.check(header, *REQUEST, NOW)
    for later in (0, 1, WINDOW_S - 1, WINDOW_S):
        with pytest.raises(NotAuthentic, match="must be new"):
            requests.check(header, *REQUEST, NOW + later)
    with pytest.raises(NotAuthentic, match="clocks"):
        requests.check(header, *REQUEST, NOW + WINDOW_S + 1)


@given(st.lists(st.floats(0, 2 * WINDOW_S), max_size=30), st.floats(-WINDOW_S, WINDOW_S))
def test_request_is_good_once_however_the_others_fall(pauses: list[float], skew: float):
    """Forgetting nonces never makes room for one that is still in time."""
    requests = Requests(SECRET)
    now = NOW
    header, _ = signed(now=NOW + skew)
    requests.check(header, *REQUEST, NOW)
    for pause in pauses:
        now += pause
        requests.check(signed(now=now)[0], *REQUEST, now)
        with pytest.raises(NotAuthentic):
            requests.check(header, *REQUEST, now)


def test_answer_belongs_to_its_request():
    """Another request's answer, another status or body, and another's seal are refused."""
    _, nonce = signed()
    given_seal = seal(SECRET, nonce, 200, b"plan")
    check_seal(SECRET, nonce, 200, b"plan", given_seal)
    for wrong in (
        (SECRET, "0" * 32, 200, b"plan", given_seal),
        (SECRET, nonce, 422, b"plan", given_seal),
        (SECRET, nonce, 200, b"plaN", given_seal),
        ("x" * 43, nonce, 200, b"plan", given_seal),
        (SECRET, nonce, 200, b"plan", None),
        (SECRET, nonce, 200, b"plan", "ü"),
    ):
        with pytest.raises(NotAuthentic):
            check_seal(*wrong)


def test_a_request_is_no_answer():
    """The two kinds of proof cannot be taken for one another."""
    header, nonce = signed()
    with pytest.raises(NotAuthentic):
        check_seal(SECRET, nonce, 200, b"body", header.rsplit("mac=", 1)[1])
