"""The certificate of the REST API: the operator's, or one that signs itself, made at first start."""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from planner.config_northbound import LOOPBACK, Northbound
from planner.secret import SecretError, read_owned, write_owned

LOG = logging.getLogger("tidegate.northbound")

#: Browsers take no certificate that lasts longer.
_LASTS: Final = dt.timedelta(days=397)
_RENEWED_BEFORE: Final = dt.timedelta(days=30)


class CertificateError(Exception):
    """The certificate or its key cannot be used. One line: which file, and why."""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in PEM files."""

    cert_file: Path
    key_file: Path


def certificate_of(northbound: Northbound, now: dt.datetime | None = None) -> Certificate:
    """The certificate to serve with; made, or made anew, where none is configured.

    Raises
    ------
    CertificateError : if the files do not hold a certificate and its key, or cannot be written.
    """
    found = Certificate(northbound.cert_path, northbound.key_path)
    try:
        if northbound.tls.cert_file is None:
            now = now or dt.datetime.now(dt.UTC)
            names = _names(northbound)
            if not _serves(found, names, now):
                _make(found, names, now)
        read_owned(found.key_file)
        # What the server does later, where nobody would see why it failed.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(found.cert_file, found.key_file)
    except (OSError, ValueError, SecretError) as error:
        raise CertificateError(
            f"northbound.tls must be a certificate and its key ({found.cert_file}, {found.key_file}), got {error}"
        ) from None
    return found


def fingerprint(cert_file: Path) -> str:
    """The SHA-256 of a certificate, to compare by eye with what a browser shows."""
    return x509.load_pem_x509_certificate(cert_file.read_bytes()).fingerprint(hashes.SHA256()).hex(":")


def _names(northbound: Northbound) -> list[x509.GeneralName]:
    made: dict[str, x509.GeneralName] = {}
    for name in (*LOOPBACK, socket.gethostname(), northbound.host, *northbound.allowed_hosts):
        try:
            address = ipaddress.ip_address(name.strip("[]"))
            if not address.is_unspecified:
                made[str(address)] = x509.IPAddress(address)
        except ValueError:
            made[name] = x509.DNSName(name)
    return list(made.values())


def _serves(found: Certificate, names: list[x509.GeneralName], now: dt.datetime) -> bool:
    """Whether the one made before is good for another while, and for all the names of now."""
    if not found.cert_file.exists() or not found.key_file.exists():
        return False
    made = x509.load_pem_x509_certificate(found.cert_file.read_bytes())
    known = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) <= set(known) and made.not_valid_after_utc - now > _RENEWED_BEFORE


def _make(found: Certificate, names: list[x509.GeneralName], now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tidegate")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LASTS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # It may sign itself, and nothing else.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8
    write_owned(found.key_file, key.private_bytes(pem, plain, serialization.NoEncryption()))
    write_owned(found.cert_file, made.public_bytes(pem))
    LOG.info("made a certificate for %s: %s", found.cert_file, fingerprint(found.cert_file))
