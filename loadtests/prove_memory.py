"""
That the router's memory does not grow with the requests it has answered: a million of them, no two alike, through the
whole pipeline, with every bounded thing filled long before the first measuring point that counts.

Two hundred tenants with quotas; a memory tier of 4 MiB and a disk tier of 16 MiB, which some 4,000 and 27,000 answers
fill; every tenth request is a stream. Resident memory is read when nothing is under way.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx
import msgspec

from loadtests.bench import FOLDER, Row, report
from loadtests.cores.servers import Router, asked, running_router, running_upstream
from loadtests.cores.traffic import ask, complain, questions
from loadtests.cores.upstream import Pace
from router.cache import TierStatistics
from router.cache.statistics import CacheReport

BAR: Final = 1.10
FILLED: Final = 50_000
_TOKENS: Final = 8
_TENANTS: Final = 200
_CONNECTIONS: Final = 48
_STREAM_EVERY: Final = 10
_BATCH: Final = 10_000
_BATCH_LIMIT_S: Final = 300.0
_SETTLE_S: Final = 1.0


class Point(msgspec.Struct, frozen=True):
    """Memory after so many requests."""

    requests: int
    resident_bytes: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """At which counts memory is read, in batches of how many."""

    points: list[int]
    batch: int

    @classmethod
    def up_to(cls, requests: int) -> "Plan":
        """At 10,000, 50,000, every 100,000, and the last."""
        wanted = {10_000, FILLED, *range(100_000, requests, 100_000), requests}
        return cls(sorted(point for point in wanted if point <= requests), _BATCH)


def sections(folder: Path, memory_bytes: int = 4_194_304, disk_bytes: int = 16_777_216) -> dict[str, Any]:
    """Of the router's configuration, what is bounded small."""
    (folder / "cache").mkdir(parents=True)
    disk = {"folder": str(folder / "cache"), "most_bytes": disk_bytes}
    return {
        "cache": {"tiers": {"memory": {"most_bytes": memory_bytes}, "disk": disk}},
        "quotas": {"default": {"requests_per_min": 1e8, "tokens_per_min": 1e9}},
    }


def prove(router: Router, upstream: int, plan: Plan) -> Iterator[Point]:
    """Ask batch after batch; a point whenever its count is reached.

    Raises:
        RuntimeError: an answer was wrong, missing, or from a cache.
    """
    done = 0
    for point in plan.points:
        begun, first = time.perf_counter(), done
        while done < point:
            numbers = range(done + 1, min(done + plan.batch, point) + 1)
            source = questions(numbers, tokens=_TOKENS, keys=router.keys, stream_every=_STREAM_EVERY)
            outcome = ask(router.port, source, connections=_CONNECTIONS, limit_s=_BATCH_LIMIT_S)
            if (complaint := complain(outcome, len(numbers))) is not None:
                raise RuntimeError(complaint)
            done += len(numbers)
        took_s = time.perf_counter() - begun
        time.sleep(_SETTLE_S)
        if asked(upstream) != done:
            raise RuntimeError(f"{done} requests, but the upstream was asked {asked(upstream)} times")
        yield Point(done, router.resident_bytes(), (done - first) / took_s)


def look_at_tiers(router: Router) -> dict[str, TierStatistics]:
    """The cache's tiers, by name."""
    headers = {"authorization": f"Bearer {router.keys[0]}"}
    answer = httpx.get(f"{router.url}/v1/cache", headers=headers, timeout=30, trust_env=False)
    return {tier.tier: tier for tier in msgspec.json.decode(answer.content, type=CacheReport).tiers}


def _rows(points: list[Point], held: dict[str, TierStatistics]) -> list[Row]:
    filled = next((point for point in points if point.requests == FILLED), points[0])
    ratio = points[-1].resident_bytes / filled.resident_bytes
    name = f"memory after {points[-1].requests:,} / after {filled.requests:,} requests"
    tiers = ", ".join(f"{name} {tier.entries:,} and {tier.evictions:,}" for name, tier in held.items())
    return [
        *(Row(f"after {point.requests:,} requests", _say(point), "-", True) for point in points),
        Row("records held and evicted at the end", tiers, "in each", all(tier.evictions for tier in held.values())),
        Row(name, f"{ratio:.3f}", f"<= {BAR:.2f}", ratio <= BAR),
    ]


def _say(point: Point) -> str:
    return f"{point.resident_bytes / 1e6:.1f} MB"


@click.command()
@click.option("--requests", default=1_000_000, show_default=True, help="How many in all.")
def main(requests: int) -> None:
    """Prove that memory stays."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory(dir=_scratch()) as name:
        folder = Path(name)
        bounds = sections(folder)
        with (
            running_upstream(folder, Pace(_TOKENS)) as upstream,
            running_router(folder, upstream, tenants=_TENANTS, **bounds) as router,
        ):
            for point in prove(router, upstream, Plan.up_to(requests)):
                points.append(point)
                click.echo(f"{point.requests:>9,}  {_say(point)}  {point.per_s:,.0f} requests/s", err=True)
            held = look_at_tiers(router)
    sys.exit(report("memory", _rows(points, held)))


def _scratch() -> Path:
    """The router's log grows to some hundred bytes a request: not in memory."""
    FOLDER.mkdir(exist_ok=True)
    return FOLDER.resolve()


if __name__ == "__main__":
    main()
