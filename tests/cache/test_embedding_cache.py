"""Vectors by tenant, maker and input: each to exactly its own, or to none."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache import Kind, Selector
from router.cache.embedding import EmbeddingCache, Maker, Owner, StoredVector, make_key
from router.config.cache import EmbeddingCache as Section
from router.query import Input
from router.telemetry import Telemetry
from tests.cache.plain import PlainRecords

pytestmark = pytest.mark.anyio
MAKER = Maker(Owner.TARGET, "shop", "minilm", "1")
VECTOR = StoredVector(b"\x00\x00\x80?" * 3, 5)

# few letters and the empty string: so that what one field ends with is often what the next begins with
names = st.text("ab0", max_size=3)
texts = st.one_of(names, st.text(max_size=8), st.just("\ud800"), st.just("\u00e9"), st.just("e\u0301"))
tokens = st.lists(st.one_of(st.integers(0, 2), st.integers(0, 2**31 - 1)), max_size=4).map(tuple)
makers = st.builds(Maker, st.sampled_from(Owner), names, names, names)
entries = st.tuples(makers, names, st.one_of(texts, tokens))


def open_cache(records: PlainRecords | None = None, telemetry: Telemetry | None = None) -> EmbeddingCache:
    """Over a dict."""
    return EmbeddingCache(records or PlainRecords(), Section(), telemetry or Telemetry())


@given(st.lists(entries, unique=True, min_size=2, max_size=30))
def test_nothing_gets_the_vector_of_another(entries: list[tuple[Maker, str, Input]]) -> None:
    cache = open_cache()
    for number, entry in enumerate(entries[::2]):
        cache.write(*entry, StoredVector(number.to_bytes(4, "little"), number))

    for place, entry in enumerate(entries):
        own = StoredVector((place // 2).to_bytes(4, "little"), place // 2)
        assert cache.peek(*entry) == (None if place % 2 else own)


TWINS: list[tuple[tuple[Maker, str, Input], tuple[Maker, str, Input]]] = [
    ((MAKER, "a", "bc"), (MAKER, "ab", "c")),
    ((MAKER, "", "x"), (MAKER, "x", "")),
    ((MAKER, "t", "1"), (MAKER, "t", (1,))),
    ((MAKER, "t", "\x01" + "\x00" * 7), (MAKER, "t", (1,))),
    ((MAKER, "t", (1, 23)), (MAKER, "t", (12, 3))),
    ((MAKER, "t", ()), (MAKER, "t", "")),
    ((MAKER, "t", (0,)), (MAKER, "t", (0, 0))),
    ((MAKER, "t", "The cat"), (MAKER, "t", "the cat")),
    ((MAKER, "t", "cat"), (MAKER, "t", "cat ")),
    ((MAKER, "t", "\u00e9"), (MAKER, "t", "e\u0301")),
    ((MAKER, "t", "\ud800"), (MAKER, "t", "?")),
    ((MAKER._replace(name="shop", model="m"), "t", "x"), (MAKER._replace(name="sho", model="pm"), "t", "x")),
    ((MAKER, "t", "x"), (MAKER._replace(version="2"), "t", "x")),
    ((MAKER, "t", "x"), (MAKER._replace(owner=Owner.ROUTER), "t", "x")),
    ((MAKER, "a\0b", "c"), (MAKER, "a", "b\0c")),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_near_twins_have_keys_of_their_own(one: tuple[Maker, str, Input], other: tuple[Maker, str, Input]) -> None:
    assert make_key(*one) == make_key(*one)
    assert make_key(*one) != make_key(*other)
    assert len(make_key(*one)) == 32


async def test_a_record_says_whose_it_is_and_for_how_long_but_not_of_what() -> None:
    records = PlainRecords()
    before = time.time()

    open_cache(records).write(MAKER, "ward", "CANARY", VECTOR)

    (record,) = records.kept.values()
    assert (record.kind, record.tenant, record.model) == (Kind.EMBEDDING, "ward", "shop")
    assert before + Section().ttl_s <= record.expires_at <= time.time() + Section().ttl_s
    assert b"CANARY" not in msgspec.msgpack.encode(record)
    for selector in (Selector(tenant="shop"), Selector(model="minilm"), Selector(tag="x")):
        assert not selector.matches(record)
    assert Selector(tenant="ward", model="shop").matches(record)


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value[:-1],
        lambda value: value[:-4],
        lambda value: value + b"\x00\x00\x00\x00",
        lambda value: value[:8],
        lambda value: value[:3],
        lambda value: b"",
    ],
)
async def test_a_value_of_a_wrong_length_is_a_miss(damage) -> None:  # type: ignore[no-untyped-def]
    records = PlainRecords()
    cache = open_cache(records)
    cache.write(MAKER, "t", "x", VECTOR)
    (record,) = records.kept.values()
    assert cache.peek(MAKER, "t", "x") == VECTOR

    records.write(msgspec.structs.replace(record, value=damage(record.value)))

    assert cache.peek(MAKER, "t", "x") is None
    assert await cache.read(MAKER, "t", "x") is None


async def test_lookups_are_counted_once() -> None:
    telemetry = Telemetry()
    cache = open_cache(telemetry=telemetry)

    for _ in range(2):
        if cache.peek(MAKER, "t", "x") is None and await cache.read(MAKER, "t", "x") is None:
            cache.write(MAKER, "t", "x", VECTOR)

    results = {
        result: telemetry.registry.get_sample_value("hybrid_embedding_cache_lookups_total", {"result": result})
        for result in ("hit", "miss")
    }
    assert results == {"hit": 1, "miss": 1}
