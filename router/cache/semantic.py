"""The semantic cache: answers to earlier questions that mean the same, each partition watched by the error budget."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, Self

from router.cache import Kind, Record, Records, Selector
from router.cache.error_budget import BudgetState, ErrorBudget, Gate, Measure
from router.cache.index import Entry, PartitionedIndex
from router.cache.index_thread import BusyError, IndexThread, LateError
from router.cache.segment import Floats, Vector
from router.cache.semantic_metrics import Outcome, SemanticMetrics, SemanticStatistics
from router.cache.semantic_records import EmbeddingModel, Question, SemanticRecords
from router.config.cache import SemanticCache as SemanticCacheSection
from router.telemetry import Telemetry

__all__ = ["EmbeddingModel", "Found", "Guard", "SemanticCache"]

CANDIDATES: Final = 4
"""Stored questions that one is compared with, the nearest first."""
_PATIENCE_S: Final = 0.02

_logger = logging.getLogger(__name__)


class Guard(Protocol):
    """Sees differences that vectors do not: a number, a date, a "not"."""

    def refuse(self, asked: str, stored: str) -> StrEnum | None:
        """Why the answer to `stored` is no answer to `asked`; None: nothing speaks against it."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A question that was asked before: `key` is its answer's record, `text` what was asked then."""

    partition: bytes
    key: bytes
    text: str
    similarity: float


class SemanticCache:
    """`async with SemanticCache(...) as cache`, with `cache.learn()` running as a job.

    Entries and measures are records of kind `semantic`, so that they survive a restart and reach every replica. An
    entry only says under which key a question was answered. Whether there is an answer still is for the caller to see,
    who calls `forget` when there is none: so nothing that was flushed or has expired comes back.
    """

    def __init__(
        self,
        config: SemanticCacheSection,
        guard: Guard,
        records: Records,
        telemetry: Telemetry,
        embedding: EmbeddingModel,
        *,
        clock: Callable[[], float] = time.time,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`clock` gives Unix seconds; a lookup that takes longer than `patience_s` is a miss."""
        self._config = config
        self._guard = guard
        self._records = records
        self._embedding = embedding
        self._clock = clock
        self._semantic_records = SemanticRecords(embedding)
        self._index = PartitionedIndex(
            most_entries=config.most_entries, most_partitions=config.most_partitions, width=embedding.width
        )
        self._thread = IndexThread(self._index, patience_s)
        self._budget = ErrorBudget(
            config.budget,
            similarity=config.similarity or embedding.similarity,
            clock=clock,
            most_partitions=2 * config.most_partitions,
        )
        self._metrics = SemanticMetrics(telemetry, self.statistics)

    async def __aenter__(self) -> Self:
        await self._thread.__aenter__()
        self._records.listen(Kind.SEMANTIC, self._take)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._thread.__aexit__()

    async def learn(self) -> None:
        """Take in what the disk has, newest first, as far as there is room; a job that ends.

        It is one by one, so that requests go first.
        """
        async for record in self._records.scan(Kind.SEMANTIC):
            self._take(record, newest=False)
            await self.settle()

    async def find(self, partition: bytes, text: str, vector: Floats) -> Found | None:
        """The nearest earlier question of this partition whose answer answers `text` too, or None. Never raises.

        `partition` is a 32-byte digest of all that shapes an answer but the question, `vector` the text's, of length 1.
        Whoever serves the answer calls `count_hit`.
        """
        started = time.perf_counter()
        outcome, found = await self._find(partition, text, vector)
        self._metrics.count(outcome, time.perf_counter() - started)
        return found

    def add(
        self,
        partition: bytes,
        key: bytes,
        text: str,
        vector: Floats,
        *,
        tenant: str,
        model: str,
        tags: tuple[str, ...],
        expires_at: float,
        on_site: bool = False,
    ) -> None:
        """Have `find` know, in this partition, that `text` was answered under `key`. Returns at once, never raises."""
        fit = self._fit(text, vector)
        if fit is None:
            return
        question = Question(partition, Entry(key, text, tenant, model, tags, expires_at), fit)
        self._index_question(question)
        self._records.write(self._semantic_records.write_question(question, self._clock()), on_site=on_site)

    def forget(self, partition: bytes, key: bytes) -> None:
        """There is no answer under this key any more."""
        self._change(partial(PartitionedIndex.forget, partition=partition, key=key))

    async def flush(self, selector: Selector) -> None:
        """Forget the texts of answers that are flushed; their records are flushed with the answers'."""
        with suppress(BusyError):
            for partition in await self._thread.finish(PartitionedIndex.names):
                await self._thread.finish(partial(PartitionedIndex.flush, partition=partition, selector=selector))

    def gate(self, partition: bytes) -> Gate:
        """Whether a partition is open, and if not, why."""
        return self._budget.gate(partition)

    def count_hit(self, found: Found) -> bool:
        """Its answer was served; returns whether to have that audited."""
        return self._budget.count_hit(found.partition)

    def judge(self, partition: bytes, similarity: float, *, right: bool) -> None:
        """An audit's verdict on a hit of this similarity."""
        measure = self._budget.record(partition, similarity, right=right)
        if measure is not None:
            _logger.warning("Semantic cache, partition %s: %s: %s.", partition.hex()[:12], measure.step, measure.why)
            self._records.write(self._semantic_records.write_measure(measure, self._clock()))

    async def settle(self) -> None:
        """Wait until everything added so far can be found."""
        with suppress(BusyError):
            await self._thread.finish(PartitionedIndex.names)

    def statistics(self) -> SemanticStatistics:
        """How things stand; never waits."""
        return SemanticStatistics(
            kind=Kind.SEMANTIC,
            hits=self._metrics.hits,
            misses=self._metrics.lookups - self._metrics.hits,
            entries=self._index.entries,
            partitions=self._index.partitions,
            budget=self._budget.statistics(),
        )

    async def _find(self, partition: bytes, text: str, vector: Floats) -> tuple[Outcome, Found | None]:
        gate = self._budget.gate(partition)
        if not gate.passable:
            return (Outcome.SHUT if gate.state is BudgetState.SHUT else Outcome.PAUSED), None
        fit = self._fit(text, vector)
        if fit is None:
            return Outcome.UNFIT, None
        try:
            # the guard compares word by word: that is no work for the event loop either
            return await self._thread.search(lambda index: self._choose(index, gate, partition, text, fit))
        except BusyError:
            return Outcome.BUSY, None
        except LateError:
            return Outcome.LATE, None
        except Exception as exc:  # noqa: BLE001 - a broken index or guard must not break the requests
            # without the message, which may quote the prompt
            _logger.error("Semantic lookup failed with %s.", type(exc).__name__)  # noqa: TRY400
            return Outcome.FAILED, None

    def _choose(
        self, index: PartitionedIndex, gate: Gate, partition: bytes, text: str, fit: Vector
    ) -> tuple[Outcome, Found | None]:
        """The nearest that the guard lets pass; on the index's thread."""
        near = index.search(partition, fit, CANDIDATES, self._clock())
        near = [match for match in near if match.similarity >= gate.similarity]
        for match in near:
            refusal = self._guard.refuse(text, match.entry.text)
            if refusal is None:
                return Outcome.HIT, Found(partition, match.entry.key, match.entry.text, match.similarity)
            self._metrics.count_refusal(refusal)
        return (Outcome.REFUSED if near else Outcome.FAR), None

    def _fit(self, text: str, vector: Floats) -> Vector | None:
        """None: nothing to look up or to keep."""
        return self._embedding.fit(vector) if len(text) <= self._config.most_characters else None

    def _take(self, record: Record, *, newest: bool = True) -> None:
        """From another replica, or from the disk."""
        if record.expires_at <= self._clock():
            return
        match self._semantic_records.read(record):
            case Question() as question if newest or self._index.entries < self._config.most_entries:
                self._index_question(question, newest=newest)
            case Measure() as measure:
                self._budget.learn(measure)

    def _index_question(self, question: Question, *, newest: bool = True) -> None:
        self._change(lambda index: index.add(question.partition, question.entry, question.vector, newest=newest))

    def _change(self, change: Callable[[PartitionedIndex], None]) -> None:
        try:
            self._thread.change(change)
        except BusyError:
            self._metrics.count_dropped()
