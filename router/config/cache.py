"""The caches' sections."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from router.config.section import Name, Seconds, Section, Share

Lifetime = Annotated[float, Meta(ge=0, le=31_536_000)]
MOST_RECORD_BYTES = 4_194_304


class MemoryTier(Section, frozen=True):
    """Inside the process; `most_bytes` counts keys, values and what Python adds to them."""

    most_bytes: Annotated[int, Meta(ge=65_536)] = 67_108_864


class DiskTier(Section, frozen=True, kw_only=True):
    """A database in `folder` (this router's alone), at most `most_bytes` on disk; survives restarts and kills."""

    folder: Path
    most_bytes: Annotated[int, Meta(ge=4_194_304)] = 1_073_741_824


class SharedTier(Section, frozen=True, kw_only=True):
    """A Valkey or Redis that replicas share. Bound it with its own `maxmemory` and an `allkeys-*` eviction policy.

    All keys begin with `prefix`. `announcements` is how many of the last semantic entries a starting replica learns.
    Unless it is `on_site`, nothing that is made of edge-only data is written to it.
    """

    url: Annotated[str, Meta(pattern=r"^(rediss?|unix)://.+$")]
    password_file: Path | None = None
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9:_-]{1,32}$")] = "hybrid:"
    announcements: Annotated[int, Meta(ge=0, le=1_000_000)] = 20_000
    on_site: bool = False


class Tiers(Section, frozen=True):
    """Where entries are kept, nearest first. A read that is not over after `read_ms` is a miss."""

    memory: MemoryTier = MemoryTier()
    disk: DiskTier | None = None
    shared: SharedTier | None = None
    read_ms: Annotated[float, Meta(gt=0, le=1000)] = 15.0
    most_waiting_bytes: Annotated[int, Meta(ge=65_536)] = 16_777_216
    breaker_s: Seconds = 5.0


class Storable(StrEnum):
    """Which answers are kept: those that asking again would give again, or all."""

    DETERMINISTIC = "deterministic"
    ALL = "all"


class Freshness(Section, frozen=True):
    """How long an answer is good, less up to `jitter` of it, so that entries made together do not end together.

    For `stale_while_revalidate_s` more it is served while a new one is made; for `stale_if_error_s` more when no target
    answers (https://www.rfc-editor.org/rfc/rfc5861).
    """

    ttl_s: Lifetime = 3600.0
    jitter: Share = 0.1
    stale_while_revalidate_s: Lifetime = 0.0
    stale_if_error_s: Lifetime = 86_400.0


class ResponseCache(Section, frozen=True):
    """Answers by everything that shapes them. `routes` gives a requested model (`auto`, a tier, a target) its own
    freshness.
    """

    enabled: bool = True
    store: Storable = Storable.DETERMINISTIC
    freshness: Freshness = Freshness()
    routes: dict[Name, Freshness] = msgspec.field(default_factory=dict)
    most_entry_bytes: Annotated[int, Meta(ge=1024, le=MOST_RECORD_BYTES)] = 262_144


class ErrorBudget(Section, frozen=True):
    """What semantic hits may get wrong, and how that is watched.

    The first `first_hits` of a partition and then `share` of its hits are answered again in idle time. From evidence
    that more than `most_wrong` of them are wrong the threshold rises, then the partition is shut for `shut_s`. After
    `most_unaudited` hits in a row without an audit it pauses.
    """

    most_wrong: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    first_hits: Annotated[int, Meta(ge=0, le=10_000)] = 10
    share: Share = 0.05
    most_unaudited: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    shut_s: Seconds = 86_400.0


class SemanticCache(Section, frozen=True):
    """Answers to questions that mean the same. Needs `scoring.embedding`, which `similarity` was calibrated for, if
    none is given.

    `judge` is the folder of the model that decides on rewordings which no rule explains; without it they are misses.
    Questions longer than `most_characters` are not looked up.
    """

    enabled: bool = False
    judge: Path | None = None
    similarity: Annotated[float, Meta(gt=0, le=1)] | None = None
    most_entries: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    most_partitions: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    most_characters: Annotated[int, Meta(ge=1, le=4096)] = 512
    budget: ErrorBudget = ErrorBudget()


class EmbeddingCache(Section, frozen=True):
    """Vectors by text and model, for scores, semantic lookups and `/v1/embeddings`."""

    enabled: bool = True
    ttl_s: Lifetime = 604_800.0


class Cache(Section, frozen=True):
    """All caches and the tiers under them."""

    tiers: Tiers = Tiers()
    response: ResponseCache = ResponseCache()
    semantic: SemanticCache = SemanticCache()
    embedding: EmbeddingCache = EmbeddingCache()
