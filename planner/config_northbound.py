"""The configuration of the REST API: where it listens, who may ask, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from planner.config_block import Block
from planner.config_fields import Port, Positive, number

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
Count = Annotated[int, BeforeValidator(number), Field(ge=1)]


class Tls(Block):
    """The certificate of the REST API. Beyond loopback, one is made where none is named."""

    cert_file: Path | None = Field(default=None, description="certificate and what signed it (PEM)")
    key_file: Path | None = Field(default=None, description="its key (PEM)")


class Oidc(Block):
    """Tokens that an identity provider issues (JWT), beside the planner's own."""

    issuer: str = Field(description="the provider: `iss` of its tokens")
    audience: str = Field(description="this planner: `aud` of its tokens")
    jwks_file: Path | None = Field(default=None, description="the provider's keys, a JWKS file")
    jwks_url: str | None = Field(default=None, description="where the provider publishes them, https://")
    name_claim: str = Field(default="sub", description="claim that names the holder in the audit log")
    scope_claim: str = Field(
        default="scope", description="claim that holds scopes: text with blanks, or a list"
    )
    scopes: dict[str, Literal["read", "operate", "admin"]] = Field(
        default={"tidegate.read": "read", "tidegate.operate": "operate", "tidegate.admin": "admin"},
        description="what each of the provider's scopes allows; the highest counts",
    )
    users_scope: str = Field(default="tidegate.users", description="scope that shows users to readers")
    region_claim: str = Field(default="tidegate_region", description="claim that limits to a region")
    group_claim: str = Field(default="tidegate_group", description="claim that limits to a group")


class Limits(Block):
    """How much one caller may ask, and all of them together."""

    requests_per_s: Positive = Field(default=2000.0, description="of one token; as many at once")
    failures_per_minute: Positive = Field(default=120.0, description="refused credentials of one address")
    logins_per_minute: Positive = Field(default=10.0, description="attempts to log in of one address")
    concurrent: Count = Field(default=256, description="requests under way at a time, streams included")
    body_bytes: Count = Field(default=1 << 20, description="the largest body")
    json_depth: Count = Field(default=16, description="lists and objects inside one another")
    answer_timeout_s: Positive = Field(default=30.0, description="an answer begins within")


class Northbound(Block):
    """The REST API."""

    host: str = Field(default="127.0.0.1", description="address to listen on; beyond loopback always by TLS")
    port: Port = Field(default=8080, description="TCP port; 0: any free one")
    token_file: Path = Field(
        default=Path("var/token"), description="made at first start, mode 0600: all may be done"
    )
    tokens_file: Path | None = Field(
        default=None, description="tokens made by command; absent: tokens.json beside token_file"
    )
    audit_file: Path | None = Field(
        default=None, description="log of writes and automatic actions; absent: audit.jsonl beside token_file"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names that clients may use for it, beside host and loopback"
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="origins whose pages may ask with a token; none: no other page may"
    )
    session_s: Positive = Field(default=12 * 3600.0, description="a login lasts at most")
    tls: Tls = Field(default=Tls(), description="its certificate")
    oidc: Oidc | None = Field(default=None, description="an identity provider; absent: none")
    limits: Limits = Field(default=Limits(), description="bounds on what is asked")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can ask."""
        return self.host in LOOPBACK

    @property
    def by_tls(self) -> bool:
        """Whether it speaks TLS."""
        return self.tls.cert_file is not None or not self.on_loopback

    def beside_token(self, name: str) -> Path:
        """Where a file stands that has no path of its own."""
        return self.token_file.with_name(name)

    @property
    def tokens_path(self) -> Path:
        """The file of tokens."""
        return self.tokens_file or self.beside_token("tokens.json")

    @property
    def audit_path(self) -> Path:
        """The audit log."""
        return self.audit_file or self.beside_token("audit.jsonl")

    @property
    def cert_path(self) -> Path:
        """The certificate: the operator's, or the one that is made."""
        return self.tls.cert_file or self.beside_token("tls.crt")

    @property
    def key_path(self) -> Path:
        """Its key."""
        return self.tls.key_file or self.beside_token("tls.key")


def broken_northbound_rules(northbound: Northbound) -> Iterator[str]:
    """The rules that span keys of the block."""
    tls, oidc = northbound.tls, northbound.oidc
    if (tls.cert_file is None) != (tls.key_file is None):
        missing = "cert_file" if tls.cert_file is None else "key_file"
        yield f"northbound.tls.{missing} must be given with the other, got none"
    for origin in northbound.cors_origins:
        parts = urlsplit(origin)
        if (
            parts.scheme not in ("http", "https")
            or not parts.netloc
            or parts.path
            or parts.query
            or "*" in origin
        ):
            yield f"northbound.cors_origins must be like https://noc.example.net, got {origin!r}"
    for name in northbound.allowed_hosts:
        if not name or "*" in name or "/" in name or ("]" not in name and ":" in name):
            yield f"northbound.allowed_hosts must be names without a port, got {name!r}"
    if oidc is not None:
        if (oidc.jwks_file is None) == (oidc.jwks_url is None):
            yield "northbound.oidc must have either jwks_file or jwks_url"
        if oidc.jwks_url is not None and not _trustworthy(oidc.jwks_url):
            yield f"northbound.oidc.jwks_url must be https:// unless it is on loopback, got {oidc.jwks_url!r}"


def _trustworthy(url: str) -> bool:
    """Whether nobody between can change what it answers."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    )
