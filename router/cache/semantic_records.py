"""What the semantic cache keeps as records: questions, and what the error budget did about a partition."""

from hashlib import sha256
from typing import Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from router.cache import Kind, Record
from router.cache.error_budget import Measure
from router.cache.index import Entry
from router.cache.segment import Floats, Vector

__all__ = ["EmbeddingModel", "Question", "SemanticRecords"]

_MEASURE_KEPT_S: Final = 30 * 86_400.0
_ROUNDING: Final = 0.01
_DECODE: Final = "<f2"


class EmbeddingModel(Struct, frozen=True):
    """Where vectors come from: `identity` changes when they do, `similarity` is what hits need with them."""

    identity: str
    width: int
    similarity: float

    def fit(self, vector: Floats) -> Vector | None:
        """The vector as the index takes it; None when it is none of this model's."""
        if vector.shape != (self.width,):
            return None
        fit: Vector = vector.astype(np.float16)
        # of another length, or with a NaN, its products would be no cosines
        return fit if abs(float(np.linalg.norm(fit.astype(np.float32))) - 1) < _ROUNDING else None


class Question(Struct, frozen=True):
    """An entry of one partition, with its vector."""

    partition: bytes
    entry: Entry
    vector: Vector


class _StoredQuestion(Struct, frozen=True, array_like=True, tag="question"):
    """`vector` is little-endian float16 of the model `embedding`."""

    embedding: str
    partition: bytes
    key: bytes
    text: str
    vector: bytes


class _StoredMeasure(Struct, frozen=True, array_like=True, tag="measure"):
    embedding: str
    measure: Measure


_Stored: TypeAlias = _StoredQuestion | _StoredMeasure


class SemanticRecords:
    """Between records and what they say, for one embedding model: those of another are not read."""

    def __init__(self, embedding: EmbeddingModel) -> None:
        self._embedding = embedding
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Stored).decode

    def read(self, record: Record) -> Question | Measure | None:
        """What a record says; None: nothing that this model can use."""
        try:
            stored = self._decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if stored.embedding != self._embedding.identity:
            return None
        if isinstance(stored, _StoredMeasure):
            return stored.measure
        if len(stored.vector) != 2 * self._embedding.width:
            return None
        vector = self._embedding.fit(np.frombuffer(stored.vector, _DECODE))
        if vector is None:
            return None
        entry = Entry(stored.key, stored.text, record.tenant, record.model, record.tags, record.expires_at)
        return Question(stored.partition, entry, vector)

    def write_question(self, question: Question, now: float) -> Record:
        """It lives as long as its answer, and is flushed with it."""
        entry, identity = question.entry, self._embedding.identity
        vector = question.vector.astype(_DECODE).tobytes()
        return Record(
            key=_digest("question", identity, question.partition, entry.key),
            kind=Kind.SEMANTIC,
            value=self._encode(_StoredQuestion(identity, question.partition, entry.key, entry.text, vector)),
            tenant=entry.tenant,
            model=entry.model,
            stored_at=now,
            expires_at=entry.expires_at,
            tags=entry.tags,
        )

    def write_measure(self, measure: Measure, now: float) -> Record:
        """Belongs to no tenant, so that no flush of one undoes it."""
        return Record(
            key=_digest("measure", self._embedding.identity, measure.partition),
            kind=Kind.SEMANTIC,
            value=self._encode(_StoredMeasure(self._embedding.identity, measure)),
            tenant="",
            model="",
            stored_at=now,
            expires_at=max(measure.shut_until, now + _MEASURE_KEPT_S),
        )


def _digest(*parts: str | bytes) -> bytes:
    """Of the parts, each with its length, so that no two lists are one."""
    return sha256(msgspec.msgpack.encode(parts)).digest()
