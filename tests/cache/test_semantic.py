"""The semantic cache over real parts: index, thread, budget and auditor; only the embedder is bad, on purpose."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from hashlib import sha256

import numpy as np
import pytest
from prometheus_client import generate_latest

from router.cache import Kind, Record, Selector
from router.cache.auditor import Audit, Auditor
from router.cache.error_budget import BudgetState
from router.cache.segment import Vector
from router.cache.semantic import EmbeddingModel, Found, Guard, SemanticCache
from router.config.cache import ErrorBudget as ErrorBudgetSection
from router.config.cache import SemanticCache as SemanticCacheSection
from router.telemetry import Telemetry
from tests.cache.plain import PlainRecords

WIDTH = 32
MODEL = EmbeddingModel("model@1", WIDTH, 0.9)
CONFIG = SemanticCacheSection(enabled=True)
ONE, TWO = b"1" * 32, b"2" * 32
FOREVER = 1e12


class Difference(StrEnum):
    NUMBER = "number"


class Permissive:
    """Lets all pass, so that wrong hits get through."""

    def refuse(self, asked: str, stored: str) -> StrEnum | None:
        return None


class NumberGuard:
    """Refuses other digits."""

    def refuse(self, asked: str, stored: str) -> StrEnum | None:
        def digits(text: str) -> list[str]:
            return [word for word in text.split() if word.isdigit()]

        return None if digits(asked) == digits(stored) else Difference.NUMBER


def embed(text: str) -> Vector:
    """A direction of each text's own."""
    rng = np.random.default_rng(list(sha256(text.encode()).digest()))
    vector = rng.standard_normal(WIDTH)
    unit: Vector = (vector / np.linalg.norm(vector)).astype(np.float16)
    return unit


def embed_badly(text: str) -> Vector:
    """Nearly one direction for all texts: every two have a cosine of about .98."""
    vector = np.ones(WIDTH) / np.sqrt(WIDTH) + 0.15 * embed(text).astype(np.float64)
    unit: Vector = (vector / np.linalg.norm(vector)).astype(np.float16)
    return unit


def key_of(partition: bytes, text: str) -> bytes:
    return sha256(partition + text.encode()).digest()


def add(cache: SemanticCache, partition: bytes, text: str, vector: Vector | None = None, **given: object) -> bytes:
    key = key_of(partition, text)
    fields = {"tenant": "tenant", "model": "model", "tags": (), "expires_at": FOREVER} | given
    cache.add(partition, key, text, embed(text) if vector is None else vector, **fields)  # type: ignore[arg-type]
    return key


@asynccontextmanager
async def serving(
    records: PlainRecords | None = None,
    guard: Guard | None = None,
    config: SemanticCacheSection = CONFIG,
    telemetry: Telemetry | None = None,
    model: EmbeddingModel = MODEL,
    clock: Callable[[], float] = lambda: 1_000.0,
) -> AsyncIterator[SemanticCache]:
    cache = SemanticCache(
        config,
        guard or Permissive(),
        records or PlainRecords(),
        telemetry or Telemetry(),
        model,
        clock=clock,
        patience_s=30.0,  # a busy machine makes no miss
    )
    async with cache:
        yield cache


async def test_a_question_is_found_in_its_partition_alone() -> None:
    async with serving() as cache:
        key = add(cache, ONE, "what is a cat")
        await cache.settle()

        found = await cache.find(ONE, "what is a cat", embed("what is a cat"))

        assert found is not None
        assert (found.key, found.text) == (key, "what is a cat")
        assert found.similarity == pytest.approx(1.0, abs=2e-3)
        assert await cache.find(TWO, "what is a cat", embed("what is a cat")) is None
        assert await cache.find(ONE, "what is a dog", embed("what is a dog")) is None


async def test_the_guard_passes_over_the_nearest_to_the_next() -> None:
    async with serving(guard=NumberGuard()) as cache:
        vector = embed("either")
        for text in ("add 1", "add 2", "add 3"):
            add(cache, ONE, text, vector)
        await cache.settle()

        found = await cache.find(ONE, "please add 2", vector)
        refused = await cache.find(ONE, "please add 4", vector)

        assert found is not None
        assert found.text == "add 2"
        assert refused is None


async def test_a_guard_that_breaks_makes_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def refuse(self, asked: str, stored: str) -> StrEnum | None:
            raise ValueError(asked)

    telemetry = Telemetry()
    async with serving(guard=Broken(), telemetry=telemetry) as cache:
        add(cache, ONE, "secret question")
        await cache.settle()

        assert await cache.find(ONE, "secret question", embed("secret question")) is None

    assert telemetry.registry.get_sample_value("hybrid_semantic_lookups_total", {"outcome": "failed"}) == 1
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_what_is_forgotten_or_expired_is_not_found() -> None:
    now = [1_000.0]
    async with serving(clock=lambda: now[0]) as cache:
        forgotten = add(cache, ONE, "forgotten")
        add(cache, ONE, "expires", expires_at=1_010.0)
        await cache.settle()
        assert await cache.find(ONE, "expires", embed("expires"))

        cache.forget(ONE, forgotten)
        now[0] = 1_010.0
        await cache.settle()

        assert await cache.find(ONE, "forgotten", embed("forgotten")) is None
        assert await cache.find(ONE, "expires", embed("expires")) is None
        assert cache.statistics().entries == 0


async def test_a_flush_forgets_what_it_selects() -> None:
    async with serving() as cache:
        add(cache, ONE, "mine", tenant="a")
        add(cache, TWO, "theirs", tenant="b", tags=("x",))

        await cache.flush(Selector(tenant="a"))

        assert await cache.find(ONE, "mine", embed("mine")) is None
        assert await cache.find(TWO, "theirs", embed("theirs"))
        await cache.flush(Selector(tag="x"))
        assert await cache.find(TWO, "theirs", embed("theirs")) is None


async def test_entries_survive_a_restart_and_what_was_flushed_does_not() -> None:
    disk: dict[bytes, Record] = {}
    records = PlainRecords(disk)
    async with serving(records) as cache:
        key = add(cache, ONE, "kept", tenant="a")
        add(cache, ONE, "flushed", tenant="b")
        add(cache, ONE, "short", expires_at=1_001.0)
    await records.flush(Selector(tenant="b"))

    async with serving(PlainRecords(disk), clock=lambda: 2_000.0) as cache:
        await cache.learn()

        assert cache.statistics().entries == 1
        found = await cache.find(ONE, "kept", embed("kept"))
        assert found is not None
        assert found.key == key
    assert all(b"kept" not in record.key for record in disk.values())


async def test_a_start_learns_the_newest_and_then_the_oldest_go_first() -> None:
    disk: dict[bytes, Record] = {}
    async with serving(PlainRecords(disk)) as cache:
        for number in range(50):
            add(cache, ONE, f"question {number}")

    async with serving(PlainRecords(disk), config=SemanticCacheSection(enabled=True, most_entries=30)) as cache:
        await cache.learn()
        add(cache, ONE, "new")
        await cache.settle()

        texts = {f"question {number}" for number in range(50)}
        found = {text for text in texts if await cache.find(ONE, text, embed(text))}

        assert cache.statistics().entries == 30
        assert found == {f"question {number}" for number in range(21, 50)}
        assert await cache.find(ONE, "new", embed("new"))


async def test_a_start_without_room_for_all_learns_the_newest_of_each_partition() -> None:
    disk: dict[bytes, Record] = {}
    async with serving(PlainRecords(disk)) as cache:
        for number in range(20):
            add(cache, ONE, f"question {number}")
            add(cache, TWO, f"question {number}")

    async with serving(PlainRecords(disk), config=SemanticCacheSection(enabled=True, most_entries=30)) as cache:
        await cache.learn()

        for partition in (ONE, TWO):
            for number in range(20):
                text = f"question {number}"
                assert (await cache.find(partition, text, embed(text)) is not None) == (number >= 5)


async def test_entries_reach_replicas() -> None:
    replicas: list[PlainRecords] = []
    async with serving(PlainRecords(replicas=replicas)) as first, serving(PlainRecords(replicas=replicas)) as second:
        add(first, ONE, "shared")
        await second.settle()

        assert await second.find(ONE, "shared", embed("shared"))
        assert await second.find(TWO, "shared", embed("shared")) is None


async def test_records_of_another_embedding_model_and_damaged_ones_are_ignored() -> None:
    disk: dict[bytes, Record] = {}
    async with serving(PlainRecords(disk)) as cache:
        add(cache, ONE, "old")
    (good,) = disk.values()
    for number, value in enumerate((b"", b"\xc1", good.value[:-9], good.value[::-1])):
        key = bytes([number]) * 32
        disk[key] = Record(key, Kind.SEMANTIC, value, "t", "m", 0.0, FOREVER)

    async with serving(PlainRecords(disk), model=EmbeddingModel("model@2", WIDTH, 0.9)) as cache:
        await cache.learn()
        assert cache.statistics().entries == 0
    async with serving(PlainRecords(disk)) as cache:
        await cache.learn()
        assert cache.statistics().entries == 1


@pytest.mark.parametrize("vector", [np.full(WIDTH, np.nan), np.zeros(WIDTH), np.ones(WIDTH), np.ones(WIDTH + 1)])
async def test_vectors_that_are_none_are_left_out(vector: Vector) -> None:
    async with serving() as cache:
        add(cache, ONE, "bad", vector.astype(np.float32))
        await cache.settle()

        assert cache.statistics().entries == 0
        assert await cache.find(ONE, "bad", vector.astype(np.float32)) is None


async def test_long_questions_are_left_out() -> None:
    async with serving() as cache:
        add(cache, ONE, "x" * 513)
        await cache.settle()

        assert cache.statistics().entries == 0


async def test_bounds_hold_and_nothing_crosses_under_concurrency() -> None:
    config = SemanticCacheSection(enabled=True, most_entries=300, most_partitions=5)
    async with serving(config=config) as cache:

        async def work(partition: bytes) -> None:
            for number in range(200):
                text = f"question {number}"
                add(cache, partition, text)
                found = await cache.find(partition, text, embed(text))
                assert found is None or found.key == key_of(partition, found.text)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(work(bytes([number]) * 32))
        await cache.settle()

        assert cache.statistics().entries <= 300
        assert cache.statistics().partitions <= 5


async def test_a_lookup_that_is_cancelled_anywhere_harms_no_other() -> None:
    async with serving() as cache:
        for number in range(100):
            add(cache, ONE, f"question {number}")
        await cache.settle()

        for turns in range(6):
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(cache.find(ONE, f"question {number}", embed(f"question {number}")))
                    for number in range(50)
                ]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
            found = [task.result() for task in tasks[1::2]]
            assert [one.text if one else None for one in found] == [f"question {n}" for n in range(1, 50, 2)]


async def test_whoever_waits_when_it_stops_is_let_go() -> None:
    async with serving() as cache:
        for number in range(1000):
            add(cache, ONE, f"question {number}")
        async with asyncio.TaskGroup() as group:
            lookups = [group.create_task(cache.find(ONE, "question 7", embed("question 7"))) for _ in range(50)]
            others = [group.create_task(cache.settle()), group.create_task(cache.flush(Selector()))]
            await asyncio.sleep(0)
            await cache.__aexit__()

    assert all(task.done() for task in (*lookups, *others))


class Sums:
    """Questions that have one true answer, served from the cache as the pipeline does, and audited as it does."""

    def __init__(self, cache: SemanticCache, telemetry: Telemetry, embed: Callable[[str], Vector]) -> None:
        self.cache = cache
        self.embed = embed
        self.answers: dict[bytes, str] = {}
        self.hits = 0
        self.wrong = 0

        async def answer(text: str) -> str:
            await asyncio.sleep(0)
            return self.work_out(text)

        async def no_vector(text: str) -> Vector | None:
            return None

        self.auditor: Auditor[str] = Auditor(
            answer, no_vector, lambda: True, cache.judge, telemetry, most_per_s=1_000_000
        )

    def work_out(self, text: str) -> str:
        _, first, _, second = text.split()
        return f"The sum is {int(first) + int(second)}."

    async def ask(self, text: str, partition: bytes = ONE) -> str:
        found = await self.cache.find(partition, text, self.embed(text))
        if found is not None:
            return self.serve(found, text)
        answer = self.work_out(text)
        key = key_of(partition, text)
        self.answers[key] = answer
        self.cache.add(partition, key, text, self.embed(text), tenant="t", model="m", tags=(), expires_at=FOREVER)
        await self.cache.settle()
        return answer

    def serve(self, found: Found, text: str) -> str:
        served = self.answers[found.key]
        self.hits += 1
        self.wrong += served != self.work_out(text)
        if self.cache.count_hit(found):
            self.auditor.submit(Audit(found.partition, found.similarity, text, served))
        return served


async def run_beside(job: Callable[[], Awaitable[None]], body: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_run(job))
        await body()
        task.cancel()


async def _run(job: Callable[[], Awaitable[None]]) -> None:
    await job()


async def test_with_an_embedder_made_bad_the_partition_shuts_within_200_hits_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry, disk = Telemetry(), dict[bytes, Record]()
    async with serving(PlainRecords(disk), telemetry=telemetry) as cache:
        sums = Sums(cache, telemetry, embed_badly)

        async def ask() -> None:
            for number in range(600):
                await sums.ask(f"add {number} and {number * 7}")

        with caplog.at_level(logging.WARNING):
            await run_beside(sums.auditor.run, ask)

        gate = cache.gate(ONE)
        metrics = generate_latest(telemetry.registry).decode()

    assert 0 < sums.wrong <= sums.hits <= 200
    assert gate.state is BudgetState.SHUT
    assert "audited hits were wrong, more than 1.00%" in gate.why
    assert gate.why in caplog.text
    assert not any(f"add {number} and" in caplog.text for number in range(600))
    assert 'hybrid_semantic_states{state="shut"} 1.0' in metrics
    assert 'hybrid_semantic_lookups_total{outcome="shut"}' in metrics

    async with serving(PlainRecords(disk)) as cache:
        await cache.learn()
        assert cache.gate(ONE) == gate, "shut also after a restart"
        assert cache.gate(TWO).state is BudgetState.OPEN


async def test_with_a_bad_embedder_and_no_audits_it_pauses_within_200_hits() -> None:
    async with serving() as cache:
        sums = Sums(cache, Telemetry(), embed_badly)

        for number in range(600):
            await sums.ask(f"add {number} and {number * 7}")

        assert cache.gate(ONE).state is BudgetState.PAUSED
        assert sums.hits == 200


async def test_with_a_bad_embedder_a_guard_lets_nothing_wrong_through() -> None:
    telemetry = Telemetry()
    async with serving(guard=NumberGuard(), telemetry=telemetry) as cache:
        sums = Sums(cache, telemetry, embed_badly)

        async def ask() -> None:
            for number in range(300):
                await sums.ask(f"add {number} and {number * 7}")
                await sums.ask(f"plus {number} and {number * 7}")

        await run_beside(sums.auditor.run, ask)
        metrics = generate_latest(telemetry.registry).decode()

    assert sums.hits > 0
    assert sums.wrong == 0
    assert cache.gate(ONE).state is BudgetState.OPEN
    assert 'hybrid_semantic_refusals_total{kind="number"}' in metrics


async def test_another_partition_stays_open_beside_a_shut_one() -> None:
    config = SemanticCacheSection(enabled=True, budget=ErrorBudgetSection(first_hits=1000))
    telemetry = Telemetry()
    async with serving(config=config, telemetry=telemetry) as cache:
        bad, good = Sums(cache, telemetry, embed_badly), Sums(cache, Telemetry(), embed)

        async def ask() -> None:
            for number in range(100):
                await bad.ask(f"add {number} and {number * 7}")
                await good.ask(f"add {number % 5} and {number % 5}", TWO)

        await run_beside(bad.auditor.run, ask)

        assert cache.gate(ONE).state is BudgetState.SHUT
        assert cache.gate(TWO).passable
        assert good.wrong == 0
        assert good.hits == 95
