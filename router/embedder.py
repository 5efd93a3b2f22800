"""The router's own encoder: vectors of prompts, for scores and semantic lookups when serving, and for fits."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge.engine.artifact import MANIFEST, Artifact, ArtifactKind, digest_file
from edge.engine.encoder import Encoder, Vectors
from edge.engine.errors import EngineError
from edge.engine.session import SessionConfig
from edge.engine.settings import ConfigError
from router.cache.embedding import EmbeddingCache, Maker, Owner, StoredVector
from router.config import Scoring
from router.telemetry import Telemetry
from router.threads import BatchThreads, Miss, Misses

_MOST_CHARACTERS: Final = 4096
_PATIENCE_S: Final = 0.25
"""A vector that comes later than this is not worth the wait: the evidence that is there decides."""
_BATCH: Final = 2
_WAITING: Final = 64
_NICE: Final = 10

Vector = NDArray[np.float32]


class EmbeddingIdentity(Struct, frozen=True, forbid_unknown_fields=True):
    """An embedding model, by its name, version and the sha256 of its manifest (which has every file's)."""

    name: str
    version: str
    sha256: str

    @property
    def label(self) -> str:
        """For a message."""
        return f"{self.name}/{self.version} ({self.sha256[:12]})"


class Embedding(NamedTuple):
    """An embedding model, ready to compute."""

    identity: EmbeddingIdentity
    encoder: Encoder


def open_embedding(folder: Path, *, threads: int = 1) -> Embedding:
    """A checked embedding model; one thread is right where requests are many.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        manifest = Artifact.open(folder, ArtifactKind.EMBEDDING).manifest
        identity = EmbeddingIdentity(manifest.name, manifest.version, digest_file(folder / MANIFEST).sha256)
        return Embedding(identity, Encoder(folder, SessionConfig(threads=threads)))
    except EngineError as exc:
        raise ConfigError(f"scoring.embedding: {exc}") from exc


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """One L2-normed vector a text [texts, width]; a text is read up to the encoder's context.

    One text at a time: the fast encoder has one scale for the activations of a whole batch, and a prompt's score must
    not depend on what else is scored. It costs little on a CPU: at 32 tokens 1.7 ms a text alone, 1.4 in batches of 16.
    """
    tokens = encoder.tokenize([_cut(text) for text in texts])
    vectors = np.empty((len(texts), encoder.width), np.float32)
    for row, one in enumerate(tokens):
        vectors[row] = encoder.embed([one])[0]
    return vectors


@dataclass(slots=True)
class _Flight:
    """One text being embedded, and how many wait for it."""

    task: asyncio.Task[Vector | None]
    waiting: int = 0


class Embedder:
    """`async with Embedder(config, telemetry, cache) as embedder: vector = await embedder.embed(text, tenant)`.

    Equal texts of a tenant asked for at the same time are computed once. When nobody waits any more, nor does the work.
    """

    def __init__(
        self,
        config: Scoring,
        telemetry: Telemetry,
        cache: EmbeddingCache | None,
        load: Callable[[Path], Embedding] = open_embedding,
    ) -> None:
        """
        Raises:
            ConfigError: `scoring.embedding` names no good embedding model.
        """
        if config.embedding is None:
            raise ConfigError("scoring.embedding: missing; name an embedding model's folder")
        self.embedding = load(config.embedding)
        self._cache = cache
        self._looks_deep = cache is not None and cache.deep
        self._maker = name_maker(self.identity)
        self._threads = BatchThreads(
            "embed", threads=config.threads, most=_BATCH, waiting=_WAITING, patience_s=_PATIENCE_S, nice=_NICE
        )
        self._misses = Misses("embedder", "Vectors of prompts that were not had in time", telemetry)
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._tasks = asyncio.TaskGroup()

    @property
    def identity(self) -> EmbeddingIdentity:
        """Which model."""
        return self.embedding.identity

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.__aexit__(None, None, None)
        await self._threads.__aexit__()

    async def embed(self, text: str, tenant: str, *, on_site: bool = False) -> Vector | None:
        """The text's L2-normed vector [width], read-only, bit for bit as `embed_texts` makes it; None when too much
        waits, it came too late, or the model failed. What follows the first 4,096 characters is not read.
        """
        said = _cut(text)
        if self._cache and (known := self._as_vector(self._cache.peek(self._maker, tenant, said))) is not None:
            return known
        flight = self._flights.get((tenant, said))
        if flight is None:
            if not self._looks_deep and self._threads.is_busy():
                self._misses.count(Miss.BUSY)
                return None
            flight = self._begin(tenant, said, on_site=on_site)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                del self._flights[tenant, said]  # before anyone can join what is about to be cancelled
                flight.task.cancel()

    def _begin(self, tenant: str, text: str, *, on_site: bool) -> _Flight:
        flight = _Flight(self._tasks.create_task(self._obtain(tenant, text, on_site=on_site)))
        self._flights[tenant, text] = flight
        return flight

    async def _obtain(self, tenant: str, text: str, *, on_site: bool) -> Vector | None:
        """From the cache's farther tiers, else from the encoder."""
        if self._cache and (known := self._as_vector(await self._cache.read(self._maker, tenant, text))) is not None:
            return known
        vector = await self._misses.watch(self._threads.run(self._compute, text))
        if vector is not None:
            vector.flags.writeable = False  # several may share it
            if self._cache:
                stored = StoredVector(vector.astype("<f4").tobytes())
                self._cache.write(self._maker, tenant, text, stored, on_site=on_site)
        return vector

    def _compute(self, texts: Sequence[str]) -> list[Vector]:
        return list(embed_texts(self.embedding.encoder, texts))

    def _as_vector(self, stored: StoredVector | None) -> Vector | None:
        if stored is None or len(stored.vector) != 4 * self.embedding.encoder.width:
            return None
        return np.frombuffer(stored.vector, "<f4")


def name_maker(identity: EmbeddingIdentity) -> Maker:
    """How the cache knows the router's own encoder."""
    return Maker(Owner.ROUTER, identity.name, identity.version, identity.sha256)


def _cut(text: str) -> str:
    return text[:_MOST_CHARACTERS]
