"""
`make bench-decision`: what a routing decision costs on one core, through the scorer that serves: its threads, its event
loop, no cache.

In runs of their own, since timers cost, the event loop is watched by a task that sleeps a millisecond at a time. How
late it wakes, less the time for which Linux gave the core to another thread or program, is how long the loop was
blocked: by the interpreter's lock or by work of its own. Latencies cannot be freed of other programs that way: on a
busy machine run it with `chrt -r 10`.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import uvloop

from edge.engine.encoder import Encoder
from edge.engine.session import SessionConfig
from edge.models.store import Store
from loadtests.bench import Row, report
from loadtests.pair.questions import Split, generate
from loadtests.site import DEMO_ARTIFACT
from router.config import EmbeddingUse, Scoring
from router.decision import Evidence, Rules, Target, Tier, decide, select_eligible
from router.embedder import Embedder
from router.query import Conversation, Message, Parameters, Prompt, Query
from router.scoring import Scorer
from router.scoring.service import ScoringService
from router.telemetry import Telemetry

SEED = 515_151
TARGETS = [Target("edge", Tier.EDGE), Target("cloud", Tier.CLOUD)]
_TICK_S = 0.001
_THRESHOLD = 0.5
_MS = 1e3
_FILLER = "what is the total of all these different numbers if one more is added here"


@dataclass(slots=True)
class Measured:
    """Seconds that each decision took, how many had the full embedding, and seconds in all."""

    took_s: list[float] = field(default_factory=list)
    refined: int = 0
    all_s: float = 0.0

    def took_ms(self, percentile: float) -> float:
        """A percentile of the decisions."""
        return float(np.percentile(self.took_s, percentile)) * _MS


async def measure(scorer: Scorer, prompts: Sequence[Prompt], *, concurrency: int) -> Measured:
    """Decide on every prompt once, so many at a time."""
    measured = Measured()
    waiting = iter(prompts)

    async def work() -> None:
        for prompt in waiting:
            begun = time.perf_counter()
            score = await scorer.score(Query(prompt, Parameters()), _THRESHOLD)
            decide(select_eligible(Rules(), TARGETS), score=score, threshold=_THRESHOLD, up={"edge", "cloud"})
            measured.took_s.append(time.perf_counter() - begun)
            measured.refined += score.evidence is Evidence.EMBEDDING

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    measured.all_s = time.perf_counter() - begun
    return measured


async def watch_loop(scorer: Scorer, prompts: Sequence[Prompt], *, concurrency: int) -> float:
    """The longest time, in seconds, that the event loop was blocked while decisions were made."""
    blocked_s: list[float] = []

    async def tick() -> None:
        while True:
            slept, queued = time.perf_counter(), _queued_s()
            await asyncio.sleep(_TICK_S)
            late_s = time.perf_counter() - slept - _TICK_S
            blocked_s.append(late_s - (_queued_s() - queued))

    async with asyncio.TaskGroup() as group:
        ticker = group.create_task(tick())
        await measure(scorer, prompts, concurrency=concurrency)
        ticker.cancel()
    return max(blocked_s)


def _queued_s() -> float:
    """Seconds for which this thread could run, but the core had others to run."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def questions(count: int) -> Iterator[Prompt]:
    """Fresh ones, each another."""
    for question in generate(SEED, count, Split.TEST):
        yield Conversation(tuple(Message(*message) for message in question.messages))


def long_questions(embedding: Path, tokens: int, count: int) -> Iterator[Prompt]:
    """Of just so many tokens of the embedding model."""
    encoder = Encoder(embedding, SessionConfig(threads=1))
    words = itertools.cycle(_FILLER.split())
    for number in range(count):
        text = f"{number} "
        while len(encoder.tokenize([text])[0]) < tokens:
            text += next(words) + " "
        yield Conversation((Message("user", text),))


async def run(artifact: Path, embedding: Path, count: int) -> list[Row]:
    """Every measurement, each on prompts that it sees for the first time."""
    fresh = questions(4 * count)

    def take(part: int) -> list[Prompt]:
        return list(itertools.islice(fresh, part))

    blocked_s = []
    async with _serving(artifact, embedding, EmbeddingUse.NEVER) as scorer:
        await measure(scorer, take(200), concurrency=8)  # warm up
        alone = await measure(scorer, take(count), concurrency=1)
        crowd = await measure(scorer, take(count), concurrency=64)
        blocked_s.append(await watch_loop(scorer, take(count // 2), concurrency=64))
    async with _serving(artifact, embedding, EmbeddingUse.ALWAYS) as scorer:
        long = list(long_questions(embedding, 32, 300))
        await measure(scorer, long[:20], concurrency=1)
        full = await measure(scorer, long[20:], concurrency=1)
        blocked_s.append(await watch_loop(scorer, take(count // 8), concurrency=16))
    async with _serving(artifact, embedding, EmbeddingUse.AUTO) as scorer:
        auto = await measure(scorer, take(count // 4), concurrency=4)
        blocked_s.append(await watch_loop(scorer, take(count // 4), concurrency=32))
    blocked_ms = max(blocked_s) * _MS
    rate = len(crowd.took_s) / crowd.all_s
    return [
        Row("stage one alone, p50", f"{alone.took_ms(50):.3f} ms", "<= 0.150 ms", alone.took_ms(50) <= 0.150),
        Row("stage one alone, p99", f"{alone.took_ms(99):.3f} ms", "<= 1 ms", alone.took_ms(99) <= 1.0),
        Row("stage one, 64 at once", f"{rate:.0f} decisions/s", ">= 3000", rate >= 3000),
        Row("stage one, 64 at once, p99", f"{crowd.took_ms(99):.1f} ms", "-", holds=True),
        _judge_full(full),
        Row("where answers are not checked: refined share", f"{auto.refined / len(auto.took_s):.2f}", "-", holds=True),
        Row("where answers are not checked, 4 at once, p50", f"{auto.took_ms(50):.2f} ms", "-", holds=True),
        Row("event loop blocked at most", f"{blocked_ms:.2f} ms", "<= 2 ms", blocked_ms <= 2),
    ]


def _judge_full(full: Measured) -> Row:
    name, median = "with the full embedding, 32 tokens, p50", full.took_ms(50)
    if full.refined < len(full.took_s):
        return Row(name, f"only {full.refined} of {len(full.took_s)} had it", "-", holds=True)
    return Row(name, f"{median:.2f} ms", "<= 4 ms", median <= 4)


@asynccontextmanager
async def _serving(artifact: Path, embedding: Path, use: EmbeddingUse) -> AsyncIterator[Scorer]:
    config = Scoring(artifact=artifact, embedding=embedding, use_embedding=use)
    telemetry = Telemetry()
    async with Embedder(config, telemetry, None) as embedder, ScoringService(config, telemetry, embedder) as scorer:
        yield scorer


@click.command(context_settings={"show_default": True})
@click.option("--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the models are.")
@click.option("--artifact", type=click.Path(path_type=Path), default=DEMO_ARTIFACT, help="A score's.")
@click.option("--count", default=2000, help="Decisions of a measurement.")
@click.option("--core", type=int, help="Which core; default: the last one.")
def main(store: Path, artifact: Path, count: int, core: int | None) -> None:
    """Measure what a decision costs."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})
    embedding = Store(store).find("all-minilm-l6-v2-fast")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(artifact, embedding, count))
    sys.exit(report("decision", rows))


if __name__ == "__main__":
    main()
