"""The response cache and single-flight in the pipeline, over places that count what they are asked."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from router.cache import Record
from router.cache.keys import KeyMaker
from router.cache.plan import CacheStatus
from router.cache.response import ResponseCache
from router.config import Check
from router.config.cache import Freshness, Storable
from router.config.cache import ResponseCache as ResponseSection
from router.decision import Label, Rules, Tier
from router.errors import BackendError, DeadlineError, NotCachedError, RefusedError, UnavailableError
from router.pipeline import Answer, StreamedAnswer
from router.query import Conversation, Message, Parameters, Priority, Query
from tests.cache.plain import PlainRecords
from tests.router.places import Bench, Judge, Place, bench, read

pytestmark = pytest.mark.anyio

SURE = Query(Conversation((Message("user", "why?"),)), Parameters(max_tokens=50, temperature=0.0), tenant="shop")
EDGE_ONLY, CLOUD_ONLY = Rules(wish=Tier.EDGE), Rules(wish=Tier.CLOUD)
UNTRIED = Check(enabled=False)
BRIEF = Freshness(ttl_s=100, jitter=0, stale_while_revalidate_s=50, stale_if_error_s=500)


@dataclass
class World:
    """A pipeline with a cache, its places, and a clock that only the test moves."""

    made: Bench
    edge: Place
    cloud: Place
    records: PlainRecords
    fingerprint: list[str]
    now: list[float] = field(default_factory=lambda: [0.0])

    async def answer(self, query: Query = SURE, rules: Rules = EDGE_ONLY, said: str = "") -> Answer:
        return await self.made.answer(query, rules, said)

    async def stream(self, query: Query = SURE, rules: Rules = EDGE_ONLY, said: str = "") -> StreamedAnswer:
        return await self.made.stream(query, rules, said)

    @property
    def asked(self) -> int:
        """Generations so far."""
        return len(self.edge.asked) + len(self.cloud.asked)


@asynccontextmanager
async def world(
    section: ResponseSection | None = None, edge: Place | None = None, records: type[PlainRecords] = PlainRecords
) -> AsyncIterator[World]:
    now, fingerprint = [1e9], ["1"]
    kept = records(clock=lambda: now[0])
    edge, cloud = edge or Place(["e1 ", "e2 ", "e3"]), Place(["c1 ", "c2"])
    section = section or ResponseSection(freshness=BRIEF)
    cache = ResponseCache(section, kept, KeyMaker(lambda _: list(fingerprint)), clock=lambda: now[0])
    async with bench(edge, cloud, Judge(), check=UNTRIED, cache=cache) as made:
        yield World(made, edge, cloud, kept, fingerprint, now)


def text(answer: Answer) -> str:
    return answer.completion.choices[0].text


async def test_an_answer_is_made_once_and_served_again() -> None:
    async with world() as here:
        first, second = await here.answer(), await here.answer()

        assert (first.origin.status, second.origin.status) == (CacheStatus.MISS, CacheStatus.HIT)
        assert list(first.completion.choices) == list(second.completion.choices)
        assert first.completion.usage == second.completion.usage
        assert first.origin.stamp == second.origin.stamp
        assert first.origin.decision.target == second.origin.decision.target
        assert here.asked == 1


@pytest.mark.parametrize(("first", "second"), [("answer", "stream"), ("stream", "answer"), ("stream", "stream")])
async def test_whole_and_streamed_requests_share_entries(first: str, second: str) -> None:
    async with world() as here:
        said, statuses = [], []
        for form in (first, second):
            if form == "answer":
                answer = await here.answer()
                said.append(text(answer))
                statuses.append(answer.origin.status)
            else:
                streamed = await here.stream()
                said.append(await read(streamed))
                statuses.append(streamed.origin.status)
                await streamed.pieces.aclose()

        assert said == ["e1 e2 e3"] * 2
        assert statuses == [CacheStatus.MISS, CacheStatus.HIT]
        assert here.asked == 1


async def test_an_aborted_stream_fills_nothing() -> None:
    async with world(edge=Place(["e1 ", "e2 "], [0, 60])) as here:
        streamed = await here.stream()
        await anext(aiter(streamed.pieces.for_client()))
        await streamed.pieces.aclose()

        assert here.edge.running == 0
        assert not here.records.kept


async def test_a_failed_stream_fills_nothing() -> None:
    async with world(edge=Place(["e1 ", "e2 "], fails_at=1)) as here:
        streamed = await here.stream()
        with pytest.raises(BackendError):
            await read(streamed)
        await streamed.pieces.aclose()

        assert not here.records.kept


async def test_a_stream_that_ends_before_its_answer_does_is_a_failure_and_fills_nothing() -> None:
    async with world(edge=Place(["e1 ", "e2 "], ends=False)) as here:
        streamed = await here.stream()
        with pytest.raises(BackendError):
            await read(streamed)
        await streamed.pieces.aclose()

        assert not here.records.kept


async def test_a_degraded_answer_fills_nothing() -> None:
    async with world(edge=Place(["e1 "], fails_at=0, failure=UnavailableError)) as here:
        answer = await here.answer(rules=Rules(threshold=1))

        assert answer.origin.decision.degraded
        assert text(answer) == "c1 c2"
        assert not here.records.kept


@pytest.mark.parametrize("temperature", [None, 0.7])
async def test_only_deterministic_requests_are_cached_by_default(temperature: float | None) -> None:
    query = replace(SURE, parameters=Parameters(temperature=temperature))
    async with world() as here:
        statuses = [(await here.answer(query)).origin.status for _ in range(2)]
        assert statuses == [CacheStatus.BYPASS] * 2
        assert here.asked == 2
    async with world(ResponseSection(store=Storable.ALL)) as here:
        statuses = [(await here.answer(query)).origin.status for _ in range(2)]
        assert statuses == [CacheStatus.MISS, CacheStatus.HIT]


async def test_an_answer_about_data_that_must_not_leave_is_kept_on_site() -> None:
    async with world() as here:
        await here.answer()
        await here.answer(replace(SURE, on_site=True), Rules(labels=frozenset({Label.EDGE_ONLY})))

        assert len(here.records.kept) == 2
        assert len(here.records.on_site) == 1


async def test_a_tenant_never_gets_anothers_answer() -> None:
    async with world() as here:
        await here.answer()
        other = await here.answer(replace(SURE, tenant="ward"))

        assert other.origin.status is CacheStatus.MISS
        assert here.asked == 2


async def test_a_new_model_or_artifact_sees_no_old_answer_and_an_old_one_fills_nothing() -> None:
    async with world(edge=Place(["e1 "], [0.01])) as here:
        await here.answer()
        here.fingerprint[0] = "2"
        assert (await here.answer()).origin.status is CacheStatus.MISS

        here.records.kept.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(here.answer())
            await asyncio.sleep(0.002)
            here.fingerprint[0] = "3"
        assert not here.records.kept


async def test_an_answer_that_is_too_long_is_not_kept() -> None:
    async with world(ResponseSection(most_entry_bytes=1024), Place(["x" * 2000])) as here:
        statuses = [(await here.answer()).origin.status for _ in range(2)]

        assert statuses == [CacheStatus.MISS] * 2


@pytest.mark.parametrize(
    ("said", "status", "asked", "kept"),
    [
        ("no-cache", CacheStatus.BYPASS, 1, 1),
        ("no-store", CacheStatus.BYPASS, 1, 0),
        ("max-age=0", CacheStatus.MISS, 1, 1),
        ("max-age=60", CacheStatus.MISS, 1, 1),
    ],
)
async def test_what_directives_leave_behind(said: str, status: CacheStatus, asked: int, kept: int) -> None:
    async with world() as here:
        assert (await here.answer(said=said)).origin.status is status
        assert (here.asked, len(here.records.kept)) == (asked, kept)


async def test_what_directives_take() -> None:
    async with world() as here:
        await here.answer()
        here.now[0] += 10
        assert (await here.answer(said="max-age=20")).origin.age_s == 10
        assert (await here.answer(said="only-if-cached")).origin.status is CacheStatus.HIT
        assert (await here.answer(said="no-store")).origin.status is CacheStatus.BYPASS
        assert here.asked == 2
        assert (await here.answer(said="max-age=5")).origin.status is CacheStatus.MISS
        assert (await here.answer(said="max-age=5")).origin.age_s == 0
        assert (await here.answer(said="no-cache")).origin.status is CacheStatus.BYPASS
        assert here.asked == 4


async def test_only_if_cached_asks_nobody() -> None:
    async with world() as here:
        with pytest.raises(NotCachedError):
            await here.answer(said="only-if-cached")
        with pytest.raises(NotCachedError):
            await here.stream(replace(SURE, parameters=Parameters()), said="only-if-cached")

        assert here.asked == 0


async def test_a_stale_answer_is_served_while_one_new_one_is_made() -> None:
    async with world(edge=Place(["e1 "], [0.02])) as here:
        first = await here.answer()
        here.now[0] += 120

        stale = [await here.answer() for _ in range(5)]
        assert {one.origin.stamp for one in stale} == {first.origin.stamp}
        assert {one.origin.age_s for one in stale} == {120}

        await asyncio.sleep(0.1)
        assert here.asked == 2
        assert here.edge.asked[1].priority is Priority.BATCH
        fresh = await here.answer()
        assert (fresh.origin.status, fresh.origin.age_s) == (CacheStatus.HIT, 0)
        assert fresh.origin.stamp != first.origin.stamp


async def test_only_so_many_stale_answers_are_made_anew_at_once() -> None:
    async with world(edge=Place(["e1 "])) as here:
        queries = [replace(SURE, parameters=replace(SURE.parameters, seed=seed)) for seed in range(30)]
        for query in queries:
            await here.answer(query)
        here.now[0] += 120
        here.edge.delays_s = [0.05]

        statuses = {(await here.answer(query)).origin.status for query in queries}
        await asyncio.sleep(0.01)
        assert statuses == {CacheStatus.HIT}
        assert 1 < here.edge.running <= 8


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stale_answer_stands_in_when_no_target_answers(streamed: bool) -> None:
    async with world() as here:
        first = await here.answer()
        here.edge.fails_at, here.edge.failure = 0, UnavailableError
        here.now[0] += 300

        if streamed:
            begun = await here.stream()
            assert await read(begun) == text(first)
            origin = begun.origin
        else:
            answer = await here.answer()
            assert text(answer) == text(first)
            origin = answer.origin
        assert (origin.stale, origin.age_s) == (True, 300)
        with pytest.raises(UnavailableError):
            await here.answer(said="stale-if-error=60")
        here.now[0] += 301
        with pytest.raises(UnavailableError):
            await here.answer()


async def test_a_stale_answer_hides_no_mistake_of_the_caller() -> None:
    async with world() as here:
        await here.answer()
        here.edge.fails_at, here.edge.failure = 0, RefusedError
        here.now[0] += 300

        with pytest.raises(RefusedError):
            await here.answer()


async def test_a_route_may_have_its_own_freshness() -> None:
    section = ResponseSection(freshness=BRIEF, routes={"cloud": Freshness(ttl_s=10_000)})
    async with world(section) as here:
        for rules in (EDGE_ONLY, Rules(model="cloud")):
            await here.answer(rules=rules)
        here.now[0] += 5000

        assert (await here.answer(rules=EDGE_ONLY)).origin.status is CacheStatus.MISS
        assert (await here.answer(rules=Rules(model="cloud"))).origin.status is CacheStatus.HIT


@pytest.mark.parametrize("streamed", [False, True])
async def test_500_equal_requests_make_one_generation(streamed: bool) -> None:
    async with world(edge=Place(["e1 ", "e2 ", "e3"], [0.02, 0.02, 0.02])) as here:

        async def ask(index: int) -> str:
            if index % 2 == streamed:
                begun = await here.stream()
                return await read(begun)
            return text(await here.answer())

        said = await asyncio.gather(*map(ask, range(500)))

        assert set(said) == {"e1 e2 e3"}
        assert here.asked == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_leader_that_leaves_fails_nobody(streamed: bool) -> None:
    async with world(edge=Place(["e1 ", "e2 ", "e3"], [0.02, 0.02, 0.02])) as here:

        async def ask() -> str:
            if streamed:
                begun = await here.stream()
                try:
                    return await read(begun)
                finally:
                    await begun.pieces.aclose()
            return text(await here.answer())

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask()) for _ in range(500)]
            await asyncio.sleep(0.03)
            tasks[0].cancel()

        assert tasks[0].cancelled()
        assert {task.result() for task in tasks[1:]} == {"e1 e2 e3"}
        assert here.asked == 1


async def test_the_last_one_to_leave_ends_the_work() -> None:
    async with world(edge=Place(["e1 "], [60])) as here:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(here.answer()) for _ in range(5)]
            await asyncio.sleep(0.01)
            for task in tasks:
                assert here.edge.running == 1
                task.cancel()
                await asyncio.sleep(0.001)
            assert here.edge.running == 0

        here.edge.delays_s = []
        assert (await here.answer()).origin.status is CacheStatus.MISS


async def test_a_patient_request_outlives_a_hasty_leaders_deadline() -> None:
    async with world(edge=Place(["e1 "], [0.05])) as here:
        loop = asyncio.get_running_loop()
        here.edge.obeys_deadlines = True
        hasty = replace(SURE, deadline=loop.time() + 0.02)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_outcome(here.answer(hasty)))
            await asyncio.sleep(0.001)
            others = [group.create_task(here.answer()) for _ in range(20)]

        assert isinstance(first.result(), DeadlineError)
        assert {text(task.result()) for task in others} == {"e1 "}
        assert here.asked == 2


async def test_a_hasty_request_waits_no_longer_than_its_own_deadline() -> None:
    async with world(edge=Place(["e1 "], [1.0])) as here:
        async with asyncio.TaskGroup() as group:
            patient = group.create_task(here.answer())
            await asyncio.sleep(0.001)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            outcome = await _outcome(here.answer(replace(SURE, deadline=begun + 0.02)))
            waited = loop.time() - begun

        assert isinstance(outcome, DeadlineError)
        assert waited < 0.5
        assert text(patient.result()) == "e1 "


async def test_a_failure_is_everyones_and_is_not_kept() -> None:
    async with world(edge=Place(["e1 "], [0.01], fails_at=0)) as here:
        outcomes = await asyncio.gather(*(_outcome(here.answer()) for _ in range(20)))

        assert {type(one) for one in outcomes} == {BackendError}
        assert here.asked == 1
        here.edge.fails_at = None
        assert (await here.answer()).origin.status is CacheStatus.MISS


async def test_an_urgent_request_does_not_wait_in_a_patient_ones_place() -> None:
    async with world(edge=Place(["e1 "], [0.02])) as here:
        urgent, patient = replace(SURE, priority=Priority.INTERACTIVE), replace(SURE, priority=Priority.BATCH)
        await asyncio.gather(here.answer(patient), here.answer(urgent))

        assert [query.priority for query in here.edge.asked] == [Priority.BATCH, Priority.INTERACTIVE]


class FarRecords(PlainRecords):
    """A read takes its time, and finds what was there when it began."""

    delays_s: Iterator[float] = iter(())

    async def read(self, key: bytes) -> Record | None:
        found = self.peek(key)
        await asyncio.sleep(next(self.delays_s, 0))
        return found


async def test_who_looked_far_while_the_answer_came_does_not_ask_again() -> None:
    async with world(records=FarRecords) as here:
        here.records.delays_s = iter([0.005, 0.1])  # type: ignore[attr-defined]
        first, second = await asyncio.gather(here.answer(), here.answer())

        assert (first.origin.status, second.origin.status) == (CacheStatus.MISS, CacheStatus.HIT)
        assert here.asked == 1


async def _outcome(asking: object) -> object:
    try:
        return await asking  # type: ignore[misc]
    except (BackendError, DeadlineError) as exc:
        return exc
