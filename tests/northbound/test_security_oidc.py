"""Tokens of an identity provider: taken when its key signed them for this planner, and for what they grant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from northbound.security.oidc import Provider
from planner.config_northbound import Oidc
from tests.northbound.doubles import NOW
from tests.northbound.guarded import Guarded

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS = {
    "iss": "https://idp.example", "aud": "tidegate", "sub": "u-17", "exp": NOW + 60, "preferred_username": "carla",
    "scope": "openid tidegate.operate tidegate.read",
}  # fmt: skip


def keys(*pairs: tuple[str, Any]) -> str:
    found = []
    for key_id, key in pairs:
        algorithm = (
            jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        )
        found.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id})
    return json.dumps({"keys": found})


def signed(key: Any = KEY, key_id: str | None = "k1", algorithm: str = "RS256", **claims: Any) -> str:
    headers = {"kid": key_id} if key_id else None
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(body, key, algorithm, headers=headers)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(keys(("k1", KEY)))
    path.chmod(0o600)
    return path


@pytest.fixture
def guarded(tmp_path: Path, jwks: Path) -> Guarded:
    made = Guarded(tmp_path)
    made.security.provider = Provider(
        Oidc(
            issuer="https://idp.example", audience="tidegate", jwks_file=jwks, name_claim="preferred_username"
        )
    )
    return made


def test_valid_token_may_what_it_grants(guarded: Guarded):
    """The highest of its scopes counts; the planner's own tokens go on working."""
    who = guarded.ask("GET", "/session", signed()).json()
    assert (who["name"], who["scope"], who["users"]) == ("oidc:carla", "operate", True)
    assert guarded.ask("PUT", "/plan/mode", signed(), json={"mode": "shadow"}).status_code == 403
    assert guarded.ask("GET", "/plan", guarded.token("read")).status_code == 200
    reader = guarded.ask("GET", "/session", signed(scope=["tidegate.read"])).json()
    assert (reader["scope"], reader["users"]) == ("read", False)
    granted = guarded.ask("GET", "/session", signed(scope="tidegate.read tidegate.users")).json()
    assert granted["users"]


def test_token_may_be_limited_to_a_region(guarded: Guarded):
    """By a claim."""
    limited = signed(tidegate_region="east")
    assert guarded.ask("GET", "/session", limited).json()["region"] == "east"
    assert guarded.ask("GET", "/metrics/group/g1", limited).status_code in (403, 404)
    assert guarded.ask("GET", "/plan", limited).status_code == 403


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda: signed(OTHER), id="another key"), pytest.param(lambda: signed(aud="other"), id="another audience"),
        pytest.param(lambda: signed(iss="https://evil.example"), id="another issuer"),
        pytest.param(lambda: signed(exp=NOW - 31), id="over"), pytest.param(lambda: signed(nbf=NOW + 31), id="not yet"),
        pytest.param(lambda: signed(exp=None), id="without end"), pytest.param(lambda: signed(sub=None), id="of nobody"),
        pytest.param(lambda: signed(scope="openid"), id="without our scope"), pytest.param(lambda: signed(scope=None), id="no scope"),
        pytest.param(lambda: signed(key_id="unknown"), id="unknown key id"),
        pytest.param(lambda: jwt.encode(CLAIMS, "", "none", headers={"kid": "k1"}), id="unsigned"),
        pytest.param(lambda: signed()[:-4] + "AAAA", id="changed"), pytest.param(lambda: "a.b.c", id="nonsense"),
        pytest.param(lambda: with_public_key_as_secret(KEY), id="public key as a shared secret"),
    ],
)  # fmt: skip
def test_other_tokens_are_refused(guarded: Guarded, text: Any):
    """Each rule alone suffices."""
    token = text()
    answer = guarded.ask("GET", "/health", token)
    assert answer.status_code == 401
    assert token not in answer.text


def with_public_key_as_secret(key: Any) -> str:
    import base64
    import hashlib
    import hmac

    from cryptography.hazmat.primitives import serialization

    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    head = part(json.dumps({"alg": "HS256", "kid": "k1"}).encode()) + "." + part(json.dumps(CLAIMS).encode())
    return head + "." + part(hmac.digest(pem, head.encode(), hashlib.sha256))


def test_new_keys_of_the_provider_are_taken_up(guarded: Guarded, jwks: Path):
    """And what an old one signed is refused, once the provider has withdrawn it."""
    assert guarded.ask("GET", "/health", signed()).status_code == 200
    new = ec.generate_private_key(ec.SECP256R1())
    jwks.write_text(keys(("k2", new)))
    assert guarded.ask("GET", "/health", signed(new, "k2", "ES256")).status_code == 200
    assert guarded.ask("GET", "/health", signed()).status_code == 401


def test_session_of_a_providers_token_ends_with_it(guarded: Guarded):
    """It remembers who that was, and no longer than the provider said."""
    answer = guarded.log_in(signed())
    assert answer.status_code == 201
    cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
    who = guarded.ask("GET", "/session", None, headers=cookie).json()
    assert (who["name"], who["scope"], who["ends"]) == ("oidc:carla", "operate", NOW + 60)
    guarded.now = NOW + 60
    assert guarded.ask("GET", "/session", None, headers=cookie).status_code == 401
