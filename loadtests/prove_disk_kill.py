"""
`make prove-disk-kill`: kill -9 of a process that only writes to the cache's disk, again and again on the same file.

It writes thousands of records of up to 60 KB before each kill, far more than a router does that has them from models
(`loadtests.prove_cache_kill`), so kills also fall into evictions and into the emptying of the log.
After each kill every key is read: what is there must be, to the bit, something that was written under that key. A run
that is broken off goes on where it was, with the same `--folder`.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import msgspec
import uvloop

from edge.engine.files import replace_file
from loadtests.bench import Row, report
from router.cache import CacheTierError, Kind, Record
from router.cache.disk import DiskTier
from router.cache.flushes import Flushes
from router.cache.tiered import TieredRecords
from router.config import cache as config
from router.telemetry import Telemetry

_KEYS = 2_000
_DISK_BYTES = 16_777_216
_MEMORY_BYTES = 65_536
_LONGEST_S = 0.4
_START_S = 30.0
_NUMBER_BYTES = 8


class Progress(msgspec.Struct):
    """What was seen so far."""

    kills: int = 0
    hits: int = 0
    misses: int = 0
    wrong: int = 0
    errors: int = 0
    afresh: int = 0


def make_record(number: int) -> Record:
    """The record of a number, which is told by its value's beginning; several numbers share a key."""
    rng = random.Random(number)
    value = number.to_bytes(_NUMBER_BYTES, "little") + rng.randbytes(rng.choice([0, 200, 3_000, 20_000, 60_000]))
    now = time.time()
    return Record(make_key(number % _KEYS), Kind.RESPONSE, value, f"tenant-{number % 7}", "model", now, now + 86_400)


def make_key(number: int) -> bytes:
    """As long as a digest."""
    return number.to_bytes(32, "big")


def is_exact(key: bytes, record: Record) -> bool:
    """Whether just this was once written under the key."""
    number = int.from_bytes(record.value[:_NUMBER_BYTES], "little")
    made = make_record(number)
    return (record.key, record.value, record.tenant) == (key, made.value, made.tenant) and made.key == key


async def write_until_killed(folder: Path, seed: int) -> None:
    """As a router would, with all its tasks; tells when it has begun."""
    async with TieredRecords(_tiers(folder), Telemetry()) as records:
        number = seed * 1_000_000
        click.echo("writing")
        while True:
            for _ in range(50):
                records.write(make_record(number))
                number += 1
            await records.settle()


async def read_all(folder: Path, progress: Progress) -> None:
    """Read every key as a process does that starts now."""
    async with DiskTier(config.DiskTier(folder=folder, most_bytes=_DISK_BYTES), Flushes()) as tier:
        for number in range(_KEYS):
            key = make_key(number)
            try:
                record = await tier.read(key)
            except CacheTierError:
                progress.errors += 1
                continue
            if record is None:
                progress.misses += 1
            elif is_exact(key, record):
                progress.hits += 1
            else:
                progress.wrong += 1
        progress.afresh += tier.statistics().corrupt


def kill_once(folder: Path, seed: int) -> None:
    """Start a writer, and kill it some time after its first record."""
    command = [sys.executable, "-m", "loadtests.prove_disk_kill", "--folder", str(folder), "--write", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as writer:
        if writer.stdout is None or writer.stdout.readline() != b"writing\n":
            raise click.ClickException("the writer did not begin")
        time.sleep(random.Random(seed).uniform(0, _LONGEST_S))
        writer.send_signal(signal.SIGKILL)


def prove(folder: Path, kills: int) -> Progress:
    """Go on until so many kills are done."""
    state = folder / "progress.json"
    progress = msgspec.json.decode(state.read_bytes(), type=Progress) if state.exists() else Progress()
    while progress.kills < kills:
        kill_once(folder, progress.kills)
        asyncio.run(read_all(folder / "cache", progress))
        progress.kills += 1
        replace_file(state, msgspec.json.encode(progress))
        if progress.kills % 10 == 0:
            click.echo(f"{progress.kills} kills: {progress}", err=True)
    return progress


def _tiers(folder: Path) -> config.Tiers:
    return config.Tiers(
        memory=config.MemoryTier(most_bytes=_MEMORY_BYTES),
        disk=config.DiskTier(folder=folder / "cache", most_bytes=_DISK_BYTES),
    )


@click.command(context_settings={"show_default": True})
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the file and the progress are.")
@click.option("--kills", default=200)
@click.option("--write", "seed", type=int, hidden=True, help="Be the process that is killed.")
def main(folder: Path, kills: int, seed: int | None) -> None:
    """Kill a writing process, and read what it left."""
    folder.mkdir(parents=True, exist_ok=True)
    if seed is not None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(write_until_killed(folder, seed))
    seen = prove(folder, kills)
    sys.exit(
        report(
            "disk-kill",
            [
                Row("kills", str(seen.kills), "-", holds=True),
                Row("keys read: hits, misses", f"{seen.hits:,}, {seen.misses:,}", "hits > 0", seen.hits > 0),
                Row("wrong", str(seen.wrong), "0", seen.wrong == 0),
                Row("errors, damaged", f"{seen.errors}, {seen.afresh}", "0, 0", seen.errors == seen.afresh == 0),
            ],
        )
    )


if __name__ == "__main__":
    main()
