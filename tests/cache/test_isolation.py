"""Nobody ever gets what was made for another: every tier, many at once, whole and streamed, over two replicas."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.cache import TierName
from router.cache.keys import KeyMaker
from router.cache.plan import CacheStatus
from router.cache.response import ResponseCache
from router.cache.tiered import TieredRecords
from router.config import Check
from router.config import cache as config
from router.decision import Rules, Tier
from router.query import Conversation, Message, Parameters, Query
from router.telemetry import Telemetry
from tests.cache.servers import running_redis
from tests.router.places import Bench, Judge, Place, bench, read

pytestmark = pytest.mark.anyio

TENANTS = [f"tenant-{number}" for number in range(6)]
MODELS = ["edge", "cloud", "auto"]
QUESTIONS = [f"question {number}" for number in range(25)]
LONG = "x" * 600
_REQUESTS = 3_000
_AT_ONCE = 48


def canary(query: Query) -> str:
    """What only an answer to this very request may say."""
    seed, text = query.parameters.seed, query.prompt.text
    return f"[{query.tenant} {text} {seed}]"


def answer_with_canary(query: Query) -> Sequence[str]:
    return [canary(query), LONG]


async def ask(made: Bench, draw: random.Random, seen: dict[CacheStatus, int]) -> None:
    """One request; it must get its own canary and nobody else's."""
    question = Conversation((Message("user", draw.choice(QUESTIONS)),))
    query = Query(question, Parameters(temperature=0.0, seed=draw.choice([1, 2])), tenant=draw.choice(TENANTS))
    rules = Rules(model=draw.choice(MODELS), wish=draw.choice([None, Tier.EDGE]) if draw.random() < 0.3 else None)
    if rules.model == "cloud":
        rules = replace(rules, wish=None)
    said = draw.choice(["", "", "", "no-cache", "max-age=60"])
    if draw.random() < 0.5:
        streamed = await made.stream(query, rules, said)
        text, status = await read(streamed), streamed.origin.status
        await streamed.pieces.aclose()
        target = streamed.origin.decision.tier
    else:
        answer = await made.answer(query, rules, said)
        text, status = answer.completion.choices[0].text, answer.origin.status
        target = answer.origin.decision.tier
    assert text == canary(query) + LONG
    assert rules.model in {"auto", target}
    assert rules.wish in {None, target}
    seen[status] = seen.get(status, 0) + 1


async def test_canaries_stay_with_their_tenants_in_every_tier(tmp_path: Path) -> None:
    """Small tiers, so that answers come from all of them, and much is evicted meanwhile."""
    seen: dict[CacheStatus, int] = {}
    draw = random.Random(20_260)
    with running_redis(tmp_path) as redis:
        async with AsyncExitStack() as stack:
            benches, replicas = [], []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                tiers = config.Tiers(
                    memory=config.MemoryTier(most_bytes=65_536),
                    disk=config.DiskTier(folder=tmp_path / name, most_bytes=4_194_304),
                    shared=config.SharedTier(url=redis.url),
                    read_ms=500,
                )
                records = await stack.enter_async_context(TieredRecords(tiers, Telemetry()))
                cache = ResponseCache(config.ResponseCache(), records, KeyMaker(lambda rules: [rules.model]))
                edge, cloud = (Place([], says=answer_with_canary) for _ in range(2))
                made = bench(edge, cloud, Judge(), check=Check(enabled=False), cache=cache)
                benches.append(await stack.enter_async_context(made))
                replicas.append(records)
            left = iter(range(_REQUESTS))

            async def work() -> None:
                for _ in left:
                    await ask(draw.choice(benches), draw, seen)

            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(work())
            hits = {
                name: sum(tier.hits for one in replicas for tier in one.statistics() if tier.tier is name)
                for name in TierName
            }

    assert sum(seen.values()) == _REQUESTS
    assert min(hits.values()) > 10, hits
    assert seen[CacheStatus.HIT] > _REQUESTS // 4
