"""`/v1/embeddings` input by input: what is cached is not asked for, and nobody can tell by vectors or usage."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache.directives import CacheControl
from router.cache.embedding import EmbeddingCache
from router.cache.plan import CacheStatus
from router.config.cache import EmbeddingCache as Section
from router.config.lanes import Lane
from router.embedding_calls import Embedded, EmbeddingCaller
from router.errors import BackendError, NotCachedError
from router.lanes import TargetLane
from router.query import Completion, Delta, EmbeddingQuery, Embeddings, Input, Query
from router.telemetry import Stopwatch, Telemetry
from tests.cache.plain import PlainRecords

pytestmark = pytest.mark.anyio
FREE = CacheControl()
inputs = st.one_of(st.text("abc ", max_size=3), st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple))


@dataclass
class Library:
    """A backend that embeds with a digest, and counts letters or ids as tokens: in each input, or in all."""

    tells_counts: bool = True
    version: str = "1"
    fails: bool = False
    updates_to: str | None = None
    asked: list[tuple[Input, ...]] = field(default_factory=list)

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        self.asked.append(query.inputs)
        if self.fails:
            raise BackendError("out of order")
        self.version = self.updates_to or self.version
        counts = tuple(map(len, query.inputs))
        vectors = tuple(sha256(repr((self.version, one)).encode()).digest() for one in query.inputs)
        return Embeddings(vectors, sum(counts), counts if self.tells_counts else None)

    async def complete(self, query: Query) -> Completion:
        raise BackendError("no chat here")

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        raise BackendError("no chat here")
        yield

    async def ready(self) -> bool:
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


def lanes(*libraries: str) -> dict[str, TargetLane]:
    return {name: TargetLane(name, Lane(slots=100), {}) for name in libraries}


class Bench:
    """A caller over one or two libraries."""

    def __init__(self, **libraries: Library) -> None:
        self.records = PlainRecords()
        cache = EmbeddingCache(self.records, Section(), Telemetry())
        self.caller = EmbeddingCaller(libraries, lanes(*libraries), dict.fromkeys(libraries, "minilm"), cache)

    async def embed(
        self, *inputs: Input, target: str = "shop", tenant: str = "t", control: CacheControl = FREE
    ) -> Embedded:
        """One request."""
        return await self.caller.embed(target, EmbeddingQuery(inputs, tenant=tenant), control, Stopwatch())


async def test_only_what_is_missing_is_asked_for_and_each_once() -> None:
    shop = Library()
    bench = Bench(shop=shop)
    await bench.embed("a", "b")

    embedded = await bench.embed("c", "b", (1, 2), "c", "a")
    again = await bench.embed("c", "b", (1, 2), "c", "a")

    assert shop.asked == [("a", "b"), ("c", (1, 2))]
    assert embedded.status is CacheStatus.MISS
    assert again.status is CacheStatus.HIT
    assert again.embeddings == embedded.embeddings
    plain = await Library().embed(EmbeddingQuery(("c", "b", (1, 2), "c", "a")))
    assert embedded.embeddings == Embeddings(plain.vectors, plain.prompt_tokens)


@given(st.lists(st.lists(inputs, min_size=1, max_size=6), min_size=1, max_size=6), st.booleans())
async def test_vectors_and_usage_are_those_of_a_router_without_a_cache(
    requests: list[list[Input]], tells_counts: bool
) -> None:
    shop = Library(tells_counts=tells_counts)
    bench = Bench(shop=shop)

    for request in requests:
        embedded = await bench.embed(*request)
        plain = await Library().embed(EmbeddingQuery(tuple(request)))
        assert embedded.embeddings.vectors == plain.vectors
        assert embedded.embeddings.prompt_tokens == plain.prompt_tokens


async def test_of_a_server_that_tells_sums_only_what_was_asked_alone_is_kept() -> None:
    shop = Library(tells_counts=False)
    bench = Bench(shop=shop)

    assert (await bench.embed("a", "bb")).status is CacheStatus.MISS
    assert not bench.records.kept
    await bench.embed("a")
    assert (await bench.embed("a", "a")).status is CacheStatus.HIT
    await bench.embed("a", "bb")  # the one that is missing is alone
    assert (await bench.embed("bb", "a")).embeddings.prompt_tokens == 3

    assert shop.asked == [("a", "bb"), ("a",), ("bb",)]


async def test_targets_tenants_and_versions_share_nothing() -> None:
    shop, ward = Library(), Library()
    bench = Bench(shop=shop, ward=ward)
    await bench.embed("a")

    assert (await bench.embed("a", target="ward")).status is CacheStatus.MISS
    assert (await bench.embed("a", tenant="u")).status is CacheStatus.MISS
    assert (await bench.embed("a")).status is CacheStatus.HIT
    shop.version = "2"
    assert (await bench.embed("a")).status is CacheStatus.MISS


async def test_a_model_that_changes_under_a_request_leaves_nothing() -> None:
    bench = Bench(shop=Library(updates_to="2"))

    await bench.embed("a")

    assert not bench.records.kept


async def test_directives() -> None:
    shop = Library()
    bench = Bench(shop=shop)

    assert (await bench.embed("a", control=CacheControl(no_store=True))).status is CacheStatus.BYPASS
    assert not bench.records.kept
    with pytest.raises(NotCachedError):
        await bench.embed("a", control=CacheControl(only_if_cached=True))
    assert (await bench.embed("a", control=CacheControl(no_cache=True))).status is CacheStatus.BYPASS
    assert bench.records.kept
    assert (await bench.embed("a", control=CacheControl(max_age_s=0))).status is CacheStatus.BYPASS
    assert len(shop.asked) == 3
    assert (await bench.embed("a", control=CacheControl(only_if_cached=True))).status is CacheStatus.HIT
    with pytest.raises(NotCachedError):
        await bench.embed("a", "b", control=CacheControl(only_if_cached=True))
    assert len(shop.asked) == 3


async def test_a_failing_target_fails_the_batch_and_leaves_nothing() -> None:
    shop = Library()
    bench = Bench(shop=shop)
    await bench.embed("a")
    shop.fails = True

    with pytest.raises(BackendError):
        await bench.embed("a", "b")

    assert len(bench.records.kept) == 1
    assert (await bench.embed("a")).status is CacheStatus.HIT


async def test_without_a_cache_a_request_goes_as_it_came() -> None:
    shop = Library()
    caller = EmbeddingCaller({"shop": shop}, lanes("shop"), {"shop": "minilm"}, None)

    embedded = await caller.embed("shop", EmbeddingQuery(("a", "a")), FREE, Stopwatch())

    assert embedded.status is CacheStatus.BYPASS
    assert shop.asked == [("a", "a")]
