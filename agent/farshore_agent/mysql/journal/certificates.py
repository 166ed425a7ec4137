"""Makes the journal server's account, authority and certificate, when they are missing or about to expire."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import socket
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from farshore_agent.mysql.journal.catalogue import JournalDirectory
from farshore_agent.mysql.journal.credentials import Credentials, credentials_of, server_key_file
from farshore_agent.mysql.journal.disk import write_private

PASSWORD_RANDOM_BYTES: Final = 24
"""32 characters: the longest that CHANGE REPLICATION SOURCE takes."""
CA_DAYS: Final = 7300
CERTIFICATE_DAYS: Final = 1825
RENEW_DAYS: Final = 60
"""A certificate that ends sooner is made again at the next start."""


def ensure_credentials(journal: JournalDirectory, *, host: str) -> Credentials:
    """Make what is missing or about to expire. Idempotent; a password or CA once made is never changed."""
    found = credentials_of(journal)
    if not found.password_file.exists():
        write_private(found.password_file, secrets.token_urlsafe(PASSWORD_RANDOM_BYTES) + "\n")
    if not found.ca_file.exists():
        _make_authority(journal)
    if not _serves(found.certificate_file, host) or not server_key_file(journal).exists():
        _make_certificate(journal, host)
    return found


def _make_authority(journal: JournalDirectory) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Farshore journal {secrets.token_hex(4)}")])
    certificate = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(journal.secrets / "ca.key", _key_text(key))
    write_private(journal.secrets / "ca.pem", _certificate_text(certificate))


def _make_certificate(journal: JournalDirectory, host: str) -> None:
    authority = x509.load_pem_x509_certificate((journal.secrets / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((journal.secrets / "ca.key").read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101  we made it; narrows the type
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    certificate = (
        _builder(name, authority.subject, key, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    write_private(server_key_file(journal), _key_text(key))
    write_private(journal.secrets / "server.pem", _certificate_text(certificate))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of two sites differ
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _names(host: str) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys((host, "localhost", socket.gethostname(), "127.0.0.1")):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _serves(certificate_file: Path, host: str) -> bool:
    """Whether the certificate exists, names `host` and lasts."""
    if not certificate_file.exists():
        return False
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return left.days > RENEW_DAYS and all(name in list(names) for name in _names(host)[:1])


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _certificate_text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
