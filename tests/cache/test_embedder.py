"""The router's own encoder behind the cache: each text once, bit for bit, whoever waits and whoever leaves."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edge.engine.encoder import Encoder, Tokens, Vectors
from edge.engine.session import SessionConfig
from loadtests.site import STORE
from router.cache import Record
from router.cache.embedding import EmbeddingCache
from router.config import EmbeddingUse, Scoring
from router.config.cache import EmbeddingCache as Section
from router.decision import Evidence
from router.embedder import Embedder, Embedding, EmbeddingIdentity, embed_texts, open_embedding
from router.query import Parameters, Query
from router.scoring.service import ScoringService
from router.telemetry import Telemetry
from tests.cache.plain import PlainRecords
from tests.edge.embedding import write_embedding_artifact
from tests.router.artifacts import ask, write_artifact

pytestmark = pytest.mark.anyio
MINILM = STORE / "all-minilm-l6-v2-fast" / "1"


@dataclass
class Watched:
    """Opens an encoder that counts what it computes, and may take its time or fail at first."""

    delay_s: float = 0.0
    failures: int = 0
    computed: list[tuple[int, ...]] = field(default_factory=list)
    version: str | None = None

    def __call__(self, folder: Path) -> Embedding:
        watched, (identity, _) = self, open_embedding(folder)

        class Counting(Encoder):
            def embed(self, rows: Sequence[Tokens]) -> Vectors:
                watched.computed += map(tuple, rows)
                time.sleep(watched.delay_s)
                if len(watched.computed) <= watched.failures:
                    raise MemoryError
                return super().embed(rows)

        known = EmbeddingIdentity(identity.name, self.version or identity.version, identity.sha256)
        return Embedding(known, Counting(folder, SessionConfig(threads=1)))


class SlowRecords(PlainRecords):
    """Memory is at once; what it lacks takes as long to be found missing as a far tier allows."""

    async def read(self, key: bytes) -> Record | None:
        await asyncio.sleep(0.015)
        return self.peek(key)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_artifact(tmp_path_factory.mktemp("embedder") / "tiny")


def open_embedder(folder: Path, watched: Watched, records: PlainRecords | None) -> Embedder:
    """With telemetry of its own."""
    telemetry = Telemetry()
    cache = None if records is None else EmbeddingCache(records, Section(), telemetry)
    return Embedder(Scoring(embedding=folder), telemetry, cache, watched)


@pytest.mark.parametrize("records", [None, PlainRecords(), SlowRecords()])
async def test_a_hundred_equal_texts_at_once_are_one_computation(tiny: Path, records: PlainRecords | None) -> None:
    watched = Watched(delay_s=0.02)
    async with open_embedder(tiny, watched, records) as embedder:
        vectors = await asyncio.gather(*(embedder.embed("the cat sleeps", "shop") for _ in range(100)))

    (expected,) = embed_texts(open_embedding(tiny).encoder, ["the cat sleeps"])
    assert len(watched.computed) == 1
    assert {None if vector is None else vector.tobytes() for vector in vectors} == {expected.tobytes()}


async def test_what_was_computed_is_found_by_the_next_router_for_its_tenant_and_model_alone(tiny: Path) -> None:
    records, first, second = PlainRecords(), Watched(), Watched()
    async with open_embedder(tiny, first, records) as embedder:
        made = await embedder.embed("the cat", "shop")
    async with open_embedder(tiny, second, records) as embedder:
        found = await embedder.embed("the cat", "shop")
        assert made is not None
        assert found is not None
        assert found.tobytes() == made.tobytes()
        assert not second.computed

        await embedder.embed("the cat", "ward")
        await embedder.embed("the cat ", "shop")
        assert len(second.computed) == 2
    other = Watched(version="2")
    async with open_embedder(tiny, other, records) as embedder:
        await embedder.embed("the cat", "shop")
    assert len(other.computed) == 1


async def test_a_vector_of_another_width_is_no_hit(tiny: Path) -> None:
    records, watched = PlainRecords(), Watched()
    async with open_embedder(tiny, watched, records) as embedder:
        made = await embedder.embed("the cat", "shop")
        (key, record), *_ = records.kept.items()
        records.kept[key] = Record(
            key, record.kind, record.value[:4] + b"\x01\0\0\0abcd", record.tenant, record.model, 0, record.expires_at
        )
        again = await embedder.embed("the cat", "shop")

    assert made is not None
    assert again is not None
    assert again.tobytes() == made.tobytes()
    assert len(watched.computed) == 2


async def test_who_leaves_first_does_not_take_the_others_vector(tiny: Path) -> None:
    watched = Watched(delay_s=0.05)
    async with open_embedder(tiny, watched, PlainRecords()) as embedder, asyncio.TaskGroup() as group:
        first = group.create_task(embedder.embed("the cat", "shop"))
        await asyncio.sleep(0.01)
        rest = [group.create_task(embedder.embed("the cat", "shop")) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()

    assert first.cancelled()
    assert all(task.result() is not None for task in rest)
    assert len(watched.computed) == 1


async def test_when_all_have_left_nothing_waits_and_who_comes_then_is_served(tiny: Path) -> None:
    watched = Watched(delay_s=0.05)
    async with open_embedder(tiny, watched, None) as embedder, asyncio.TaskGroup() as group:
        busy = group.create_task(embedder.embed("stocks fell", "shop"))
        await asyncio.sleep(0.01)
        given_up = group.create_task(embedder.embed("the cat", "shop"))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.sleep(0)

        assert await embedder.embed("the cat", "shop") is not None
        assert await busy is not None
    assert len(watched.computed) == 2  # the one that nobody waited for was never begun


async def test_a_failure_is_none_is_not_kept_and_does_not_last(tiny: Path) -> None:
    records = PlainRecords()
    async with open_embedder(tiny, Watched(failures=1), records) as embedder:
        assert await embedder.embed("the cat", "shop") is None
        assert not records.kept
        assert await embedder.embed("the cat", "shop") is not None


async def test_a_shared_vector_cannot_be_changed(tiny: Path) -> None:
    async with open_embedder(tiny, Watched(), PlainRecords()) as embedder:
        for _ in range(2):
            vector = await embedder.embed("the cat", "shop")
            assert vector is not None
            with pytest.raises(ValueError, match="read-only"):
                vector[0] = 0.0


async def test_only_the_beginning_of_a_long_text_is_read(tiny: Path) -> None:
    watched = Watched()
    async with open_embedder(tiny, watched, PlainRecords()) as embedder:
        await embedder.embed("x" * 4096, "shop")
        await embedder.embed("x" * 4096 + "y", "shop")
        await embedder.embed("x" * 4095, "shop")

    assert len(watched.computed) == 2


async def test_a_cached_vector_gives_the_same_score_and_is_no_reason_to_refine(tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    write_artifact(path, embedding=MINILM)
    records, watched, telemetry = PlainRecords(), Watched(), Telemetry()
    cache = EmbeddingCache(records, Section(), telemetry)
    query = Query(ask("what is 27 plus 700?"), Parameters(), tenant="shop")
    config = Scoring(artifact=path, embedding=MINILM)
    async with (
        Embedder(config, telemetry, cache, watched) as embedder,
        ScoringService(config, telemetry, embedder) as auto,
        ScoringService(Scoring(artifact=path, use_embedding=EmbeddingUse.ALWAYS), Telemetry(), embedder) as always,
    ):
        first, second = await always.score(query, 0.5), await always.score(query, 0.5)
        explained = await always.explain(query, 0.5)
        beyond = await auto.score(query, 0.999)  # no evidence can cross this threshold

    assert len(watched.computed) == len(records.kept) == 1
    assert first.evidence is second.evidence is Evidence.EMBEDDING
    assert second.value == pytest.approx(first.value, abs=1e-6)
    assert explained.score.value == pytest.approx(first.value, abs=1e-6)
    assert sum(explained.signals.values()) == pytest.approx(np.log(first.value / (1 - first.value)), abs=1e-3)
    assert beyond.evidence is Evidence.FEATURES
