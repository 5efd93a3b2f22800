"""
`make bench-cache-faults`: the caches' server stopped, hung, emptied, restarted and replaced by nonsense, the disk full
and read-only, under steady load over HTTP. Before each fault the same load is watched without one.

The time of an answer is from when its request was due, so it has the client's own delays in it. The router's own part
is `x-overhead-ms`: without waiting for the target. Both need a quiet machine: what neighbours take is not told apart.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from loadtests.bench import Row, report
from loadtests.cache_faults import (
    DISK_FAULTS,
    SHARED_FAULTS,
    Fault,
    FaultyPlace,
    Load,
    Outcome,
    Want,
    faulty_place,
    wait_recovered,
)

MOST_SLOWER_MS = 25.0
MOST_OWN_MS = 20.0
_RECOVERY_S = 20.0
_SETTLE_S = 1.0


@dataclass(slots=True)
class Seen:
    """Of one fault, over all rounds."""

    fault: Fault
    normal: list[Outcome] = field(default_factory=list)
    faulty: list[Outcome] = field(default_factory=list)
    errors: int = 0
    recovered_s: list[float] = field(default_factory=list)


async def measure(
    place: FaultyPlace, faults: Sequence[Fault], *, per_s: float, rounds: int, for_s: float
) -> list[Seen]:
    """Each fault in turn, as often as there are rounds."""
    seen = [Seen(fault) for fault in faults]
    async with Load(place, per_s) as load:
        await load.watch(_SETTLE_S * 3)
        for _ in range(rounds):
            for one in seen:
                one.normal += await load.watch(for_s)
                before = await load.look_at(one.fault.tier)
                async with one.fault.begin(place):
                    one.faulty += await load.watch(for_s)
                    after = await load.look_at(one.fault.tier)
                one.errors += after.errors + after.corrupt - before.errors - before.corrupt
                one.recovered_s.append(await wait_recovered(load, one.fault.tier, _RECOVERY_S))
                await load.watch(_SETTLE_S)
                click.echo(f"{one.fault.name}: {len(one.faulty)} requests", err=True)
    return seen


def judge(seen: Seen) -> list[Row]:
    """The rows of a fault."""
    name = f"{seen.fault.tier.value} {seen.fault.name}"
    both = [*seen.normal, *seen.faulty]
    failures = [outcome.failure for outcome in both if outcome.failure]
    slower = _p99(_times(seen.faulty)) - _p99(_times(seen.normal))
    own, own_before = _overheads(seen.faulty), _overheads(seen.normal)
    own_slower = _p99(own) - _p99(own_before)
    hits = _overheads([outcome for outcome in seen.faulty if outcome.want is Want.MEMORY])
    back = max(seen.recovered_s)
    noticed = [Row(f"{name}: errors of the tier", f"{seen.errors}", "> 0", seen.errors > 0)] if seen.fault.shows else []
    bar = f"<= {MOST_SLOWER_MS:g} ms"
    return [
        Row(f"{name}: failed", f"{len(failures)} of {len(both):,} {failures[:1] or ''}".strip(), "0", not failures),
        Row(f"{name}: before, p50 / p99 / max", _show(_times(seen.normal)), "-", holds=True),
        Row(f"{name}: during", _show(_times(seen.faulty)), "-", holds=True),
        Row(f"{name}: p99 slower by", f"{slower:+.1f} ms", bar, slower <= MOST_SLOWER_MS),
        Row(f"{name}: router's own part, before", _show(own_before), "-", holds=True),
        Row(f"{name}: router's own part, during", _show(own), "-", holds=True),
        Row(f"{name}: p99 of it slower by", f"{own_slower:+.1f} ms", bar, own_slower <= MOST_SLOWER_MS),
        Row(f"{name}: of hits in memory, during", _show(hits), f"p99 <= {MOST_OWN_MS:g} ms", _p99(hits) <= MOST_OWN_MS),
        *noticed,
        Row(f"{name}: used again after", f"{back:.1f} s", f"<= {_RECOVERY_S:g} s", back <= _RECOVERY_S),
    ]


def _overheads(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.overhead_ms for outcome in outcomes if not outcome.failure]


def _times(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.took_ms for outcome in outcomes]


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99))


def _show(values: Sequence[float]) -> str:
    return f"{np.percentile(values, 50):.1f} / {_p99(values):.1f} / {max(values):.0f} ms"


@click.command(context_settings={"show_default": True})
@click.option("--per-s", default=40.0, help="Requests a second.")
@click.option("--rounds", default=4, help="How often each fault comes.")
@click.option("--seconds", default=5.0, help="How long it lasts.")
def main(per_s: float, rounds: int, seconds: float) -> None:
    """What the caches' faults cost those who ask."""
    with tempfile.TemporaryDirectory() as work, faulty_place(Path(work)) as place:
        faults = [*SHARED_FAULTS, *(DISK_FAULTS if place.disk else ())]
        if place.disk is None:
            click.echo("The disk's faults are left out: no file system can be mounted here (needs root).", err=True)
        seen = asyncio.run(measure(place, faults, per_s=per_s, rounds=rounds, for_s=seconds))
    sys.exit(report("cache-faults", [row for one in seen for row in judge(one)]))


if __name__ == "__main__":
    main()
