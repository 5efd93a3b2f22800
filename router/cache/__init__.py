"""
The seam under the caches: records by key, kept in tiers. A key is a digest, so no prompt stands in one.

The caches use `Records` (`router.cache.tiered`); each `CacheTier` (memory, disk, shared) is one place under it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

__all__ = [
    "CacheTier",
    "CacheTierError",
    "Flush",
    "FlushReport",
    "Kind",
    "Learn",
    "Record",
    "Records",
    "Selector",
    "TierName",
    "TierStatistics",
]


class Kind(StrEnum):
    """What a record's value is."""

    RESPONSE = "response"
    SEMANTIC = "semantic"
    EMBEDDING = "embedding"


class TierName(StrEnum):
    """The places that keep records, nearest first. Metric label and configuration key alike."""

    MEMORY = "memory"
    DISK = "disk"
    SHARED = "shared"


class Record(Struct, frozen=True, array_like=True):
    """One entry, as every tier keeps it. Times are Unix seconds; from `expires_at` on nothing may use it.

    `key` is a 32-byte digest; `model` is the target that made the value, `tags` are what its request gave it.
    """

    key: bytes
    kind: Kind
    value: bytes
    tenant: str
    model: str
    stored_at: float
    expires_at: float
    tags: tuple[str, ...] = ()


class Selector(Struct, frozen=True, forbid_unknown_fields=True):
    """Which records to flush: those that match every field given; all, when none is."""

    tenant: str | None = None
    model: str | None = None
    tag: str | None = None

    def matches(self, record: Record) -> bool:
        """Whether the record is one of them."""
        return (
            self.tenant in {None, record.tenant}
            and self.model in {None, record.model}
            and (self.tag is None or self.tag in record.tags)
        )


class Flush(Struct, frozen=True):
    """Records that match and were stored at or before `at` (Unix seconds) are dead in every tier and replica."""

    selector: Selector
    at: float


class TierStatistics(Struct, frozen=True, kw_only=True):
    """One tier since the start; `seconds` is the sum over reads, `open` whether its breaker keeps it out."""

    tier: TierName
    hits: int = 0
    misses: int = 0
    writes: int = 0
    evictions: int = 0
    errors: int = 0
    corrupt: int = 0
    dropped: int = 0
    entries: int = 0
    bytes: int = 0
    most_bytes: int = 0
    seconds: float = 0.0
    open: bool = False

    @classmethod
    def total(cls, tiers: "Sequence[TierStatistics]") -> "TierStatistics":
        """Of one tier in several processes; all have the same records in the shared one, and count them once."""
        together = max if tiers[0].tier is TierName.SHARED else sum
        return cls(
            tier=tiers[0].tier,
            **{name: sum(getattr(one, name) for one in tiers) for name in _COUNTS},
            **{name: together(getattr(one, name) for one in tiers) for name in ("entries", "bytes", "most_bytes")},
            seconds=sum(one.seconds for one in tiers),
            open=any(one.open for one in tiers),
        )


_COUNTS = ("hits", "misses", "writes", "evictions", "errors", "corrupt", "dropped")


class FlushReport(Struct, frozen=True, kw_only=True):
    """How many records each tier had of those selected; None: the tier could not be asked (it will be told later)."""

    selector: Selector
    dry_run: bool
    records: dict[TierName, int | None]

    @classmethod
    def total(cls, reports: "Sequence[FlushReport]") -> "FlushReport":
        """Of several processes, each with records of its own but in the shared tier."""
        records = {tier: _together(tier, [report.records[tier] for report in reports]) for tier in reports[0].records}
        return cls(selector=reports[0].selector, dry_run=reports[0].dry_run, records=records)


def _together(tier: TierName, counts: "list[int | None]") -> int | None:
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    return max(known) if tier is TierName.SHARED else sum(known)


class CacheTier(Protocol):
    """One place that keeps records, while its context is entered. Bounded; safe to lose.

    Every method may raise `CacheTierError` and nothing else; who calls treats that as a miss.
    """

    name: TierName

    async def read(self, key: bytes) -> Record | None:
        """The record, bit-exact as written, or None: also when it is damaged, expired, or was flushed."""
        ...

    async def write(self, records: Sequence[Record]) -> None:
        """Keep them, all or none of each; the tier chooses what to drop for room."""
        ...

    async def flush(self, flush: Flush, *, dry_run: bool) -> int:
        """Forget what the flush selects, for good; returns how many there were."""
        ...

    def statistics(self) -> TierStatistics:
        """What it did so far; never waits."""
        ...

    async def __aenter__(self) -> "CacheTier": ...

    async def __aexit__(self, *_: object) -> None: ...


Learn = Callable[[Record], None]


class Records(Protocol):
    """All tiers as one, for the caches above. Nothing here raises, and no trouble of a tier delays a request."""

    @property
    def deep(self) -> bool:
        """Whether there is a tier besides memory."""
        ...

    def peek(self, key: bytes) -> Record | None:
        """From memory alone, at once."""
        ...

    async def read(self, key: bytes) -> Record | None:
        """From the nearest tier that has it, within `read_ms` altogether; a record found far is promoted."""
        ...

    def write(self, record: Record, *, on_site: bool = False) -> None:
        """Into memory now, into the other tiers behind the caller's back; with `on_site` not into one elsewhere."""
        ...

    def scan(self, kind: Kind) -> AsyncIterator[Record]:
        """What the disk has of a kind, for learning at the start, newest first."""
        ...

    def listen(self, kind: Kind, learn: Learn) -> None:
        """Have `learn` called (on the event loop) with each record of a kind that another replica announces."""
        ...

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        """Kill what is selected in every tier and replica, also what is being written now; or only count it."""
        ...

    def statistics(self) -> list[TierStatistics]:
        """Each tier's."""
        ...


class CacheTierError(Exception):
    """A tier cannot do what it was asked; the message names it, without keys or values."""
