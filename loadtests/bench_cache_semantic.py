"""
What a semantic lookup costs beyond the embedding, on one core: the real cache with its thread, budget and metrics, in
one large partition and in many small ones, also while entries are added.

Vectors are those of generated questions by the real encoder. For the large sizes each stands for many: copies are
turned a little (cosine about .95), which makes them crowd together as the phrasings of real questions do. Recall is
against comparing with all, on the encoded ones alone and on the large partition.

On a busy machine the latencies are also other programs': a row of its own shows them less the time for which threads of
this process could run but had to wait for the core.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from pathlib import Path

import click
import numpy as np
import uvloop
from numpy.typing import NDArray

from edge.engine.encoder import Encoder
from edge.engine.session import SessionConfig
from edge.models.store import Store
from loadtests.bench import Row, report
from loadtests.pair.questions import Split, generate
from router.cache import FlushReport, Kind, Learn, Record, Selector, TierStatistics
from router.cache.index import Entry, PartitionedIndex
from router.cache.segment import Vector
from router.cache.semantic import EmbeddingModel, SemanticCache
from router.config.cache import SemanticCache as SemanticCacheSection
from router.telemetry import Telemetry

SEED = 404_404
SIMILARITY = 0.8
_BATCH = 32
_TURN = 0.33
_ADDED_PER_S = 50
_CHUNK = 1000
_FOREVER = 1e12
_MS = 1e3

Vectors = NDArray[np.float32]


class Unkept:
    """Records that go nowhere: what the tiers cost is another benchmark's matter."""

    deep = False

    def peek(self, key: bytes) -> Record | None:
        return None

    async def read(self, key: bytes) -> Record | None:
        return None

    def write(self, record: Record, *, on_site: bool = False) -> None:
        pass

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        nothing: tuple[Record, ...] = ()
        for record in nothing:
            yield record

    def listen(self, kind: Kind, learn: Learn) -> None:
        pass

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        return FlushReport(selector=selector, dry_run=dry_run, records={})

    def statistics(self) -> list[TierStatistics]:
        return []


class Unguarded:
    """Refuses nothing: the guard has a benchmark of its own."""

    def refuse(self, asked: str, stored: str) -> StrEnum | None:
        return None


def encode(folder: Path, count: int) -> Vectors:
    """Vectors of so many different questions."""
    encoder = Encoder(folder, SessionConfig(threads=1))
    fresh = (question.messages[-1][1] for question in generate(SEED, 20 * count, Split.TRAIN))
    texts = sorted(itertools.islice(dict.fromkeys(fresh), count), key=len)
    batches = [encoder.encode(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    rows: Vectors = np.concatenate(batches)
    shuffled: Vectors = rows[np.random.default_rng(SEED).permutation(len(rows))]
    return shuffled


def multiply(vectors: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    """`count` vectors, each one of the given ones turned a little."""
    noise = rng.standard_normal((count, vectors.shape[1]), dtype=np.float32)
    noise *= _TURN / np.linalg.norm(noise, axis=1, keepdims=True)
    turned: Vectors = vectors[rng.integers(len(vectors), size=count)] + noise
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    return turned


def measure_recall(stored: Vectors, asked: Vectors) -> float:
    """How often the index finds a vector as near as the nearest there is."""
    index = PartitionedIndex(most_entries=len(stored), most_partitions=1, width=stored.shape[1])
    for number, vector in enumerate(stored.astype(np.float16)):
        index.add(b"", Entry(number.to_bytes(32, "big"), "", "", "", (), _FOREVER), vector)
    found = [index.search(b"", vector, 1, 0.0)[0].similarity for vector in asked.astype(np.float16)]
    return share_nearest(found, (asked @ stored.T).max(axis=1))


def share_nearest(found: Sequence[float], nearest: NDArray[np.float32]) -> float:
    """How many found what is nearest, within float16's rounding."""
    return float(np.mean(np.asarray(found) >= nearest - 2e-3))


class Run:
    """One cache of so many entries and partitions, filled and then looked up."""

    def __init__(self, entries: int, partitions: int, vectors: Vectors) -> None:
        self._partitions = [number.to_bytes(32, "big") for number in range(partitions)]
        self._rng = np.random.default_rng(SEED + partitions)
        self._vectors = vectors
        self._entries = entries
        self._numbers = itertools.count()
        config = SemanticCacheSection(enabled=True, most_entries=entries, most_partitions=partitions)
        model = EmbeddingModel("bench", vectors.shape[1], SIMILARITY)
        self.cache = SemanticCache(config, Unguarded(), Unkept(), Telemetry(), model, patience_s=5.0)

    async def fill(self) -> tuple[float, float]:
        """Seconds and bytes of resident memory that an entry takes."""
        before, took_s = _resident_bytes(), 0.0
        for start in range(0, self._entries, _CHUNK):
            vectors = self._stored(start)
            begun = time.perf_counter()
            for vector in vectors:
                self._add(vector)
            await self.cache.settle()
            took_s += time.perf_counter() - begun
        return took_s / self._entries, (_resident_bytes() - before) / self._entries

    async def recall(self, count: int) -> float:
        """How many lookups find the nearest of all that was filled in; for one partition."""
        asked = multiply(self._vectors, count, self._rng)
        nearest = np.full(count, -1.0, np.float32)
        for start in range(0, self._entries, _CHUNK):
            nearest = np.maximum(nearest, (asked @ self._stored(start).T).max(axis=1))
        found = [await self.cache.find(self._partitions[0], "question", vector) for vector in asked]
        return share_nearest(
            [one.similarity if one else 0.0 for one in found], np.where(nearest < SIMILARITY, 0, nearest)
        )

    def _stored(self, start: int) -> Vectors:
        return multiply(self._vectors, min(_CHUNK, self._entries - start), np.random.default_rng([SEED, start]))

    async def look_up(self, count: int, *, adding: bool) -> NDArray[np.float64]:
        """Milliseconds that each lookup took, and how many of them waiting for the core: [count, 2]."""
        asked = multiply(self._vectors, count, self._rng)
        async with asyncio.TaskGroup() as group:
            adder = group.create_task(self._keep_adding()) if adding else None
            took = [await self._time(number, vector) for number, vector in enumerate(asked)]
            if adder:
                adder.cancel()
        return np.asarray(took) * _MS

    async def _time(self, number: int, vector: Vectors) -> tuple[float, float]:
        partition = self._partitions[(number * 7) % len(self._partitions)]
        waited_s, begun = _waited_s(), time.perf_counter()
        await self.cache.find(partition, "what is the sum of 12 and 30?", vector)
        took_s = time.perf_counter() - begun
        waited_s = _waited_s() - waited_s
        await asyncio.sleep(0.0005)  # requests do not follow each other without a gap
        return took_s, waited_s

    async def _keep_adding(self) -> None:
        while True:
            self._add(multiply(self._vectors, 1, self._rng)[0])
            await asyncio.sleep(1 / _ADDED_PER_S)

    def _add(self, vector: Vectors | Vector) -> None:
        number = next(self._numbers)
        self.cache.add(
            self._partitions[number % len(self._partitions)],
            number.to_bytes(32, "big"),
            f"what is the sum of {number} and {number * 3}, please?",
            vector,
            tenant="tenant",
            model="model",
            tags=(),
            expires_at=_FOREVER,
        )


def _waited_s() -> float:
    """Seconds for which threads of this process could run, but the core had others to run."""
    return sum(int(path.read_text().split()[1]) for path in Path("/proc/self/task").glob("*/schedstat")) / 1e9


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def measure(entries: int, partitions: int, lookups: int, vectors: Vectors) -> list[Row]:
    """Rows of one size."""
    run = Run(entries, partitions, vectors)
    async with run.cache:
        added_s, entry_bytes = await run.fill()
        name = f"{run.cache.statistics().entries} entries in {partitions}"
        recall = await run.recall(lookups // 4) if partitions == 1 else None
        alone = await run.look_up(lookups, adding=False)
        beside = await run.look_up(lookups, adding=True)
    rows = [
        Row(f"{name}: added in", f"{added_s * _MS:.3f} ms", "-", holds=True),
        Row(f"{name}: resident memory each", f"{entry_bytes:.0f} bytes", "-", holds=True),
    ]
    if recall is not None:
        rows.append(Row(f"{name}: recall@1", f"{recall:.4f}", ">= 0.99", recall >= 0.99))
    for text, took in (("lookup", alone), (f"lookup, {_ADDED_PER_S} added/s", beside)):
        p50, p99 = np.percentile(took[:, 0], (50, 99))
        alone_p99 = float(np.percentile(took[:, 0] - took[:, 1], 99))
        rows.append(Row(f"{name}: {text}, p50", f"{p50:.3f} ms", "-", holds=True))
        rows.append(Row(f"{name}: {text}, p99", f"{p99:.3f} ms", "<= 2 ms", bool(p99 <= 2)))
        rows.append(Row(f"{name}: {text}, p99 less waits for the core", f"{alone_p99:.3f} ms", "-", holds=True))
    return rows


async def run(vectors: Vectors, entries: int, lookups: int) -> list[Row]:
    """Every measurement."""
    asked = len(vectors) // 5
    recall = measure_recall(vectors[asked:], vectors[:asked])
    rows = [Row(f"recall@1 of {asked} in {len(vectors) - asked} questions", f"{recall:.4f}", ">= 0.99", recall >= 0.99)]
    sizes: Sequence[int] = (1000, 1)
    for partitions in sizes:
        rows += await measure(entries, partitions, lookups, vectors)
    return rows


@click.command(context_settings={"show_default": True})
@click.option("--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the models are.")
@click.option("--questions", default=10_000, help="How many to encode.")
@click.option("--entries", default=100_000, help="Entries of the cache.")
@click.option("--lookups", default=4_000, help="Lookups of a measurement.")
@click.option("--core", type=int, help="Which core; default: the last one.")
def main(store: Path, questions: int, entries: int, lookups: int, core: int | None) -> None:
    """Measure what a semantic lookup costs."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})
    vectors = encode(Store(store).find("all-minilm-l6-v2-fast"), questions)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(vectors, entries, lookups))
    sys.exit(report("cache-semantic", rows))


if __name__ == "__main__":
    main()
