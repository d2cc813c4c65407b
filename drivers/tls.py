"""A private certificate authority, made at first start, and what is trusted because of it.

Clients trust this one authority and nothing else, and they check one fixed name (``SERVER_NAME``) that only it can vouch
for. So certificates hold when the daemon moves to another address, and no public authority can impersonate a daemon.
Keys are NIST P-256: the largest set that OpenSSL and nng's mbed TLS both understand.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rbcore.errors import AuthenticationFailed, Unavailable

SERVER_NAME = "rbmedia.daemon"
"""Subject alternative name of every daemon's certificate: what agents check instead of a host name."""

AUTHORITY_YEARS = 20
SERVER_DAYS = 825
RENEW_DAYS_BEFORE = 60
FETCH_TIMEOUT_SECONDS = 10.0


def write_private(path: Path, data: bytes) -> None:
    """Create or replace ``path`` with mode 0600, durable when this returns: a crash leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def fingerprint_of(certificate_pem: str) -> str:
    """SHA-256 over the DER form, lower-case hex: what an operator compares."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True, slots=True)
class Authority:
    """The daemon's trust: the authority's certificate, and the server's certificate with its key."""

    certificate_path: Path
    """The authority's certificate (PEM): hand it to agents, or its fingerprint."""
    server_certificate_path: Path
    """The server's certificate followed by the authority's (PEM)."""
    server_key_path: Path

    @property
    def certificate_pem(self) -> str:
        return self.certificate_path.read_text()

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.certificate_pem)

    def server_context(self) -> ssl.SSLContext:
        """For listeners of plain TLS: the data channel and HTTPS. TLS 1.3 only; both ends are ours."""
        context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.load_cert_chain(self.server_certificate_path, self.server_key_path)
        return context


def open_authority(directory: Path, now_ns: int, names: Iterable[str] = ()) -> Authority:
    """The authority in ``directory``, made when it is not there; the server's certificate is renewed when it is due.

    ``names``: further DNS names and addresses for browsers (HTTPS); this host's name and loopback are always among them.
    Blocking: call it before the loop is busy, or on a thread.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    ca_key_path = directory / "ca.key"
    now = datetime.datetime.fromtimestamp(now_ns / 1e9, datetime.UTC)
    if not (authority.certificate_path.exists() and ca_key_path.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(ca_key_path, _key_pem(key))
        write_private(authority.certificate_path, _pem(_make_authority(key, now)))
    ca_certificate = x509.load_pem_x509_certificate(authority.certificate_path.read_bytes())
    ca_key = serialization.load_pem_private_key(ca_key_path.read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey), "the authority's key is a P-256 key"
    wanted = sorted({SERVER_NAME, "localhost", "127.0.0.1", "::1", socket.gethostname(), *names})
    if not _server_is_good(authority, ca_certificate, wanted, now):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _make_server(key, ca_key, ca_certificate, wanted, now)
        # The key goes last and decides: a certificate that does not fit its key is made again at the next start.
        write_private(authority.server_certificate_path, _pem(certificate) + _pem(ca_certificate))
        write_private(authority.server_key_path, _key_pem(key))
    return authority


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    """TLS 1.3, and a connection that is cut is an error, not an end: Python's default depends on its release."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def client_context(certificate_pem: str) -> ssl.SSLContext:
    """Trusts ``certificate_pem`` and nothing else. Wrap with ``server_hostname=SERVER_NAME``."""
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.load_verify_locations(cadata=certificate_pem)
    return context


def fetch_authority(host: str, port: int, fingerprint: str) -> str:
    """The authority's certificate (PEM) as the daemon presents it, if it has this SHA-256 ``fingerprint``.

    For an agent that was given a fingerprint only. Nothing is trusted on the way: the digest alone decides. Blocking.
    Raises ``Unavailable`` when the daemon cannot be reached, ``AuthenticationFailed`` when nobody shows that certificate.
    """
    wanted = fingerprint.replace(":", "").lower()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=FETCH_TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=SERVER_NAME) as secure,
        ):
            chain = _presented_chain(secure)
    except OSError as error:
        raise Unavailable(f"The daemon at {host}:{port} does not answer: {error}") from error
    for der in chain:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.fingerprint(hashes.SHA256()).hex() == wanted:
            return _pem(certificate).decode()
    raise AuthenticationFailed(
        f"The daemon at {host}:{port} does not show the authority with fingerprint {wanted}: wrong daemon, or somebody in between."
    )


def _presented_chain(secure: ssl.SSLSocket) -> list[bytes]:
    """DER certificates as sent by the peer. Public since Python 3.13; the same call stands on the inner object before."""
    source = secure if hasattr(secure, "get_unverified_chain") else secure._sslobj  # type: ignore[attr-defined]
    chain = source.get_unverified_chain()
    encoding_der = 2  # _ssl.ENCODING_DER
    return [one if isinstance(one, bytes) else one.public_bytes(encoding_der) for one in chain]


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _make_authority(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    subject = _name("rbmedia private authority")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _make_server(
    key: ec.EllipticCurvePrivateKey,
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: x509.Certificate,
    names: list[str],
    now: datetime.datetime,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(SERVER_NAME))
        .issuer_name(ca_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _server_is_good(
    authority: Authority, ca_certificate: x509.Certificate, names: list[str], now: datetime.datetime
) -> bool:
    """Whether certificate and key are there, fit each other and the authority, name all of ``names``, and last."""
    if not (authority.server_certificate_path.exists() and authority.server_key_path.exists()):
        return False
    certificate = x509.load_pem_x509_certificates(authority.server_certificate_path.read_bytes())[0]
    key = serialization.load_pem_private_key(authority.server_key_path.read_bytes(), password=None)
    if certificate.public_key() != key.public_key():
        return False
    try:
        certificate.verify_directly_issued_by(ca_certificate)
    except (ValueError, InvalidSignature):
        return False
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if not {_general_name(one) for one in names} <= set(named):
        return False
    return certificate.not_valid_after_utc - now > datetime.timedelta(days=RENEW_DAYS_BEFORE)
