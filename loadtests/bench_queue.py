"""
The half of `make bench-queue` that needs servers: each of the demo's targets behind its lane, with three times what it
carries, open loop, half of it batch; and clients that vanish.

The generator has a core of its own, and everything else the others; its lag is printed.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import httpx
import numpy as np

from edge.engine.events import Statistics
from loadtests.bench import Row, report
from loadtests.queueing.fifo import FifoSlots
from loadtests.queueing.generator import Answered, Generator
from loadtests.queueing.results import goodput_per_s
from loadtests.queueing.simulator import MakeCore, Outcome, Speed, simulate
from loadtests.queueing.trace import Lengths, Stream, Trace
from loadtests.site import Site, running_site
from router.config.lanes import Lane
from router.decision import Tier
from router.query import Priority
from router.slots import Slots
from tests.site.test_hang_up import CLIENTS, make_room, vanish

TIERS = {Tier.EDGE: "edge-demo", Tier.CLOUD: "cloud-demo"}
SLOTS, BACKLOG = 8, 256
"""The backlog has room for more than can be answered in time: with less, no request ever waits too long, and a FIFO
that drops what is late answers as many as any order could.
"""
AGING = 30.0
"""In mean services: beyond every deadline that can be kept."""
HANG_UP_S = 0.25
_RAMP = 0.2
_PROMPT_TOKENS = 20.0
_LEAST_S = 1e-6


@dataclass(frozen=True, slots=True)
class Overload:
    """One run; `own` had all slots busy with its own class and no backlog."""

    own: Sequence[Answered]
    capacity_per_s: float
    answered: Sequence[Answered]
    duration_s: float
    aging_s: float
    sequences: Statistics

    @property
    def goodput_per_s(self) -> float:
        """Answers of use."""
        ended = [one.planned.at + one.took_s for one in self.answered if one.in_time]
        return _rate(ended, self.duration_s)

    def simulate(self, make_core: MakeCore, lane: Lane) -> Outcome:
        """The same requests in virtual time, at the speed that the target had in this run."""
        answered = [one for one in self.answered if one.status == 200]
        # the lengths are too much alike to tell a request's own time from that of its tokens
        token_s = sum(one.service_s for one in answered) / sum(one.planned.tokens for one in answered)
        speed = Speed(_LEAST_S, 1e9, 1 / token_s)
        planned = sorted((one.planned for one in self.answered), key=lambda one: one.at)
        length = np.array([float(one.tokens) for one in planned])
        patience_s = {one.priority: one.patience_s for one in planned}
        kind = Lengths(1.0)
        streams = [Stream(p, "anonymous", 1.0, kind, kind, patience_s[p]) for p in Priority]
        trace = Trace(
            np.array([one.at for one in planned]),
            np.array([one.priority.rank for one in planned]),
            np.full(len(planned), _PROMPT_TOKENS),
            length,
            np.minimum(length, length.mean()),  # as the router estimates answers with a limit
            np.zeros(len(planned)),
            streams,
        )
        return simulate(trace, speed, lane, make_core)

    def of(self, priority: Priority) -> list[Answered]:
        """A class's answers."""
        return [one for one in self.answered if one.planned.priority is priority and one.status == 200]


@dataclass(frozen=True, slots=True)
class Alone:
    """All slots busy: with the interactive class and no backlog, and then to the full."""

    answered: Sequence[Answered]
    capacity_per_s: float

    @property
    def service_s(self) -> float:
        """Mean."""
        return float(np.mean([one.took_s for one in self.answered]))


@asynccontextmanager
async def _generator(site: Site, tier: Tier, seed: int) -> AsyncIterator[Generator]:
    """With the router warm: it knows how fast the target is."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=site.url, timeout=300, limits=limits, trust_env=False) as client:
        generator = Generator(client, tier, seed)
        await generator.saturate(SLOTS, 5.0, Priority.STANDARD)
        yield generator


async def measure_alone(site: Site, tier: Tier, duration_s: float, seed: int) -> Alone:
    """What the overload is compared with."""
    async with _generator(site, tier, seed) as generator:
        own = await generator.saturate(SLOTS, duration_s, Priority.INTERACTIVE)
        began = time.perf_counter()
        # twice as many clients as slots: all slots are busy from the first answers to the end
        full = await generator.saturate(2 * SLOTS, duration_s, Priority.STANDARD)
    return Alone(own, _rate([one.ended - began for one in full if one.status == 200], duration_s))


async def overload(site: Site, tier: Tier, alone: Alone, aging_s: float, duration_s: float, seed: int) -> Overload:
    """Three times the capacity."""
    async with _generator(site, tier, seed + 1) as generator:
        answered = await generator.play(generator.plan(alone.capacity_per_s, alone.service_s, duration_s))
    return Overload(alone.answered, alone.capacity_per_s, answered, duration_s, aging_s, site.statistics(tier))


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
    goodput = run.goodput_per_s / run.capacity_per_s
    lag_ms = float(np.percentile([one.lag_s for one in run.answered], 99)) * 1e3
    late = run.sequences.started_late
    ends = ", ".join(f"{s}: {sum(one.status == s for one in run.answered)}" for s in (200, 429, 504))
    yield Row("capacity", f"{run.capacity_per_s:.2f}/s", "<= 20/s", run.capacity_per_s <= 20)
    yield Row("service, all slots busy: p95, p99", f"{p95_s:.3f} s, {p99_s:.3f} s", "-", holds=True)
    yield Row(f"asked {len(run.answered):,}, by status", ends, "-", holds=True)
    yield Row("generator's lag p99", f"{lag_ms:.1f} ms", "-", holds=True)
    yield Row("interactive p99 / alone", f"{latency:.2f}", "<= 1.5", latency <= 1.5)
    yield Row("interactive wait p99 / service p95", f"{wait:.2f}", "<= 1", wait <= 1)
    yield Row("batch's part of the tokens", f"{share:.3f}", ">= 0.1", share >= 0.1)
    yield Row("batch's longest wait", f"{oldest_s:.1f} s", f"< {run.aging_s:.0f} s", oldest_s < run.aging_s)
    yield Row("goodput / capacity", f"{goodput:.3f}", ">= 0.9", goodput >= 0.9)
    yield Row("starts after a deadline, as the target counts", f"{late}", "0", late == 0)


def simulator_rows(run: Overload) -> Iterator[Row]:
    """Beside the simulator, and beside first come, first served in it."""
    lane = Lane(slots=SLOTS, backlog=BACKLOG, aging_s=run.aging_s)
    outcome = run.simulate(Slots, lane)
    for priority in Priority:
        waits = outcome.wait[outcome.trace.ranks() == priority.rank]
        simulated_s = float(np.nanmean(waits))
        real_s = float(np.mean([one.queue_s for one in run.of(priority)]))
        apart = abs(simulated_s - real_s) / max(real_s, 1e-3)
        name = f"{priority}: mean wait, simulated and real"
        yield Row(name, f"{simulated_s:.3f} s, {real_s:.3f} s", "within 15%", apart <= 0.15)
    blind = Lane(slots=SLOTS, backlog=BACKLOG, doomed_part=0.0)
    fifo = goodput_per_s(run.simulate(FifoSlots, blind), run.duration_s * _RAMP, run.duration_s)
    ratio = run.goodput_per_s / fifo
    yield Row("goodput / that of a simulated FIFO, same bound", f"{ratio:.2f}", ">= 1.3", ratio >= 1.3)


def hang_up_rows(work: Path) -> Iterator[Row]:
    """Two hundred clients vanish."""
    with running_site(work, make_room) as site:
        for tier in ("edge", "cloud"):
            for stream in (False, True):
                took_s = vanish(site, tier, CLIENTS, stream=stream)
                name = f"{CLIENTS} vanish, {tier}, {'streamed' if stream else 'whole'}"
                yield Row(name, f"{took_s * 1e3:.0f} ms", f"<= {HANG_UP_S * 1e3:g} ms", took_s <= HANG_UP_S)


def _rate(ended: Sequence[float], duration_s: float) -> float:
    """A second, without the beginning, when slots and backlog fill."""
    since = duration_s * _RAMP
    return sum(since <= at < duration_s for at in ended) / (duration_s - since)


def pressed_rows(work: Path, tier: Tier, duration_s: float, seed: int) -> Iterator[Row]:
    """One target under three times its capacity."""
    cores = sorted(os.sched_getaffinity(0))
    own, others = cores[-1:], cores[:-1] or cores
    try:
        os.sched_setaffinity(0, others)  # what is started from here on inherits it
        with running_site(work) as site:
            os.sched_setaffinity(0, own)
            alone = asyncio.run(measure_alone(site, tier, duration_s / 3, seed))
            aging_s = AGING * alone.service_s
            site.stop("router")
            site.set_lane(TIERS[tier], slots=SLOTS, backlog=BACKLOG, aging_s=aging_s)
            os.sched_setaffinity(0, others)
            site.start("router")
            site.wait_target(TIERS[tier], up=True)
            os.sched_setaffinity(0, own)
            run = asyncio.run(overload(site, tier, alone, aging_s, duration_s, seed))
    finally:
        os.sched_setaffinity(0, cores)
    for row in (*overload_rows(run), *simulator_rows(run)):
        yield replace(row, name=f"{tier}: {row.name}")


@click.command()
@click.option("--duration-s", default=90.0, show_default=True, help="Of each overload.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--tier", "tiers", type=click.Choice([tier.value for tier in Tier]), multiple=True, help="Press these only."
)
@click.option("--hang-up/--no-hang-up", default=True, help="Whether clients vanish too.")
def main(duration_s: float, seed: int, tiers: Sequence[str], *, hang_up: bool) -> None:
    """Measure on this machine; exits 1 when a bar does not hold."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in tiers or TIERS:
            work = Path(folder) / name
            work.mkdir()
            rows += pressed_rows(work, Tier(name), duration_s, seed)
        if hang_up:
            work = Path(folder) / "hang-up"
            work.mkdir()
            rows += hang_up_rows(work)
    sys.exit(report("queue", rows))


if __name__ == "__main__":
    main()
