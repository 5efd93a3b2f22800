"""
Records as bytes, for tiers that may damage them: checksum, length of the head, head, value.

The checksum is BLAKE2b (RFC 7693) cut to 16 bytes. It covers the key, so what is read under another key is damaged too.
The head stands first so that a tier can learn what a record is without its value.
"""

import struct
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from router.cache import Kind, Record

_CHECKSUM_BYTES: Final = 16
_LENGTH: Final = struct.Struct("<I")
_HEAD_AT: Final = _CHECKSUM_BYTES + _LENGTH.size


class Head(Struct, frozen=True, array_like=True):
    """All of a record but its value."""

    key: bytes
    kind: Kind
    tenant: str
    model: str
    stored_at: float
    expires_at: float
    tags: tuple[str, ...] = ()


class DamagedError(Exception):
    """These bytes are not what was written."""


def seal(record: Record) -> bytes:
    """The record with its checksum."""
    head = msgspec.msgpack.encode(
        Head(record.key, record.kind, record.tenant, record.model, record.stored_at, record.expires_at, record.tags)
    )
    length = _LENGTH.pack(len(head))
    return b"".join((_sum(length, head, record.value), length, head, record.value))


def unseal(sealed: bytes, key: bytes) -> Record:
    """The record of that key, bit-exact.

    Raises:
        DamagedError: anything differs from what was sealed under this key.
    """
    view = memoryview(sealed)
    if len(sealed) < _HEAD_AT or _sum(view[_CHECKSUM_BYTES:]) != sealed[:_CHECKSUM_BYTES]:
        raise DamagedError
    head = read_head(sealed)
    if head.key != key:
        raise DamagedError
    value = bytes(view[_head_end(view) :])
    return Record(key, head.kind, value, head.tenant, head.model, head.stored_at, head.expires_at, head.tags)


def read_head(sealed: bytes) -> Head:
    """The head alone, unverified, of a record or of its beginning.

    Raises:
        DamagedError: there is none.
    """
    view = memoryview(sealed)
    try:
        return msgspec.msgpack.decode(view[_HEAD_AT : _head_end(view)], type=Head)
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise DamagedError from exc


def _head_end(sealed: memoryview) -> int:
    return _HEAD_AT + int(_LENGTH.unpack_from(sealed, _CHECKSUM_BYTES)[0])


def _sum(*parts: bytes | memoryview) -> bytes:
    checksum = blake2b(digest_size=_CHECKSUM_BYTES)
    for part in parts:
        checksum.update(part)
    return checksum.digest()
