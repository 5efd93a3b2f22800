"""The key that signs bundles: Ed25519 (RFC 8032), in PEM, so that `openssl` alone can check a signature."""

from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from deploy.site.errors import SiteError
from deploy.site.files import write, write_private

PRIVATE_KEY: Final = "signing_key.pem"
PUBLIC_KEY: Final = "signing_key.pub.pem"


def make_signing_key(folder: Path) -> None:
    """Write a fresh `signing_key.pem`, for whoever makes bundles alone, and `signing_key.pub.pem`, for the boxes.

    Raises:
        SiteError: one is there already, or they cannot be written.
    """
    if (folder / PRIVATE_KEY).exists():
        raise SiteError(f"{folder / PRIVATE_KEY}: is there already; boxes trust its public half, so keep it")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folder / PRIVATE_KEY, secret, only_owner=True)
    write(folder / PUBLIC_KEY, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """
    Raises:
        SiteError: it is no private Ed25519 key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        raise SiteError(f"{path}: no private key; `hybrid site key` makes one") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise SiteError(f"{path}: not an Ed25519 key; `hybrid site key` makes one")
    return key


def is_signed(content: bytes, signature: bytes, public_key: Path) -> bool:
    """Whether the key's other half signed these bytes.

    Raises:
        SiteError: `public_key` is no public Ed25519 key.
    """
    try:
        key = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError) as exc:
        raise SiteError(f"{public_key}: no public key; give the {PUBLIC_KEY} that `hybrid site key` wrote") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise SiteError(f"{public_key}: not an Ed25519 key; give the {PUBLIC_KEY} that `hybrid site key` wrote")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
