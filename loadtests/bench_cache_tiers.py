"""
What the cache tiers take and give: resident memory and disk under a flood of records, hit ratios of S3-FIFO beside LRU
and Belady's optimum, and what a hit costs.

The flood runs in a process of its own, so that its growth is the tiers' alone. `--records 1000000` is the full proof.
"""

import asyncio
import heapq
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from math import inf
from pathlib import Path

import click
import msgspec
import numpy as np
import psutil
import uvloop

from loadtests.bench import Row, report
from router.cache import Kind, Record
from router.cache.flushes import Flushes
from router.cache.memory import MemoryTier, count_bytes
from router.cache.tiered import TieredRecords
from router.config import cache as config
from router.telemetry import Telemetry

_MEMORY_BYTES = 67_108_864
_DISK_BYTES = 268_435_456
_LEAST_BYTES, _MOST_BYTES = 200, 64_000
_TOLD = 50_000
_LOOKED = 1_000
_SETTLED = 64
_FLAT = 0.03
_ACCESSES = 400_000
_OBJECTS = 40_000
_TRACE_SIZE = 1_024
_RUN_S = 3_600
_ROUNDS = 20


class Flood(msgspec.Struct):
    """What the process that was flooded saw of itself; bytes, at most, over the first and the second half."""

    resident: tuple[int, int] = (0, 0)
    disk: tuple[int, int] = (0, 0)
    rate: float = 0.0
    dropped: int = 0
    errors: int = 0
    read_back: int = 0
    disk_hits: int = 0
    seconds: tuple[float, ...] = ()


def make_sizes(seed: int) -> Iterator[int]:
    """Log-normal, cut to where its middle 95% lies: 0.2 to 64 KB."""
    rng = random.Random(seed)
    middle = (math.log(_LEAST_BYTES) + math.log(_MOST_BYTES)) / 2
    spread = (math.log(_MOST_BYTES) - math.log(_LEAST_BYTES)) / 4
    while True:
        yield int(min(max(rng.lognormvariate(middle, spread), _LEAST_BYTES), _MOST_BYTES))


def make_key(number: int) -> bytes:
    """A digest, as every key is one."""
    return sha256(number.to_bytes(8, "little")).digest()


async def flood(folder: Path, count: int) -> Flood:
    """Write so many distinct records, reading some of the older ones again, and watch what the process takes."""
    process, noise, sizes, rng = psutil.Process(), os.urandom(2 * _MOST_BYTES), make_sizes(1), random.Random(2)
    tiers = config.Tiers(
        memory=config.MemoryTier(most_bytes=_MEMORY_BYTES),
        disk=config.DiskTier(folder=folder, most_bytes=_DISK_BYTES),
        read_ms=1000.0,
    )
    seen, waits = Flood(), array("d")  # a list of them would weigh as much as what is measured here
    async with TieredRecords(tiers, Telemetry()) as records:
        empty, begun = process.memory_info().rss, time.perf_counter()
        for number in range(count):
            now, at = time.time(), rng.randrange(_MOST_BYTES)
            value = noise[at : at + next(sizes)]
            records.write(Record(make_key(number), Kind.RESPONSE, value, "tenant", "model", now, now + 86_400))
            if number % _SETTLED == 0:
                await records.settle()
                waits.extend(await _read_back(records, number, rng, seen))
            if number % _LOOKED == 0:
                _look(seen, process.memory_info().rss - empty, folder, late=number > count / 2)
            if number % _TOLD == _TOLD - 1:
                megabytes = ", ".join(f"{part[1] or part[0]:,}" for part in (seen.resident, seen.disk))
                click.echo(f"{number + 1:,} records, {time.perf_counter() - begun:.0f} s, bytes {megabytes}", err=True)
        await records.settle()
        seen.rate = count / (time.perf_counter() - begun)
        disk = records.statistics()[1]
        seen.dropped, seen.errors, seen.disk_hits = disk.dropped, disk.errors, disk.hits
    seen.seconds = tuple(float(np.percentile(waits, q)) for q in (50, 99, 99.9)) if waits else ()
    return seen


async def _read_back(records: TieredRecords, newest: int, rng: random.Random, seen: Flood) -> list[float]:
    """A few older ones; seconds of those that came from the disk."""
    waits = []
    for _ in range(4):
        key = make_key(max(newest - int(rng.expovariate(1 / 8_000)), 0))
        if records.peek(key) is not None:
            continue
        begun = time.perf_counter()
        if await records.read(key) is not None:
            seen.read_back += 1
            waits.append(time.perf_counter() - begun)
    return waits


def _look(seen: Flood, resident: int, folder: Path, *, late: bool) -> None:
    disk = sum(path.stat().st_size for path in folder.iterdir())
    early = (max(seen.resident[0], resident), max(seen.disk[0], disk))
    if late:
        seen.resident = (seen.resident[0], max(seen.resident[1], resident))
        seen.disk = (seen.disk[0], max(seen.disk[1], disk))
    else:
        seen.resident, seen.disk = (early[0], 0), (early[1], 0)


def judge_flood(count: int) -> list[Row]:
    """In a fresh process, below a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "loadtests.bench_cache_tiers", "--flood", folder, "--records", str(count)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_RUN_S).stdout
    seen = msgspec.json.decode(out, type=Flood)
    resident = max(seen.resident) / _MEMORY_BYTES
    disk = max(seen.disk) / _DISK_BYTES
    flat = [late / max(early, 1) - 1 for early, late in (seen.resident, seen.disk)]
    half, tail, end = (second * 1e3 for second in seen.seconds)
    return [
        Row("distinct records, written at", f"{count:,}, {seen.rate:.0f}/s", "-", holds=True),
        Row("resident memory grows to", f"{resident:.2f} x limit", "<= 1.3 x", resident <= 1.3),
        Row("disk grows to", f"{disk:.2f} x limit", "<= 1.1 x", disk <= 1.1),
        Row("memory, second half beside first", f"{flat[0]:+.1%}", "<= +3%", flat[0] <= _FLAT),
        Row("disk, second half beside first", f"{flat[1]:+.1%}", "<= +3%", flat[1] <= _FLAT),
        Row("dropped, errors", f"{seen.dropped}, {seen.errors}", "0, 0", seen.dropped == seen.errors == 0),
        Row("disk hits beside the writes", f"{seen.disk_hits:,}", "-", holds=True),
        Row("disk hit beside the writes, p50", f"{half:.2f} ms", "-", holds=True),
        Row("disk hit beside the writes, p99, p99.9", f"{tail:.2f} ms, {end:.2f} ms", "-", holds=True),
    ]


def make_trace(seed: int, *, scans: bool) -> list[int]:
    """Zipf(0.9) over the objects; with scans, a run of objects that never come again begins now and then."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, _OBJECTS + 1) ** -0.9
    popular = rng.choice(_OBJECTS, size=_ACCESSES, p=weights / weights.sum())
    trace: list[int] = []
    fresh = _OBJECTS
    for index, number in enumerate(popular):
        trace.append(int(number))
        if scans and index % 20_000 == 10_000:
            trace += range(fresh, fresh + 5_000)
            fresh += 5_000
    return trace


def ratio_of_tier(trace: Sequence[int], entries: int) -> float:
    """The memory tier itself, with room for so many records of one size."""
    now, keys = time.time(), [make_key(number) for number in range(max(trace) + 1)]

    def make_record(number: int) -> Record:
        return Record(keys[number], Kind.RESPONSE, bytes(_TRACE_SIZE), "t", "m", now, now + 86_400)

    tier = MemoryTier(entries * count_bytes(make_record(0)), Flushes())
    hits = 0
    for number in trace:
        if tier.peek(keys[number]) is not None:
            hits += 1
        else:
            tier.put(make_record(number))
    return hits / len(trace)


def ratio_of_lru(trace: Sequence[int], entries: int) -> float:
    """Least recently used."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for number in trace:
        if number in kept:
            hits += 1
            kept.move_to_end(number)
        else:
            kept[number] = None
            if len(kept) > entries:
                kept.popitem(last=False)
    return hits / len(trace)


def ratio_of_optimum(trace: Sequence[int], entries: int) -> float:
    """Belady (1966): drop what is needed again last, or not at all, the newcomer included."""
    following: list[float] = [inf] * len(trace)
    latest: dict[int, int] = {}
    for index in range(len(trace) - 1, -1, -1):
        following[index] = latest.get(trace[index], inf)
        latest[trace[index]] = index
    kept: dict[int, float] = {}
    furthest: list[tuple[float, int]] = []
    hits = 0
    for index, number in enumerate(trace):
        hits += number in kept
        kept[number] = following[index]
        heapq.heappush(furthest, (-following[index], number))
        while len(kept) > entries:
            when, candidate = heapq.heappop(furthest)
            if kept.get(candidate) == -when:  # else it was used since
                del kept[candidate]
    return hits / len(trace)


def judge_ratios() -> Iterator[Row]:
    """At several sizes of the cache."""
    for scans in (False, True):
        trace = make_trace(7, scans=scans)
        for share in (0.01, 0.05, 0.1):
            entries = int(_OBJECTS * share)
            ours, lru, best = (ratio(trace, entries) for ratio in (ratio_of_tier, ratio_of_lru, ratio_of_optimum))
            name = f"hit ratio, Zipf(0.9){', scans' if scans else ''}, room for {share:.0%}"
            yield Row(name, f"{ours:.3f}", f">= LRU {lru:.3f} (optimum {best:.3f})", ours >= lru)


async def judge_hits(count: int = 4_000) -> list[Row]:
    """What one hit costs, from memory and from the disk, nothing else going on."""
    noise, sizes = os.urandom(2 * _MOST_BYTES), make_sizes(3)
    now = time.time()
    made = [
        Record(make_key(number), Kind.RESPONSE, noise[number : number + next(sizes)], "t", "m", now, now + 86_400)
        for number in range(count)
    ]
    with tempfile.TemporaryDirectory() as name:
        disk = config.DiskTier(folder=Path(name), most_bytes=_DISK_BYTES)
        async with TieredRecords(config.Tiers(disk=disk), Telemetry()) as records:
            for number, record in enumerate(made):
                records.write(record)
                if number % _SETTLED == 0:
                    await records.settle()
        small = config.Tiers(memory=config.MemoryTier(most_bytes=65_536), disk=disk, read_ms=1000.0)
        async with TieredRecords(small, Telemetry()) as records:
            waits = []
            for record in random.Random(4).sample(made, count):
                begun = time.perf_counter()
                found = await records.read(record.key)
                waits.append(time.perf_counter() - begun)
                if found != record:
                    raise click.ClickException("a record did not come back from the disk")
    half, tail = (float(np.percentile(waits, q)) * 1e3 for q in (50, 99))
    peek, put = _time_memory(made)
    return [
        Row("disk hit, p50", f"{half:.2f} ms", "-", holds=True),
        Row("disk hit, p99", f"{tail:.2f} ms", "<= 3 ms", tail <= 3),
        Row("memory hit", f"{peek * 1e6:.2f} us", "<= 5 us", peek <= 5e-6),
        Row("memory write, evicting", f"{put * 1e6:.2f} us", "<= 20 us", put <= 20e-6),
    ]


def _time_memory(made: Sequence[Record]) -> tuple[float, float]:
    """Seconds of a hit, and of a write that evicts."""
    tier = MemoryTier(sum(map(count_bytes, made)), Flushes())
    for record in made:
        tier.put(record)
    begun = time.thread_time()  # what other programs take of the core is not the tier's
    for _ in range(_ROUNDS):
        for record in made:
            tier.peek(record.key)
    peek = (time.thread_time() - begun) / len(made) / _ROUNDS
    crowded = MemoryTier(sum(map(count_bytes, made)) // 10, Flushes())
    begun = time.thread_time()
    for record in made:
        crowded.put(record)
    return peek, (time.thread_time() - begun) / len(made)


def rows(count: int) -> list[Row]:
    """Every measurement."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        hits = runner.run(judge_hits())
    return [*hits, *judge_ratios(), *judge_flood(count)]


@click.command(context_settings={"show_default": True})
@click.option("--records", default=100_000, help="Distinct records of the flood; the full proof is 1000000.")
@click.option("--flood", "folder", type=click.Path(path_type=Path), hidden=True, help="Be the flooded process.")
def main(records: int, folder: Path | None) -> None:
    """Measure the cache tiers."""
    if folder is None:
        sys.exit(report("cache-tiers", rows(records)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(flood(folder, records))))


if __name__ == "__main__":
    main()
