"""
The half of `make bench-queue` that needs servers: the demo's edge behind its lane, with three times what it carries,
open loop, half of it batch; and clients that vanish.

The generator has a core of its own, and everything else the others; its lag is printed.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np

from edge.engine.events import Statistics
from loadtests.bench import Row, report
from loadtests.site import Site, running_site
from router.query import Priority
from router.tickets import LaneStatistics
from tests.site.test_hang_up import CLIENTS, make_room, vanish

TARGET, SLOTS, BACKLOG, AGING_S = "edge-demo", 8, 64, 30.0
SHORTEST, LONGEST = 250, 440
"""Tokens of an answer: long enough that the edge ends at most some twenty a second."""
LOADS = {Priority.INTERACTIVE: 0.5, Priority.STANDARD: 1.0, Priority.BATCH: 1.5}
"""Of capacity: three times it, half of that batch."""
PATIENCE = {Priority.INTERACTIVE: 10.0, Priority.STANDARD: 20.0, Priority.BATCH: 48.0}
"""Until the deadline, in mean services."""
HANG_UP_S = 0.25
_URL = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Planned:
    """A request to come, in seconds from the start."""

    at: float
    priority: Priority
    tokens: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of it; seconds since it was due."""

    planned: Planned
    status: int
    took_s: float
    queue_s: float
    lag_s: float

    @property
    def in_time(self) -> bool:
        """Whether it was of use."""
        return self.status == 200 and self.took_s <= self.planned.patience_s


class Generator:
    """Asks the router for answers of known lengths, none of them from a cache."""

    def __init__(self, client: httpx.AsyncClient, seed: int) -> None:
        self._client = client
        self._rng = np.random.default_rng(seed)
        self._number = 0

    def tokens(self) -> int:
        """Of the next answer."""
        return int(self._rng.integers(SHORTEST, LONGEST))

    def plan(self, capacity_per_s: float, service_s: float, duration_s: float) -> list[Planned]:
        """Poisson arrivals of all classes."""
        planned = []
        for priority, load in LOADS.items():
            count = self._rng.poisson(load * capacity_per_s * duration_s)
            for at in self._rng.uniform(0.0, duration_s, count).tolist():
                planned.append(Planned(at, priority, self.tokens(), PATIENCE[priority] * service_s))
        return sorted(planned, key=lambda one: one.at)

    async def ask(self, planned: Planned, due: float) -> Answered:
        """One request, timed from when it was due (`time.perf_counter()`)."""
        self._number += 1
        lag_s = time.perf_counter() - due
        headers = {
            "x-priority": planned.priority.value,
            "x-deadline-ms": f"{max((planned.patience_s - lag_s) * 1e3, 1.0):.0f}",
            "cache-control": "no-store",
        }
        answer = await self._client.post(_URL, json=_body(self._number, planned.tokens), headers=headers)
        took_s = time.perf_counter() - due
        return Answered(planned, answer.status_code, took_s, float(answer.headers.get("x-queue-ms", 0)) / 1e3, lag_s)

    async def saturate(self, clients: int, duration_s: float, classes: Sequence[Priority]) -> list[Answered]:
        """Each client asks again as soon as it is answered."""
        end = time.perf_counter() + duration_s
        answered: list[Answered] = []

        async def keep_asking(priority: Priority) -> None:
            while (now := time.perf_counter()) < end:
                answered.append(await self.ask(Planned(0.0, priority, self.tokens(), 100.0), now))

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(keep_asking(classes[number % len(classes)]))
        return answered

    async def play(self, planned: Sequence[Planned]) -> list[Answered]:
        """Open loop: each is sent when it is due, whatever became of the others."""
        answered: list[Answered] = []

        async def send(one: Planned, due: float) -> None:
            answered.append(await self.ask(one, due))

        started = time.perf_counter() + 0.1
        async with asyncio.TaskGroup() as group:
            for one in planned:
                due = started + one.at
                await asyncio.sleep(max(due - time.perf_counter(), 0.0))
                group.create_task(send(one, due))
        return answered


@dataclass(frozen=True, slots=True)
class Overload:
    """One run; `own` had all slots busy with its own class and no backlog."""

    own: Sequence[Answered]
    capacity_per_s: float
    answered: Sequence[Answered]
    duration_s: float
    lane: LaneStatistics
    edge: Statistics

    def of(self, priority: Priority) -> list[Answered]:
        """A class's answers."""
        return [one for one in self.answered if one.planned.priority is priority and one.status == 200]


async def overload(site: Site, duration_s: float, seed: int) -> Overload:
    """Warm up, measure the interactive class alone, the capacity, and then the overload."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=site.url, timeout=120, limits=limits, trust_env=False) as client:
        generator = Generator(client, seed)
        await generator.saturate(SLOTS, 3.0, [Priority.STANDARD])
        own = await generator.saturate(SLOTS, duration_s / 3, [Priority.INTERACTIVE])
        mix = [Priority.INTERACTIVE, Priority.STANDARD, Priority.STANDARD, *[Priority.BATCH] * 3]
        began = time.perf_counter()
        full = await generator.saturate(2 * SLOTS, duration_s / 3, mix)
        capacity = sum(one.status == 200 for one in full) / (time.perf_counter() - began)
        service_s = float(np.mean([one.took_s for one in own]))
        answered = await generator.play(generator.plan(capacity, service_s, duration_s))
    return Overload(own, capacity, answered, duration_s, site.lane(TARGET), site.statistics("edge"))


def overload_rows(run: Overload) -> Iterator[Row]:
    """The issue's bars."""
    own = np.array([one.took_s for one in run.own])
    p95_s, p99_s = (float(np.percentile(own, p)) for p in (95, 99))
    urgent, batch = run.of(Priority.INTERACTIVE), run.of(Priority.BATCH)
    latency = float(np.percentile([one.took_s for one in urgent], 99)) / p99_s
    wait = float(np.percentile([one.queue_s for one in urgent], 99)) / p95_s
    tokens = {p: sum(one.planned.tokens for one in run.of(p)) for p in Priority}
    share = tokens[Priority.BATCH] / sum(tokens.values())
    oldest_s = max(one.queue_s for one in batch)
    # the backlog is answered after the last arrival
    span_s = max(run.duration_s, *(one.planned.at + one.took_s for one in run.answered if one.in_time))
    goodput = sum(one.in_time for one in run.answered) / span_s / run.capacity_per_s
    lag_ms = float(np.percentile([one.lag_s for one in run.answered], 99)) * 1e3
    ends = ", ".join(f"{s}: {sum(one.status == s for one in run.answered)}" for s in (200, 429, 504))
    yield Row("capacity", f"{run.capacity_per_s:.2f}/s", "<= 20/s", run.capacity_per_s <= 20)
    yield Row("service, all slots busy: p95, p99", f"{p95_s:.3f} s, {p99_s:.3f} s", "-", holds=True)
    yield Row(f"asked {len(run.answered):,}, by status", ends, "-", holds=True)
    yield Row("generator's lag p99", f"{lag_ms:.1f} ms", "-", holds=True)
    yield Row("interactive p99 / alone", f"{latency:.2f}", "<= 1.5", latency <= 1.5)
    yield Row("interactive wait p99 / service p95", f"{wait:.2f}", "<= 1", wait <= 1)
    yield Row("batch's part of the tokens", f"{share:.3f}", ">= 0.1", share >= 0.1)
    yield Row("batch's longest wait", f"{oldest_s:.1f} s", f"< {AGING_S:g} s", oldest_s < AGING_S)
    yield Row("goodput / capacity", f"{goodput:.3f}", ">= 0.9", goodput >= 0.9)
    yield Row(
        "starts after a deadline, as the edge counts", f"{run.edge.started_late}", "0", run.edge.started_late == 0
    )
    counts = [one.count for one in run.lane.classes.values()]
    value = ", ".join(str(sum(getattr(c, name) for c in counts)) for name in ("refused", "shed", "expired"))
    yield Row("the lane: refused, shed, expired", value, "-", holds=True)


def hang_up_rows(work: Path) -> Iterator[Row]:
    """Two hundred clients vanish."""
    with running_site(work, make_room) as site:
        for tier in ("edge", "cloud"):
            for stream in (False, True):
                took_s = vanish(site, tier, CLIENTS, stream=stream)
                name = f"{CLIENTS} vanish, {tier}, {'streamed' if stream else 'whole'}"
                yield Row(name, f"{took_s * 1e3:.0f} ms", f"<= {HANG_UP_S * 1e3:g} ms", took_s <= HANG_UP_S)


def _body(number: int, tokens: int) -> dict[str, Any]:
    """An answer that cannot end early, and must at so many tokens."""
    schema = {"name": "long", "schema": {"type": "string", "minLength": 10 * tokens}}
    return {
        "model": "edge",
        "messages": [{"role": "user", "content": f"Hello {number}"}],
        "temperature": 0,
        "max_tokens": tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


@click.command()
@click.option("--duration-s", default=90.0, show_default=True, help="Of the overload.")
@click.option("--seed", default=1, show_default=True)
@click.option("--hang-up/--no-hang-up", default=True, help="Whether clients vanish too.")
def main(duration_s: float, seed: int, *, hang_up: bool) -> None:
    """Measure on this machine; exits 1 when a bar does not hold."""
    cores = sorted(os.sched_getaffinity(0))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("overload", "hang-up"):
            (work / name).mkdir()
        os.sched_setaffinity(0, cores[:-1] or cores)  # what is started from here on inherits it
        lane = {"slots": SLOTS, "backlog": BACKLOG, "aging_s": AGING_S}
        with running_site(work / "overload", lambda site: site.set_lane(TARGET, **lane)) as site:
            os.sched_setaffinity(0, cores[-1:])
            rows += overload_rows(asyncio.run(overload(site, duration_s, seed)))
        os.sched_setaffinity(0, cores)
        if hang_up:
            rows += hang_up_rows(work / "hang-up")
    sys.exit(report("queue", rows))


if __name__ == "__main__":
    main()
