"""
Certificates for mutual TLS between an edge site and the cloud.

An authority of the operator's own signs one certificate for each site. Whoever shows one of its certificates is let in,
so its key stays off the sites.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.site.errors import SiteError
from deploy.site.files import write_private

AUTHORITY_DAYS = 3650
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs: `ca.pem` for everyone, `ca_key.pem` for nobody."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def open(cls, folder: Path) -> "Authority":
        """The authority in `folder`, made there if there is none.

        Raises:
            SiteError: its files cannot be read, or only one of them is there.
        """
        certificate_file, key_file = folder / "ca.pem", folder / "ca_key.pem"
        if not certificate_file.exists() and not key_file.exists():
            _make_authority(certificate_file, key_file)
        key = read_key(key_file)
        return cls(read_certificate(certificate_file), key)

    def sign(self, name: str, hosts: list[str], key: ec.EllipticCurvePrivateKey, *, days: int) -> x509.Certificate:
        """A certificate for a site that may act as client, and as server under `hosts` (names or addresses)."""
        builder = _builder(name, self.certificate.subject, key.public_key(), days)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def issue(authority: Path, secrets: Path, name: str, hosts: list[str], *, days: int) -> None:
    """Write a site's `ca.pem`, `certificate.pem` and `certificate_key.pem` into `secrets`.

    Raises:
        SiteError: the authority cannot be read.
    """
    signer = Authority.open(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = signer.sign(name, hosts, key, days=days)
    write_private(secrets / "ca.pem", signer.certificate.public_bytes(Encoding.PEM))
    write_private(secrets / "certificate_key.pem", _pem(key))
    write_private(secrets / "certificate.pem", certificate.public_bytes(Encoding.PEM))


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file.

    Raises:
        SiteError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise SiteError(f"{path}: no certificate ({exc}); `hybrid site certificates` makes one") from exc


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a PEM file.

    Raises:
        SiteError: there is none, or not one on an elliptic curve.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        raise SiteError(f"{path}: no private key ({exc}); `hybrid site certificates` makes one") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SiteError(f"{path}: not a key on an elliptic curve; `hybrid site certificates` makes one")
    return key


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Three PEM files that belong together."""

    ca: Path
    certificate: Path
    key: Path


def find_certificate_faults(files: CertificateFiles, hosts: list[str], *, soon_days: int) -> list[str]:
    """What is wrong with them; `hosts` are those that the certificate must be good for as a server."""
    ca, certificate, key = files.ca, files.certificate, files.key
    try:
        signer, shown, secret = read_certificate(ca), read_certificate(certificate), read_key(key)
    except SiteError as exc:
        return [str(exc)]
    faults = []
    now = datetime.datetime.now(datetime.UTC)
    for path, one in ((ca, signer), (certificate, shown)):
        left = one.not_valid_after_utc - now
        if now < one.not_valid_before_utc:
            faults.append(f"{path}: not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M}Z; check the clock")
        elif left < datetime.timedelta(days=soon_days):
            word = "expired" if left.total_seconds() < 0 else "expires"
            faults.append(f"{path}: {word} on {one.not_valid_after_utc:%Y-%m-%d}; make it anew")
    try:
        shown.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError):
        faults.append(f"{certificate}: not signed by {ca}; make both with the same authority")
    if _public(shown.public_key()) != _public(secret.public_key()):
        faults.append(f"{key}: not the key of {certificate.name}; make both anew")
    known = _hosts(shown)
    faults += [
        f"{certificate}: not good for the host {host}; give --host {host}" for host in hosts if host not in known
    ]
    return faults


def _make_authority(certificate_file: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hybrid sites")])
    builder = _builder("hybrid sites", name, key.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    write_private(key_file, _pem(key), only_owner=True)
    write_private(certificate_file, certificate.public_bytes(Encoding.PEM))


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
