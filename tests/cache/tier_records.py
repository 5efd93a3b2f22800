"""Records for tests, each of its own value."""

import random
import time
from hashlib import sha256

from router.cache import Kind, Record


def make_key(name: object) -> bytes:
    """A digest, as every key is one."""
    return sha256(str(name).encode()).digest()


def make_value(name: object, size: int) -> bytes:
    """Bytes that only this name has."""
    return random.Random(str(name)).randbytes(size)


def make_record(
    name: object,
    *,
    size: int = 100,
    kind: Kind = Kind.RESPONSE,
    tenant: str = "acme",
    model: str = "edge-small",
    tags: tuple[str, ...] = (),
    stored_at: float | None = None,
    ttl_s: float = 3600.0,
) -> Record:
    """One that was stored now, unless said otherwise."""
    stored = time.time() if stored_at is None else stored_at
    return Record(make_key(name), kind, make_value(name, size), tenant, model, stored, stored + ttl_s, tags)
