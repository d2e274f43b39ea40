"""TLS: beyond loopback always; by a certificate that is made once, or by the operator's own."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from northbound import http_protocol
from northbound.client import authority, base_url
from northbound.security.desk import host_names
from northbound.security.tls import CertificateError, certificate_of, fingerprint
from northbound.server import listen, serve
from planner.config import parse
from planner.config_faults import ConfigError
from planner.config_northbound import Northbound, Tls
from tests.northbound.doubles import TOKEN
from tests.northbound.test_server import FakePlanner

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FILE = {"capacity_mbps": 10, "regions": {"a": {"dpids": [1], "capacity_mbps": 10}}}


def northbound(directory: Path, **more: Any) -> Northbound:
    return Northbound(host="0.0.0.0", port=0, token_file=directory / "token", **more)


def test_certificate_is_made_once_for_the_owner_alone(tmp_path: Path):
    """The next start uses the same, so what a browser was told to trust stays trusted."""
    found = certificate_of(northbound(tmp_path), NOW)
    first = fingerprint(found.cert_file)
    assert found.key_file.stat().st_mode & 0o777 == 0o600
    assert fingerprint(certificate_of(northbound(tmp_path), NOW).cert_file) == first


@pytest.mark.parametrize(
    ("more", "later"),
    [({"allowed_hosts": ("noc.example",)}, 0), ({}, 370), ({"allowed_hosts": ("192.0.2.1",)}, 0)],
)
def test_certificate_is_made_anew_for_new_names_and_before_it_ends(
    tmp_path: Path, more: dict[str, Any], later: int
):
    """Nobody has to remember it."""
    first = fingerprint(certificate_of(northbound(tmp_path), NOW).cert_file)
    found = certificate_of(northbound(tmp_path, **more), NOW + dt.timedelta(days=later))
    assert fingerprint(found.cert_file) != first
    made = x509.load_pem_x509_certificate(found.cert_file.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    shown = {str(name.value) for name in names}
    assert {"localhost", "127.0.0.1", *more.get("allowed_hosts", ())} <= shown


def test_operators_certificate_is_used_as_it_is(tmp_path: Path):
    """And what is none is told, with its file."""
    made = certificate_of(northbound(tmp_path), NOW)
    own = Tls(cert_file=made.cert_file, key_file=made.key_file)
    assert certificate_of(northbound(tmp_path, tls=own)) == made
    made.cert_file.write_text("nonsense")
    with pytest.raises(
        CertificateError, match=r"northbound.tls must be a certificate and its key \(.*tls.crt"
    ):
        certificate_of(northbound(tmp_path, tls=own))


def test_key_that_others_may_read_is_refused(tmp_path: Path):
    """As every secret is."""
    made = certificate_of(northbound(tmp_path), NOW)
    made.key_file.chmod(0o640)
    with pytest.raises(CertificateError, match="mode 640"):
        certificate_of(northbound(tmp_path, tls=Tls(cert_file=made.cert_file, key_file=made.key_file)))


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ({"tls": {"cert_file": "a"}}, "northbound.tls.key_file must be given"),
        ({"cors_origins": ["*"]}, "northbound.cors_origins must be like https://noc.example.net, got '*'"),
        ({"allowed_hosts": ["a:80"]}, "northbound.allowed_hosts must be names without a port"),
        (
            {"oidc": {"issuer": "i", "audience": "a"}},
            "northbound.oidc must have either jwks_file or jwks_url",
        ),
        (
            {"oidc": {"issuer": "i", "audience": "a", "jwks_url": "http://idp.example/keys"}},
            "northbound.oidc.jwks_url must be https:// unless it is on loopback",
        ),
    ],
)
def test_configuration_names_what_is_wrong(block: dict[str, Any], fault: str):
    """Path, rule and value."""
    with pytest.raises(ConfigError, match="^" + fault.replace("*", r"\*").replace("(", r"\(")):
        parse({**FILE, "northbound": block})


def test_beyond_loopback_is_allowed_and_always_by_tls():
    """There is no way to configure plain HTTP there."""
    assert parse({**FILE, "northbound": {"host": "0.0.0.0"}}).northbound.by_tls
    assert not parse(FILE).northbound.by_tls
    with pytest.raises(ConfigError, match=r"planner\.host must be a loopback address"):
        parse({**FILE, "planner": {"host": "0.0.0.0"}})


def test_hosts_are_those_that_are_named():
    """Names of this machine, the address that it listens on, and what the operator allows."""
    made = Northbound(host="192.0.2.1", allowed_hosts=("NOC.example", "2001:db8::1"))
    assert host_names(made) == {
        "127.0.0.1", "[::1]", "localhost", "192.0.2.1", "noc.example", "[2001:db8::1]",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_planner_speaks_tls_and_nothing_older(tmp_path: Path):
    """Who knows the certificate is answered; plain HTTP and TLS 1.1 are not; the command finds its way."""
    config = parse(
        {
            **FILE,
            "northbound": {"port": 0, "host": "0.0.0.0", "token_file": str(tmp_path / "token")},
            "planner": {"port": 0},
        }
    )

    async def go() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        rest, seam = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
        port = rest.getsockname()[1]
        serving = asyncio.create_task(
            serve(FakePlanner(), config, TOKEN, rest, seam, announce=ready.set_result)
        )
        assert f"rest=https://127.0.0.1:{port}" in await asyncio.wait_for(ready, 10)
        trusted = ssl.create_default_context(cafile=tmp_path / "tls.crt")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(verify=trusted, headers=headers, trust_env=False) as client:
            answer = await client.get(f"https://127.0.0.1:{port}/health")
            assert answer.status_code == 200
            with pytest.raises(httpx.HTTPError):
                await client.get(f"http://127.0.0.1:{port}/health")
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"https://127.0.0.1:{port}/health")
        old = ssl.create_default_context(cafile=tmp_path / "tls.crt")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 10)

    asyncio.run(go())
    path = tmp_path / "c.yaml"
    path.write_text(
        "capacity_mbps: 10\nregions: {a: {dpids: [1], capacity_mbps: 10}}\n"
        f"northbound: {{host: 0.0.0.0, port: 8443, token_file: {tmp_path / 'token'}}}\n"
    )
    assert base_url(None, path) == "https://127.0.0.1:8443"
    assert authority(path) == tmp_path / "tls.crt"


def test_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch):
    """Also one that sends a byte now and then; one that has asked stays."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.5)

    async def go() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        rest, seam = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
        address: tuple[str, int] = rest.getsockname()
        serving = asyncio.create_task(
            serve(FakePlanner(), parse(FILE), TOKEN, rest, seam, announce=ready.set_result)
        )
        await asyncio.wait_for(ready, 10)
        asked_reader, asked = await asyncio.open_connection(*address)
        asked.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"401" in await asked_reader.readline()
        reader, writer = await asyncio.open_connection(*address)
        drip = asyncio.create_task(_drip(writer))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        drip.cancel()
        asked.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        rest_of_both = b""
        while rest_of_both.count(b"HTTP/1.1 401") < 1:
            rest_of_both += await asyncio.wait_for(asked_reader.readline(), 10)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 10)

    asyncio.run(go())


async def _drip(writer: asyncio.StreamWriter) -> None:
    for byte in b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.1)
