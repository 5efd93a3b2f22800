"""The disk tier: its bound, and what becomes of damage."""

import asyncio
import random
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.cache import CacheTierError, Flush, Kind, Record, Selector
from router.cache.database import SCHEMA_VERSION
from router.cache.disk import DiskTier
from router.cache.flushes import Flushes
from router.config import cache as config
from tests.cache.servers import small_disk
from tests.cache.tier_records import make_key, make_record

_MOST = 4_194_304


def make_tier(folder: Path, *, most_bytes: int = _MOST) -> DiskTier:
    return DiskTier(config.DiskTier(folder=folder, most_bytes=most_bytes), Flushes())


def file_of(folder: Path) -> Path:
    return folder / "records.sqlite3"


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()


def drop_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE records")
    connection.commit()
    connection.close()


async def read_all(folder: Path, records: list[Record]) -> list[Record]:
    """What a tier that starts now has of them; an error is a miss."""
    found: list[Record] = []
    async with make_tier(folder) as tier:
        for record in records:
            try:
                read = await tier.read(record.key)
            except CacheTierError:
                read = None
            if read is not None:
                assert read == record
                found.append(read)
    return found


async def fill(folder: Path, count: int = 100) -> list[Record]:
    records = [make_record(n, size=3000) for n in range(count)]
    async with make_tier(folder) as tier:
        await tier.write(records)
    return records


async def test_stays_within_its_bound(tmp_path: Path) -> None:
    rng = random.Random(7)
    async with make_tier(tmp_path) as tier:
        for batch in range(120):
            sizes = [min(int(rng.lognormvariate(8, 1.2)), 100_000) for _ in range(64)]
            await tier.write([make_record((batch, n), size=size) for n, size in enumerate(sizes)])
            assert taken(tmp_path) <= 1.1 * _MOST
        statistics = tier.statistics()
    assert statistics.evictions > 1000
    assert 0.5 * _MOST < statistics.bytes <= _MOST
    assert taken(tmp_path) <= 1.1 * _MOST


async def test_counts_what_it_has(tmp_path: Path) -> None:
    async with make_tier(tmp_path) as tier:
        for batch in range(60):
            await tier.write([make_record((batch, n), size=6000) for n in range(20)])
        entries = tier.statistics().entries
    with sqlite3.connect(file_of(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (entries,)
    connection.close()


async def test_what_is_read_gets_a_second_chance(tmp_path: Path) -> None:
    used, unused = make_record("used", size=3000), make_record("unused", size=3000)
    async with make_tier(tmp_path) as tier:
        await tier.write([used, unused])
        for batch in range(100):
            await tier.write([make_record((batch, n), size=3000) for n in range(50)])
            assert await tier.read(used.key) == used

        assert await tier.read(unused.key) is None


async def test_expired_rows_make_room(tmp_path: Path) -> None:
    async with make_tier(tmp_path) as tier:
        await tier.write([make_record(n, ttl_s=0.01) for n in range(50)])
        await asyncio.sleep(0.05)
        for n in range(4):
            await tier.write([make_record(f"later {n}")])

        assert tier.statistics().entries == 4


async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    async with make_tier(tmp_path / "new") as tier:
        await tier.write([make_record("a")])

        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()} == {0o600}
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


async def test_nothing_of_the_file_is_mapped_and_it_is_one_routers_alone(tmp_path: Path) -> None:
    """A write to a mapped page would end the process where the disk has become read-only."""
    async with make_tier(tmp_path) as tier:
        await tier.write([record := make_record("a")])
        assert await tier.read(record.key) == record

        check_alone(tmp_path)


def check_alone(folder: Path) -> None:
    """While it is open here: no page of it is mapped, and another process is kept out."""
    assert str(folder) not in Path("/proc/self/maps").read_text()
    reading = f"import sqlite3; sqlite3.connect({str(file_of(folder))!r}).execute('SELECT * FROM records')"
    other = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr


async def test_scans_a_kind_newest_first(tmp_path: Path) -> None:
    semantic = [make_record(n, kind=Kind.SEMANTIC) for n in range(100)]
    async with make_tier(tmp_path) as tier:
        await tier.write(
            [*semantic, make_record("other"), make_record("old", kind=Kind.SEMANTIC, stored_at=1, ttl_s=1)]
        )
        await tier.flush(Flush(Selector(tenant="nobody"), time.time()), dry_run=False)

        assert [record async for record in tier.scan(Kind.SEMANTIC)] == semantic[::-1]


async def test_flipped_bits_are_misses(tmp_path: Path) -> None:
    """Anywhere in the file: a record, an index, the header."""
    for seed in range(25):
        folder = tmp_path / str(seed)
        records = await fill(folder)
        content = bytearray(file_of(folder).read_bytes())
        rng = random.Random(seed)
        for _ in range(rng.choice([1, 30, 1000])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file_of(folder).write_bytes(content)

        await read_all(folder, records)
        async with make_tier(folder) as tier:  # and it is of use again
            await write_until_kept(tier, make_record("after"))


async def write_until_kept(tier: DiskTier, record: Record) -> None:
    """The first call may meet the damage; one of the next finds a new file."""
    for _ in range(3):
        try:
            await tier.write([record])
            assert await tier.read(record.key) == record
        except CacheTierError:
            continue
        return
    pytest.fail("the tier did not recover")


async def test_a_damaged_record_is_deleted_and_counted(tmp_path: Path) -> None:
    records = await fill(tmp_path, 10)
    content = file_of(tmp_path).read_bytes()
    at = content.index(records[3].value[:64])
    file_of(tmp_path).write_bytes(content[: at + 5] + b"\x00\xff" + content[at + 7 :])

    async with make_tier(tmp_path) as tier:
        assert await tier.read(records[3].key) is None
        assert await tier.read(records[4].key) == records[4]
        await tier.write([make_record("behind the deletion")])
        assert tier.statistics().corrupt == 1
        assert tier.statistics().entries == 10


async def test_a_record_under_another_key_is_a_miss(tmp_path: Path) -> None:
    records = await fill(tmp_path, 2)
    with sqlite3.connect(file_of(tmp_path)) as connection:
        first, second = (row[0] for row in connection.execute("SELECT sealed FROM records ORDER BY id"))
        connection.execute("UPDATE records SET sealed = ? WHERE id = 1", (second,))
        connection.execute("UPDATE records SET sealed = ? WHERE id = 2", (first,))
    connection.close()

    assert await read_all(tmp_path, records) == []


async def test_a_cut_off_file_is_begun_afresh(tmp_path: Path) -> None:
    for seed in range(10):
        folder = tmp_path / str(seed)
        records = await fill(folder)
        content = file_of(folder).read_bytes()
        file_of(folder).write_bytes(content[: random.Random(seed).randrange(len(content))])

        await read_all(folder, records)
        async with make_tier(folder) as tier:
            await write_until_kept(tier, make_record("after"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not a database at all" * 1000),
        lambda path: set_version(path, SCHEMA_VERSION + 1),
        drop_table,
    ],
)
async def test_another_file_in_its_place_is_begun_afresh(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    records = await fill(tmp_path)
    damage(file_of(tmp_path))

    async with make_tier(tmp_path) as tier:
        assert await tier.read(records[0].key) is None
        await tier.write(records)
        assert await tier.read(records[0].key) == records[0]
    assert caplog.text.count("a new file is begun") == 1


async def test_a_smaller_limit_begins_afresh(tmp_path: Path) -> None:
    async with make_tier(tmp_path, most_bytes=4 * _MOST) as tier:
        await tier.write([make_record(n, size=60_000) for n in range(200)])
    async with make_tier(tmp_path) as tier:
        await tier.write([make_record("a")])
        assert taken(tmp_path) <= 1.1 * _MOST


async def test_a_full_disk_fails_writes_only_and_works_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        folder = disk.folder / "cache"
        async with make_tier(folder, most_bytes=2 * _MOST) as tier:
            await tier.write([kept := make_record("kept", size=3000)])
            ballast = disk.fill()
            with pytest.raises(CacheTierError):
                await write_batches(tier, 50)
            assert await read_or_miss(tier.read(kept.key)) in {kept, None}

            ballast.unlink()
            await tier.write([after := make_record("after")])
            assert await tier.read(after.key) == after
            assert await tier.read(kept.key) == kept


async def write_batches(tier: DiskTier, count: int) -> None:
    for n in range(count):
        await tier.write([make_record((n, m), size=60_000) for m in range(8)])


async def read_or_miss(reading: Awaitable[Record | None]) -> Record | None:
    try:
        return await reading
    except CacheTierError:
        return None


async def test_a_disk_full_at_the_start_stops_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        ballast = disk.fill()
        async with make_tier(disk.folder / "cache") as tier:
            with pytest.raises(CacheTierError):
                await tier.open()
            ballast.unlink()
            await tier.write([record := make_record("a")])
            assert await tier.read(record.key) == record


async def test_a_read_only_disk_fails_writes_only_and_works_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        records = await fill(disk.folder / "cache")
        disk.set_writable(writable=False)
        async with make_tier(disk.folder / "cache") as tier:
            with pytest.raises(CacheTierError):
                await tier.write([make_record("a")])
            disk.set_writable(writable=True)
            await tier.write([after := make_record("after")])
            assert await tier.read(after.key) == after
            assert await tier.read(records[0].key) == records[0]


async def test_reads_do_not_wait_for_writes(tmp_path: Path) -> None:
    async with make_tier(tmp_path, most_bytes=64 * _MOST) as tier:
        await tier.write([record := make_record("a", size=3000)])
        batches = [[make_record((batch, n), size=30_000) for n in range(200)] for batch in range(3)]
        async with asyncio.TaskGroup() as group:
            writes = [group.create_task(tier.write(batch)) for batch in batches]
            waits: list[float] = []
            reads_beside = 0
            while not all(write.done() for write in writes):
                begun = time.perf_counter()
                assert await tier.read(record.key) == record
                waits.append(time.perf_counter() - begun)
                reads_beside += 1
                await asyncio.sleep(0.001)
    assert reads_beside >= 10
    assert sorted(waits)[len(waits) // 2] < 0.05


async def test_too_many_calls_are_refused(tmp_path: Path) -> None:
    async with make_tier(tmp_path) as tier:
        await tier.write([make_record("a")])
        outcomes = await asyncio.gather(*(tier.read(make_key("a")) for _ in range(2000)), return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} == {Record, CacheTierError}
        assert await tier.read(make_key("a")) is not None
