"""Which stored answer is a request's own: a digest over everything that shapes an answer."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from router.config.cache import Storable
from router.decision import Rules
from router.query import Conversation, Parameters, Query

_FORMAT: Final = 1
"""Part of every key: raise it when a record's value changes its form, and no old one is ever read."""

Fingerprint = Callable[[Rules], Sequence[str]]
"""What else shapes the answers under some rules: configuration, score artifact, versions of the targets' models."""


class CacheKey(Struct, frozen=True):
    """`exact` is a digest of the whole request. If it may be answered by an answer to a similar one, `before` is all of
    it but the last user turn `text`.
    """

    exact: bytes
    before: bytes | None = None
    text: str = ""

    @property
    def partition(self) -> bytes | None:
        """A digest of `before`, which an exact hit has no use for."""
        return None if self.before is None else _digest(b"partition", self.before)


class KeyMaker:
    """Makes keys. Priority, deadline and request id are left out: they do not shape an answer."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self._fingerprint = fingerprint
        # two requests that are equal as values must be equal as bytes, also where a set or dict is inside
        self._encode = msgspec.msgpack.Encoder(order="deterministic").encode

    def make(self, query: Query, rules: Rules) -> CacheKey:
        """The key of a request."""
        head = (_FORMAT, query.tenant, self._fingerprint(rules), rules, query.parameters)
        prompt = query.prompt
        if not isinstance(prompt, Conversation) or prompt.messages[-1].role != "user":
            return CacheKey(_digest(b"exact", self._encode((*head, prompt))))
        last = prompt.messages[-1]
        before = self._encode((*head, prompt.messages[:-1], last.name))
        return CacheKey(_digest(b"exact", before + last.text.encode()), before, last.text)


def is_storable(parameters: Parameters, storable: Storable) -> bool:
    """Whether an answer may be kept: if it is the one that asking again would give, or if any may."""
    return storable is Storable.ALL or parameters.temperature == 0 or parameters.seed is not None


def _digest(purpose: bytes, content: bytes) -> bytes:
    """32 bytes. `content` says where each of its parts ends, but for the last one."""
    return blake2b(content, digest_size=32, person=purpose).digest()
