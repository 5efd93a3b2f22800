"""
The queueing half of `make bench-queue` that needs no servers: what lanes cost, and what they keep of their promises in
virtual time, over the router's own code (`loadtests/queueing`).
"""

import gc
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from loadtests.bench import Row, report
from loadtests.queueing.cases import EDGE, SLOTS, Overload, Site, fairness, overload, reversals, speed_trace
from loadtests.queueing.fifo import FifoSlots
from loadtests.queueing.results import result_of
from loadtests.queueing.simulator import Outcome, simulate
from router.backlog import Backlog
from router.config.lanes import Lane, Pressure
from router.query import Priority
from router.rates import Rates, Sample, Work
from router.slots import Slots
from router.tenants import Entry
from router.tickets import Demand, Ticket

REQUESTS = 1_000_000
SEEDS = 3
DEPTH = 10_000
CHUNK, CHUNKS = 2000, 40


def speed_row() -> Row:
    """The whole simulator, drawing the trace included."""
    began = time.perf_counter()
    trace = speed_trace(REQUESTS)
    simulate(trace, EDGE, Lane(slots=SLOTS, backlog=256))
    took_s = time.perf_counter() - began
    # the count is drawn from a Poisson distribution
    per_million_s = took_s * REQUESTS / len(trace)
    return Row(f"simulator: {len(trace):,} requests", f"{took_s:.1f} s", "< 60 s a million", per_million_s < 60)


def draw(rng: random.Random, count: int) -> list[Demand]:
    """Of all classes and two hundred tenants."""
    return [
        Demand(
            rng.choice(list(Priority)),
            f"tenant-{rng.randrange(200)}",
            Work(rng.randrange(10, 500), rng.randrange(10, 200)),
            rng.uniform(1000, 3000),
        )
        for _ in range(count)
    ]


def measure(pass_one: Callable[[Demand, float], None]) -> tuple[float, float]:
    """CPU microseconds a request: the median chunk, and the best."""
    rng = random.Random(1)
    costs = []
    turn = 0
    for _ in range(CHUNKS):
        demands = draw(rng, CHUNK)
        gc.collect()
        began = time.process_time()
        for demand in demands:
            turn += 1
            pass_one(demand, turn * 0.001)
        costs.append((time.process_time() - began) / CHUNK * 1e6)
    return statistics.median(costs), min(costs)


def measure_backlog() -> tuple[float, float]:
    """Offer, take, settle."""
    backlog = Backlog[Entry](DEPTH + 1, Lane().shares.by_class(), 3600.0)

    def offer(demand: Demand, now: float) -> None:
        work = demand.work.prompt_tokens + demand.work.completion_tokens
        backlog.offer(Entry(demand.priority, demand.tenant, work, now, demand.deadline), now)

    def pass_one(demand: Demand, now: float) -> None:
        offer(demand, now)
        if (entry := backlog.take(now)) is not None:
            backlog.settle(entry, entry.work - 1)

    for demand in draw(random.Random(2), DEPTH):
        offer(demand, 0.0)
    return measure(pass_one)


def measure_lane() -> tuple[float, float]:
    """The same and forecasting, starting, releasing, counting, and learning from the answer."""
    running: deque[Ticket] = deque()
    core = Slots(Lane(slots=SLOTS, backlog=DEPTH + 1, aging_s=3600), Rates(), running.append)

    def pass_one(demand: Demand, now: float) -> None:
        core.offer(demand, now)
        ticket = running.popleft()
        core.leave(ticket, now, Sample(ticket.demand.work, 0.05, 0.01))

    demands = draw(random.Random(2), SLOTS + DEPTH)
    running += [core.offer(demand, 0.0) for demand in demands[:SLOTS]]
    for demand in demands[SLOTS:]:
        core.offer(demand, 0.0)
    return measure(pass_one)


def cost_rows() -> Iterator[Row]:
    """Of one request, with ten thousand waiting."""
    for name, take_measure in (("offer, take, settle", measure_backlog), ("all that a lane does", measure_lane)):
        median, best = take_measure()
        value = f"{median:.1f} µs (best {best:.1f})"
        yield Row(f"CPU a request at backlog {DEPTH:,}: {name}", value, "<= 15 µs", median <= 15)


def fairness_rows() -> Iterator[Row]:
    """Ten tenants, one of them greedy."""
    index = fairness()
    yield Row("ten tenants, one with 20x load, 10x prompts: Jain", f"{index:.5f}", ">= 0.95", index >= 0.95)
    yield Row("the same, first come first served", f"{fairness(FifoSlots):.3f}", "-", holds=True)


def one_deadline_rows() -> Iterator[Row]:
    """Everyone allows the same, less than a full backlog takes: where order by arrival starts what it cannot finish."""
    lane = Lane(slots=SLOTS, backlog=512, aging_s=30)
    runs = [overload(lane, patience_s=(6.0, 6.0, 6.0), seed=seed) for seed in range(1, SEEDS + 1)]
    name = "3x overload, backlog 512, 6 s for all"
    goodput = min(r.goodput(r.lanes) for r in runs)
    yield Row(f"{name}: goodput / capacity", f"{goodput:.3f}", ">= 0.9", goodput >= 0.9)
    blind = min(r.goodput(r.lanes) / r.goodput(r.fifo_blind) for r in runs)
    yield Row(f"{name}: goodput / that of a FIFO that drops the expired", f"{blind:.2f}", ">= 1.3", blind >= 1.3)
    doomed = min(r.goodput(r.lanes) / r.goodput(r.fifo) for r in runs)
    yield Row(f"{name}: goodput / that of a FIFO that drops the doomed too", f"{doomed:.2f}", "-", holds=True)


def overload_rows(backlog: int) -> Iterator[Row]:
    """Three times the capacity, the worst of some seeds."""
    lane = Lane(slots=SLOTS, backlog=backlog, aging_s=30)
    runs = [overload(lane, seed=seed) for seed in range(1, SEEDS + 1)]
    name = f"3x overload, backlog {backlog}"
    urgent = [result_of(r.lanes, Priority.INTERACTIVE, r.since, r.until) for r in runs]
    batch = [result_of(r.lanes, Priority.BATCH, r.since, r.until) for r in runs]
    latency = max(u.latency_p99_s / r.service_p99_s for u, r in zip(urgent, runs, strict=True))
    wait = max(u.wait_p99_s / r.service_p95_s for u, r in zip(urgent, runs, strict=True))
    share = min(r.share(r.lanes, Priority.BATCH) for r in runs)
    oldest_s = max(b.wait_most_s for b in batch)
    goodput = min(r.goodput(r.lanes) for r in runs)
    yield Row(f"{name}: interactive p99 / its service p99", f"{latency:.2f}", "<= 1.5", latency <= 1.5)
    yield Row(f"{name}: interactive wait p99 / service p95", f"{wait:.2f}", "<= 1", wait <= 1)
    least = lane.shares.batch - max(r.six_requests for r in runs)
    yield Row(f"{name}: batch's part of the work", f"{share:.4f}", f">= {least:.4f}", share >= least)
    yield Row(f"{name}: batch's longest wait", f"{oldest_s:.1f} s", f"< {lane.aging_s:g} s", oldest_s < lane.aging_s)
    yield Row(f"{name}: goodput / capacity", f"{goodput:.3f}", ">= 0.9", goodput >= 0.9)
    yield from fifo_rows(name, runs)
    late = sum(late_starts(run.lanes) for run in runs)
    yield Row(f"{name}: starts after the deadline", f"{late}", "0", late == 0)
    yield Row(f"{name}: shed, expired, refused", ends_of(runs[0]), "-", holds=True)


def fifo_rows(name: str, runs: list[Overload]) -> Iterator[Row]:
    """Beside first come, first served, counted over everyone and over the urgent alone."""
    for fifo, which in (("fifo_blind", "drops the expired"), ("fifo", "drops the doomed too")):
        outcomes: list[Outcome] = [getattr(run, fifo) for run in runs]
        all_of = min(run.goodput(run.lanes) / run.goodput(o) for run, o in zip(runs, outcomes, strict=True))
        value = f"{all_of:.2f}"
        yield Row(f"{name}: goodput / that of a FIFO that {which}", value, "-", holds=True)
    answered = [
        (result_of(run.lanes, p, run.since, run.until).in_time, result_of(run.fifo, p, run.since, run.until).in_time)
        for run in runs[:1]
        for p in Priority
    ]
    value = ", ".join(f"{ours}:{theirs}" for ours, theirs in answered)
    yield Row(f"{name}: answers in time by class, lane:FIFO", value, "-", holds=True)


def late_starts(outcome: Outcome) -> int:
    """Requests that started after their deadline."""
    patience = np.array([s.patience_s for s in outcome.trace.streams])[outcome.trace.stream]
    return int((outcome.wait >= patience).sum())


def ends_of(run: Overload) -> str:
    """Of all classes."""
    results = [result_of(run.lanes, p, run.since, run.until) for p in Priority]
    return f"{sum(r.shed for r in results)}, {sum(r.expired for r in results)}, {sum(r.refused for r in results)}"


def pressure_rows() -> Iterator[Row]:
    """A step to twice the load and back."""
    for cloud_slots, fits in ((24, True), (20, True), (16, False)):
        site = Site(cloud_slots=cloud_slots)
        config = Pressure(objective_s=site.objective_s)
        cuts, values, gaps = [], [], []
        ends = []
        for seed in range(1, SEEDS + 1):
            trace = site.trace(seed)
            steered = site.steered(trace, config)
            fixed = site.fixed(trace, steered.cloud_share)
            cuts.append(1 - steered.late / fixed.late)
            values.append(f"{fixed.late:.3f}->{steered.late:.3f}")
            gaps += np.diff(reversals(steered.offsets, trace.at)).tolist()
            ends.append(abs(float(steered.offsets[-1])))
        name = f"step to 2x load, {cloud_slots} cloud slots"
        value = f"{min(cuts):.3f} ({', '.join(values)})"
        if fits:
            yield Row(f"{name}: late answers cut by", value, ">= 0.6", min(cuts) >= 0.6)
        else:
            # no threshold helps; this says what trying costs
            yield Row(f"{name} (more than both carry): cut by", value, "-", holds=True)
        shortest = float(min(gaps, default=np.inf))
        yield Row(
            f"{name}: turns at least so far apart", f"{shortest:.1f} s", f">= {config.window_s:g} s",
            shortest >= config.window_s,
        )  # fmt: skip
        yield Row(f"{name}: offset at the end", f"{max(ends):.2f}", "0", max(ends) == 0)


def main() -> int:
    """All tables."""
    rows = [
        *cost_rows(),
        *fairness_rows(),
        *overload_rows(64),
        *overload_rows(512),
        *one_deadline_rows(),
        *pressure_rows(),
        speed_row(),
    ]
    return report("queue_sim", rows)


if __name__ == "__main__":
    sys.exit(main())
