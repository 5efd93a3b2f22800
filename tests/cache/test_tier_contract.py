"""What every cache tier promises, the same tests for each."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from loadtests.redis_server import RedisServer
from router.cache import CacheTier, Flush, Kind, Record, Selector, TierName
from router.cache.disk import DiskTier
from router.cache.flushes import Flushes
from router.cache.memory import MemoryTier
from router.cache.shared import SharedTier
from router.config import cache as config
from tests.cache.servers import running_redis
from tests.cache.tier_records import make_key, make_record

Open = Callable[[Flushes], contextlib.AbstractAsyncContextManager[CacheTier]]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=list(TierName))
def open_tier(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the tier, as a process would that knows of these flushes."""
    name: TierName = request.param
    server: RedisServer | None = request.getfixturevalue("redis") if name is TierName.SHARED else None
    prefix = f"t{abs(hash(request.node.name)) % 10**9}:"

    @contextlib.asynccontextmanager
    async def opened(flushes: Flushes) -> AsyncIterator[CacheTier]:
        tier: CacheTier
        if name is TierName.MEMORY:
            tier = MemoryTier(4_194_304, flushes)
        elif name is TierName.DISK:
            tier = DiskTier(config.DiskTier(folder=tmp_path / "cache", most_bytes=8_388_608), flushes)
        else:
            assert server is not None
            tier = SharedTier(config.SharedTier(url=server.url, prefix=prefix), flushes)
        async with tier:
            yield tier

    return opened


@pytest.fixture
async def tier(open_tier: Open) -> AsyncIterator[CacheTier]:
    async with open_tier(Flushes()) as tier:
        yield tier


@pytest.mark.parametrize("size", [0, 1, 200, 65_536])
@pytest.mark.parametrize("kind", list(Kind))
async def test_reads_what_was_written_to_the_bit(tier: CacheTier, size: int, kind: Kind) -> None:
    record = make_record("a", size=size, kind=kind, tags=("x", 'ünïcode, "quoted"'), tenant="täñt", model="")

    await tier.write([record])

    assert await tier.read(record.key) == record


async def test_misses_what_was_never_written(tier: CacheTier) -> None:
    await tier.write([make_record("a")])

    assert await tier.read(make_key("b")) is None


async def test_the_newest_of_a_key_counts(tier: CacheTier) -> None:
    older, newer = make_record("a"), replace(make_record("a"), value=b"newer", tenant="other")

    await tier.write([older, newer])
    await tier.write([make_record("b")])

    assert await tier.read(newer.key) == newer


async def test_expired_records_are_misses(tier: CacheTier) -> None:
    await tier.write([make_record("a", ttl_s=0.05), make_record("gone", stored_at=time.time() - 10, ttl_s=5)])
    await asyncio.sleep(0.06)

    assert await tier.read(make_key("a")) is None
    assert await tier.read(make_key("gone")) is None


@pytest.mark.parametrize(
    "selector",
    [
        Selector(),
        Selector(tenant="acme"),
        Selector(model="edge-small"),
        Selector(tag="blue"),
        Selector(tenant="acme", model="edge-small", tag="blue"),
    ],
)
async def test_flushes_just_what_is_selected(tier: CacheTier, selector: Selector) -> None:
    records = [
        make_record(f"{tenant} {model} {tags}", tenant=tenant, model=model, tags=tags)
        for tenant in ("acme", "acm", "%")
        for model in ("edge-small", "cloud-large")
        for tags in ((), ("blue",), ("blu", "e"), ("red", "blue"))
    ]
    await tier.write(records)
    chosen = [record for record in records if selector.matches(record)]
    flush = Flush(selector, time.time())

    assert await tier.flush(flush, dry_run=True) == len(chosen)
    assert [await tier.read(record.key) for record in records] == records
    assert await tier.flush(flush, dry_run=False) == len(chosen)
    assert [await tier.read(r.key) for r in records] == [None if r in chosen else r for r in records]
    assert await tier.flush(flush, dry_run=True) == 0


async def test_what_was_on_its_way_stays_dead_after_a_flush(tier: CacheTier) -> None:
    late = make_record("late", tenant="acme")
    await tier.flush(Flush(Selector(tenant="acme"), time.time()), dry_run=False)

    await tier.write([late])

    assert await tier.read(late.key) is None
    await tier.write([fresh := make_record("late", tenant="acme", stored_at=time.time() + 0.001)])
    assert await tier.read(late.key) == fresh


async def test_what_a_tier_still_has_of_a_flush_elsewhere_is_dead(open_tier: Open) -> None:
    """A tier that was away, or a purge that has not come by yet."""
    dead, alive = make_record("dead", tenant="acme"), make_record("alive", tenant="other")
    flushes = Flushes()
    async with open_tier(flushes) as tier:
        await tier.write([dead, alive])
        flushes.add(Flush(Selector(tenant="acme"), time.time()))

        assert [await tier.read(record.key) for record in (dead, alive)] == [None, alive]


async def test_a_flush_leaves_what_came_after_it(tier: CacheTier) -> None:
    early = Flush(Selector(), time.time())
    await tier.write([record := make_record("a", stored_at=early.at + 0.001)])

    assert await tier.flush(early, dry_run=False) == 0
    assert await tier.read(record.key) == record


async def test_tenants_do_not_see_each_other(tier: CacheTier) -> None:
    canaries = [make_record(f"canary {n}", tenant=f"tenant-{n}") for n in range(50)]
    await tier.write(canaries)

    await tier.flush(Flush(Selector(tenant="tenant-7"), time.time()), dry_run=False)

    found: list[Record | None] = [await tier.read(record.key) for record in canaries]
    assert found == [None if record.tenant == "tenant-7" else record for record in canaries]


async def test_remembers_across_a_restart_what_it_may(open_tier: Open) -> None:
    record, flushed = make_record("a"), make_record("b", tenant="left")
    async with open_tier(Flushes()) as tier:
        await tier.write([record, flushed])
        await tier.flush(Flush(Selector(tenant="left"), time.time()), dry_run=False)
        persistent = tier.name is not TierName.MEMORY

    async with open_tier(Flushes()) as tier:
        assert await tier.read(flushed.key) is None
        assert await tier.read(record.key) == (record if persistent else None)


async def test_counts(tier: CacheTier) -> None:
    await tier.write([make_record("a"), make_record("b")])
    await tier.read(make_key("a"))
    await tier.read(make_key("c"))

    statistics = tier.statistics()

    assert (statistics.tier, statistics.hits, statistics.misses, statistics.writes) == (tier.name, 1, 1, 2)
    if tier.name is not TierName.SHARED:
        assert statistics.entries == 2
        assert 0 < statistics.bytes <= statistics.most_bytes
