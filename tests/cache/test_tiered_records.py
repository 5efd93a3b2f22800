"""All tiers as one: order, promotion, flushes, replicas, and every tier failing in every way."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from loadtests.garbage_server import ANSWERS, serving_garbage
from loadtests.ports import free_port
from loadtests.redis_server import RedisServer
from router.cache import Kind, Record, Selector, TierName, TierStatistics
from router.cache.tiered import TieredRecords
from router.config import cache as config
from router.telemetry import Telemetry
from tests.cache.servers import running_redis, small_disk
from tests.cache.tier_records import make_key, make_record

_READ_MS = 40.0
_PATIENT_MS = 2_000.0
_SLACK_S = 0.02
_MOST_SLACK_S = 3.0
"""What a busy machine may take on top; a call that hung would never end."""
_BREAKER_S = 0.2
_PATIENCE_S = 15.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


def make_records(
    *,
    disk: Path | None = None,
    url: str | None = None,
    waiting: int = 1_048_576,
    telemetry: Telemetry | None = None,
    read_ms: float = _PATIENT_MS,
) -> TieredRecords:
    """Small tiers with short breakers."""
    tiers = config.Tiers(
        memory=config.MemoryTier(most_bytes=131_072),
        disk=config.DiskTier(folder=disk, most_bytes=8_388_608) if disk else None,
        shared=config.SharedTier(url=url, announcements=100) if url else None,
        read_ms=read_ms,
        most_waiting_bytes=waiting,
        breaker_s=_BREAKER_S,
    )
    return TieredRecords(tiers, telemetry or Telemetry())


def of(records: TieredRecords, name: TierName) -> TierStatistics:
    return next(tier for tier in records.statistics() if tier.tier is name)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what happens behind the caller's back."""
    async with asyncio.timeout(_PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - many processes are watched, which have no event
            await asyncio.sleep(0.05)


async def use(records: TieredRecords, rounds: int = 30) -> None:
    """Writes and reads as requests would; memory must go on working, and no read stall, whatever the tiers do."""
    waits: list[float] = []
    for n in range(rounds):
        records.write(record := make_record(("used", time.time(), n), size=2000))
        assert records.peek(record.key) == record
        begun = time.perf_counter()
        assert await records.read(make_key(("missing", time.time(), n))) is None
        waits.append(time.perf_counter() - begun)
    assert sorted(waits)[len(waits) // 2] <= _READ_MS / 1e3 + _SLACK_S
    assert max(waits) <= _READ_MS / 1e3 + _MOST_SLACK_S


async def test_reads_through_and_promotes(tmp_path: Path, redis: RedisServer) -> None:
    record = make_record("a")
    async with make_records(url=redis.url) as other:
        other.write(record)
        await other.settle()
    async with make_records(disk=tmp_path / "d", url=redis.url) as records:
        assert records.peek(record.key) is None
        assert await records.read(record.key) == record  # from the shared tier
        assert records.peek(record.key) == record
        await records.settle()
    async with make_records(disk=tmp_path / "d") as records:
        assert await records.read(record.key) == record  # from the disk, where it was promoted to
        assert await records.read(record.key) == record
        assert of(records, TierName.DISK).hits == 1
        assert of(records, TierName.MEMORY).hits == 1


async def test_what_waits_to_be_written_is_read_already(tmp_path: Path) -> None:
    async with make_records(disk=tmp_path) as records:
        written = [make_record(n, size=2000) for n in range(200)]  # more than memory holds
        for record in written:
            records.write(record)

        assert [await records.read(record.key) for record in written] == written


async def test_what_there_is_no_time_for_is_dropped_and_counted(tmp_path: Path) -> None:
    async with make_records(disk=tmp_path, waiting=65_536) as records:
        for n in range(200):
            records.write(make_record(n, size=2000))
        await records.settle()

        statistics = of(records, TierName.DISK)
        assert statistics.dropped > 100
        assert statistics.writes + statistics.dropped == 200


async def test_scans_what_the_disk_has(tmp_path: Path) -> None:
    written = [make_record(n, kind=Kind.SEMANTIC) for n in range(70)]
    async with make_records(disk=tmp_path) as records:
        for record in written:
            records.write(record)
    async with make_records(disk=tmp_path) as records:
        assert [record async for record in records.scan(Kind.SEMANTIC)] == written[::-1]
        assert [record async for record in records.scan(Kind.EMBEDDING)] == []


async def test_a_flush_is_at_once_and_everywhere(tmp_path: Path, redis: RedisServer) -> None:
    async with make_records(disk=tmp_path / "d", url=redis.url) as records:
        acme = [make_record(("acme", n), tenant="acme") for n in range(20)]
        other = [make_record(("other", n), tenant="other") for n in range(20)]
        for record in [*acme, *other]:
            records.write(record)
        await records.settle()
        records.write(waiting := make_record("on its way", tenant="acme"))

        dry = await records.flush(Selector(tenant="acme"), dry_run=True)
        assert all(count in {20, 21} for count in dry.records.values())  # the last may be written meanwhile
        assert records.peek(waiting.key) == waiting
        report = await records.flush(Selector(tenant="acme"))

        assert report.records[TierName.MEMORY] == 21
        assert all(count in {20, 21} for count in report.records.values())
        await records.settle()
        assert [await records.read(record.key) for record in [*acme, waiting]] == [None] * 21
        assert [await records.read(record.key) for record in other] == other


async def test_no_flush_loses_against_reads_and_writes_beside_it(tmp_path: Path) -> None:
    """What was stored before a flush is never seen after it, whichever tier or queue it was in."""
    async with make_records(disk=tmp_path) as records:
        flushed_at = 0.0
        running = True

        async def write() -> None:
            n = 0
            while running:
                records.write(make_record(n % 40, size=2000))
                n += 1
                await asyncio.sleep(0)

        async def read() -> None:
            n = 0
            while running:
                since = flushed_at
                record = await records.read(make_key(n % 40))
                assert record is None or record.stored_at > since
                n += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(read())
            for _ in range(20):
                await asyncio.sleep(0.02)
                before = time.time()
                await records.flush(Selector(tenant="acme"))
                flushed_at = before
            running = False


async def test_replicas_learn_announced_records(redis: RedisServer) -> None:
    early = [make_record(("early", n), kind=Kind.SEMANTIC) for n in range(30)]
    learnt: list[Record] = []
    heard: list[Record] = []
    async with make_records(url=redis.url) as one:
        one.listen(Kind.SEMANTIC, heard.append)
        for record in early:
            one.write(record)
        one.write(make_record("answer"))
        await one.settle()
        async with make_records(url=redis.url) as two:
            two.listen(Kind.SEMANTIC, learnt.append)
            await until(lambda: _has(learnt, early))
            assert learnt == early[::-1]
            one.write(late := make_record("late", kind=Kind.SEMANTIC))
            two.write(own := make_record("own", kind=Kind.SEMANTIC))
            await until(lambda: _has(learnt, [late]))
            await until(lambda: _has(heard, [own]))
            assert own not in learnt


async def _has(learnt: list[Record], expected: list[Record]) -> bool:
    return all(record in learnt for record in expected)


async def test_a_flush_reaches_other_replicas(tmp_path: Path, redis: RedisServer) -> None:
    record, other = make_record("a", tenant="acme"), make_record("b", tenant="other")
    async with make_records(url=redis.url) as one, make_records(disk=tmp_path / "2", url=redis.url) as two:
        for each in (record, other):
            two.write(each)
        await two.settle()
        await one.flush(Selector(tenant="acme"))

        await until(lambda: _misses(two, record))
        assert two.peek(record.key) is None
        assert await two.read(other.key) == other
    async with make_records(disk=tmp_path / "2") as two:
        assert await two.read(record.key) is None


async def test_a_replica_that_was_away_learns_a_flush(tmp_path: Path, redis: RedisServer) -> None:
    async with make_records(disk=tmp_path / "2") as two:
        two.write(record := make_record("a", tenant="acme"))
    async with make_records(url=redis.url) as one:
        await one.flush(Selector(tenant="acme"))
        for n in range(300):  # more than the announcements keep
            one.write(make_record(n, kind=Kind.SEMANTIC))
        await one.settle()
    async with make_records(disk=tmp_path / "2", url=redis.url) as two:
        await until(lambda: _misses(two, record))


async def _misses(records: TieredRecords, record: Record) -> bool:
    return await records.read(record.key) is None


async def test_a_tier_that_was_away_is_told_of_a_flush_when_it_is_back(redis: RedisServer) -> None:
    async with make_records(url=redis.url, read_ms=_READ_MS) as one:
        one.write(record := make_record("a", tenant="acme"))
        await one.settle()
        redis.hang()
        try:
            async with asyncio.timeout(5):
                while of(one, TierName.SHARED).open is False:
                    await one.read(make_key("missing"))
            for n in range(4):  # until the breaker of the writes is open too, which flushes go by
                one.write(make_record(n, tenant="other"))
            one.write(waiting := make_record("waiting", tenant="acme"))
            await asyncio.sleep(0.05)  # now they are on their way
            async with asyncio.TaskGroup() as group:
                flushing = group.create_task(flush_soon(one))
                await asyncio.sleep(0.05)
                assert await one.read(waiting.key) is None  # though the backlog still has it
            assert flushing.result() is None
        finally:
            redis.go_on()
        async with make_records(url=redis.url) as two:
            await until(lambda: _misses(two, record))


async def flush_soon(records: TieredRecords) -> int | None:
    """What the shared tier says of a flush."""
    return (await records.flush(Selector(tenant="acme"))).records[TierName.SHARED]


@contextlib.asynccontextmanager
async def opened(tmp_path: Path, redis: RedisServer) -> AsyncIterator[TieredRecords]:
    async with make_records(disk=tmp_path / "d", url=redis.url, read_ms=_READ_MS) as records:
        await use(records, 5)
        yield records


async def test_a_tier_that_there_was_no_time_to_ask_is_not_blamed(tmp_path: Path, redis: RedisServer) -> None:
    tiers = config.Tiers(
        disk=config.DiskTier(folder=tmp_path / "d"), shared=config.SharedTier(url=redis.url), read_ms=0.001
    )
    async with TieredRecords(tiers, Telemetry()) as records:
        for n in range(3):  # then the disk is left out, and there is time
            assert await records.read(make_key(n)) is None

        assert of(records, TierName.DISK).errors > 0
        assert of(records, TierName.SHARED).errors == 0


async def test_a_stopped_server_is_left_out_and_taken_back(tmp_path: Path, redis: RedisServer) -> None:
    async with opened(tmp_path, redis) as records:
        redis.stop()
        await use(records)
        assert of(records, TierName.SHARED).open
        redis.start()
        await until(lambda: _works(records, redis))


async def test_a_hung_server_is_left_out_and_taken_back(tmp_path: Path, redis: RedisServer) -> None:
    async with opened(tmp_path, redis) as records:
        redis.hang()
        begun = time.perf_counter()
        await use(records, 60)
        assert of(records, TierName.SHARED).open
        assert time.perf_counter() - begun < 60 * _READ_MS / 1e3 / 2, "the breaker saved nothing"
        redis.go_on()
        await until(lambda: _works(records, redis))


async def test_a_flushed_server_is_filled_again(tmp_path: Path, redis: RedisServer) -> None:
    async with opened(tmp_path, redis) as records:
        redis.stop()
        redis.start()
        await until(lambda: _works(records, redis))


async def test_a_server_full_of_nonsense_is_left_out_and_taken_back(tmp_path: Path, redis: RedisServer) -> None:
    async with opened(tmp_path, redis) as records:
        redis.stop()
        async with serving_garbage(redis.port):
            await use(records, 60)
        statistics = of(records, TierName.SHARED)
        assert statistics.errors + statistics.corrupt > 0
        redis.start()
        await until(lambda: _works(records, redis))


@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_nonsense_is_believed(answer: bytes) -> None:
    port = free_port()
    async with (
        serving_garbage(port, answer),
        make_records(url=f"redis://127.0.0.1:{port}/0", read_ms=_READ_MS) as records,
    ):
        await use(records, 10)
        assert (await records.flush(Selector(tenant="acme"))).records[TierName.MEMORY] == 10
        assert of(records, TierName.SHARED).hits == 0


async def _works(records: TieredRecords, redis: RedisServer) -> bool:
    """Whether a record written now reaches the shared tier, and comes from there."""
    records.write(record := make_record(("works", time.time())))
    await records.read(make_key(("probe", time.time())))
    await records.settle()
    async with make_records(url=redis.url) as other:
        return await other.read(record.key) == record and not of(records, TierName.SHARED).open


async def test_a_full_disk_is_left_out_and_taken_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        async with make_records(disk=disk.folder / "cache", read_ms=_READ_MS) as records:
            await use(records, 5)
            await records.settle()
            ballast = disk.fill()
            for _ in range(20):
                records.write(make_record(("big", time.time()), size=60_000))
                await use(records, 3)
                await asyncio.sleep(0.02)
            await until(lambda: _is_open(records))
            await use(records)
            ballast.unlink()
            await until(lambda: _keeps(records))


async def test_a_read_only_disk_is_left_out_and_taken_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        async with make_records(disk=disk.folder / "cache", read_ms=_READ_MS) as records:
            records.write(kept := make_record("kept"))
        disk.set_writable(writable=False)
        async with make_records(disk=disk.folder / "cache", read_ms=_READ_MS) as records:
            await use(records)
            assert of(records, TierName.DISK).errors > 0
            disk.set_writable(writable=True)
            await until(lambda: _keeps(records))
            assert await records.read(kept.key) == kept


async def _is_open(records: TieredRecords) -> bool:
    records.write(make_record(("more", time.time()), size=60_000))
    return of(records, TierName.DISK).open


async def _keeps(records: TieredRecords) -> bool:
    """Whether the disk takes what is written now."""
    before = of(records, TierName.DISK)
    records.write(make_record(("keeps", time.time())))
    await records.read(make_key(("probe", time.time())))
    await records.settle()
    after = of(records, TierName.DISK)
    return after.writes > before.writes and not after.open


async def test_canaries_of_tenants_never_mix(tmp_path: Path, redis: RedisServer) -> None:
    """Concurrent tenants over all tiers, with a flush of one of them in the middle."""
    async with make_records(disk=tmp_path / "d", url=redis.url) as records:

        async def live(tenant: str) -> None:
            for n in range(60):
                records.write(make_record((tenant, n), tenant=tenant, size=1500))
                if n == 30 and tenant == "tenant-0":
                    await records.flush(Selector(tenant=tenant))
                for back in range(0, n, 7):
                    found = await records.read(make_key((tenant, back)))
                    assert found is None or (found.tenant, found.key) == (tenant, make_key((tenant, back)))
                    assert found is None or found.value == make_record((tenant, back), size=1500).value

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(live(f"tenant-{number}"))


async def test_operators_see_each_tier(tmp_path: Path) -> None:
    telemetry = Telemetry()
    async with make_records(disk=tmp_path, telemetry=telemetry) as records:
        records.write(make_record("a"))
        await records.settle()
        await records.read(make_key("a"))
        await records.read(make_key("b"))

        text = telemetry.render().decode()

    for line in (
        'hybrid_cache_hits_total{cache_tier="memory"} 1.0',
        'hybrid_cache_misses_total{cache_tier="disk"} 1.0',
        'hybrid_cache_writes_total{cache_tier="disk"} 1.0',
        'hybrid_cache_entries{cache_tier="disk"} 1.0',
        'hybrid_cache_open{cache_tier="disk"} 0.0',
        'hybrid_cache_read_seconds_count{cache_tier="disk"} 1.0',
    ):
        assert line in text


async def test_what_must_stay_on_site_is_not_written_elsewhere(tmp_path: Path, redis: RedisServer) -> None:
    kept, shared = make_record("kept"), make_record("shared")
    async with make_records(disk=tmp_path / "disk", url=redis.url) as records:
        records.write(kept, on_site=True)
        records.write(shared)
        await records.settle()
        assert await records.read(kept.key) == kept

        assert of(records, TierName.DISK).entries == 2
    async with make_records(url=redis.url) as replica:
        assert await replica.read(kept.key) is None
        assert await replica.read(shared.key) == shared
