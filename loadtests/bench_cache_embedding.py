"""
`python -m loadtests.bench_cache_embedding`: what a vector from the cache costs, on one core: the whole lookup from text
to bytes, what a miss adds, and a score whose embedding is cached beside one whose is not.

The cache stands over the tiers of the default configuration, which is memory alone.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import uvloop

from edge.models.store import Store
from loadtests.bench import Row, report
from loadtests.bench_decision import long_questions, measure
from loadtests.site import DEMO_ARTIFACT
from router.cache.embedding import EmbeddingCache, Maker, StoredVector
from router.cache.tiered import TieredRecords
from router.config import EmbeddingUse, Scoring
from router.config.cache import EmbeddingCache as EmbeddingCacheSection
from router.config.cache import Tiers
from router.embedder import Embedder, name_maker, open_embedding
from router.scoring.service import ScoringService
from router.telemetry import Telemetry

_TENANT: Final = "shop"
_CHARACTERS: Final = 200
_US, _MS = 1e6, 1e3


@dataclass(frozen=True, slots=True)
class Bench:
    """A cache, and how its vectors are named and made."""

    cache: EmbeddingCache
    telemetry: Telemetry
    maker: Maker
    width: int

    def fill(self, texts: Sequence[str]) -> None:
        """Keep a vector of each."""
        numbers = np.random.default_rng(7).normal(size=(len(texts), self.width)).astype("<f4")
        for text, vector in zip(texts, numbers, strict=True):
            self.cache.write(self.maker, _TENANT, text, StoredVector(vector.tobytes(), len(text) // 4))


def make_texts(count: int) -> list[str]:
    """Different ones of 200 characters."""
    words = "what is the total of all these different numbers if one more is added here " * 3
    return [f"{number} {words}"[:_CHARACTERS] for number in range(count)]


def time_each(work: Callable[[str], object], texts: Sequence[str]) -> list[float]:
    """Microseconds that each took, the clock's own included."""
    took = []
    for text in texts:
        begun = time.perf_counter()
        work(text)
        took.append((time.perf_counter() - begun) * _US)
    return took


async def time_each_read(bench: Bench, texts: Sequence[str]) -> list[float]:
    """Microseconds of each miss."""
    took = []
    for text in texts:
        begun = time.perf_counter()
        found = await bench.cache.read(bench.maker, _TENANT, text)
        took.append((time.perf_counter() - begun) * _US)
        if found is not None:
            raise AssertionError("a text that was never kept was found")
    return took


async def run(artifact: Path, embedding: Path, count: int) -> list[Row]:
    """Every measurement."""
    async with _caching(embedding) as bench:
        rows = await measure_lookups(bench, count)
        return [*rows, *await measure_scores(bench, artifact, embedding)]


async def measure_lookups(bench: Bench, count: int) -> list[Row]:
    """Hits in random order, misses, writes."""
    texts = make_texts(3 * count)
    known, absent, new = texts[:count], texts[count : 2 * count], texts[2 * count :]
    bench.fill(known)
    np.random.default_rng(5).shuffle(known)

    def peek(text: str) -> object:
        return bench.cache.peek(bench.maker, _TENANT, text)

    def write(text: str) -> None:
        bench.cache.write(bench.maker, _TENANT, text, vector)

    vector = StoredVector(bytes(4 * bench.width), 50)
    found = sum(peek(text) is not None for text in known)
    hits, misses = time_each(peek, known), await time_each_read(bench, absent)
    writes = time_each(write, new)
    hit_us = float(np.percentile(hits, 50))
    return [
        Row("vectors found of those kept", f"{found / count:.3f}", "1.000", found == count),
        Row("hit, 200 characters, p50", f"{hit_us:.1f} us", "<= 20 us", hit_us <= 20),
        Row("hit, p99", f"{np.percentile(hits, 99):.1f} us", "-", holds=True),
        Row("miss adds, p50", f"{np.percentile(misses, 50):.1f} us", "-", holds=True),
        Row("keeping a vector, p50", f"{np.percentile(writes, 50):.1f} us", "-", holds=True),
    ]


async def measure_scores(bench: Bench, artifact: Path, embedding: Path) -> list[Row]:
    """Scores that always use the embedding of 32 tokens: asked once, again, and without any cache."""
    config = Scoring(artifact=artifact, embedding=embedding, use_embedding=EmbeddingUse.ALWAYS)
    prompts = list(long_questions(embedding, 32, 300))
    times = []
    for cache in (bench.cache, None):
        telemetry = Telemetry()
        async with (
            Embedder(config, telemetry, cache) as embedder,
            ScoringService(config, telemetry, embedder) as scorer,
        ):
            await measure(scorer, prompts[:20], concurrency=1)  # warm up
            times += [await measure(scorer, prompts[20:], concurrency=1) for _ in range(2)]
    first, again, plain, _ = times
    refined = {one.refined for one in times}
    if refined != {len(prompts) - 20}:
        return [
            Row("score with the embedding", f"only {min(refined)} of {len(prompts) - 20} had it", "all", holds=False)
        ]
    return [
        Row("score, no cache, p50", f"{plain.took_ms(50):.2f} ms", "-", holds=True),
        Row("score, vector not cached yet, p50", f"{first.took_ms(50):.2f} ms", "-", holds=True),
        Row("score, vector cached, p50", f"{again.took_ms(50):.3f} ms", "-", holds=True),
    ]


@asynccontextmanager
async def _caching(embedding: Path) -> AsyncIterator[Bench]:
    telemetry = Telemetry()
    identity, encoder = open_embedding(embedding)
    async with TieredRecords(Tiers(), telemetry) as records:
        cache = EmbeddingCache(records, EmbeddingCacheSection(), telemetry)
        yield Bench(cache, telemetry, name_maker(identity), encoder.width)


@click.command(context_settings={"show_default": True})
@click.option("--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the models are.")
@click.option("--count", default=5000, help="Vectors of a measurement.")
@click.option("--core", type=int, help="Which core; default: the last one.")
def main(store: Path, count: int, core: int | None) -> None:
    """Measure what a cached vector costs."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})
    embedding = Store(store).find("all-minilm-l6-v2-fast")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(DEMO_ARTIFACT, embedding, count))
    sys.exit(report("cache_embedding", rows))


if __name__ == "__main__":
    main()
