"""The core under traffic, in virtual time; `make bench-queue` runs the same cases longer."""

from math import inf

import numpy as np
import pytest

from loadtests.queueing.cases import EDGE, SLOTS, Site, fairness, overload, reversals
from loadtests.queueing.fifo import FifoSlots
from loadtests.queueing.results import jain, result_of
from loadtests.queueing.simulator import End, Speed, simulate
from loadtests.queueing.trace import Lengths, Stream, Trace
from router.config.lanes import Lane, Pressure
from router.query import Priority


def test_waits_are_those_of_queueing_theory() -> None:
    """M/M/c at 80%: Erlang's C formula."""
    speed = Speed(overhead_s=0.0, prefill_per_s=inf, decode_per_s=1000)
    rng = np.random.default_rng(0)
    count, servers, load = 200_000, 4, 0.8
    at = np.cumsum(rng.exponential(1 / (load * servers), count))
    tokens = rng.exponential(1000, count)
    stream = Stream(Priority.STANDARD, "all", 1, Lengths(1), Lengths(1), 1e9)
    zeros = np.zeros(count)
    trace = Trace(at, zeros.astype(int), zeros, tokens, tokens, zeros, [stream])
    offered = load * servers
    top = offered**servers / np.prod(np.arange(1, servers + 1)) / (1 - load)
    below = sum(offered**k / np.prod(np.arange(1, k + 1)) for k in range(servers))
    expected = top / (below + top) / (servers - offered)

    for core in (None, FifoSlots):
        lane = Lane(slots=servers, backlog=100_000, aging_s=86_400, doomed_part=0)
        outcome = simulate(trace, speed, lane, core) if core else simulate(trace, speed, lane)
        assert outcome.wait.mean() == pytest.approx(expected, rel=0.05)


def test_ten_tenants_get_the_same_whatever_one_of_them_sends() -> None:
    assert fairness(duration_s=60) >= 0.95
    assert fairness(FifoSlots, duration_s=60) <= 0.3, "the case must be one that unfair order fails"


def test_jain_is_that_of_cases_counted_by_hand() -> None:
    assert jain([1, 1, 1, 1]) == 1
    assert jain([1, 0, 0, 0]) == 0.25


@pytest.mark.parametrize("backlog", [64, 256])
def test_under_overload_urgent_work_keeps_its_latency_and_batch_its_share(backlog: int) -> None:
    lane = Lane(slots=SLOTS, backlog=backlog, aging_s=30)
    run = overload(lane, duration_s=200)
    interactive, batch = (result_of(run.lanes, p, run.since, run.until) for p in (Priority.INTERACTIVE, Priority.BATCH))

    assert interactive.latency_p99_s <= 1.5 * run.service_p99_s
    assert interactive.wait_p99_s <= run.service_p95_s
    assert run.share(run.lanes, Priority.BATCH) >= 0.95 * lane.shares.batch
    assert batch.wait_most_s < 30
    assert run.goodput(run.lanes) >= 0.9


def test_nothing_starts_too_late() -> None:
    run = overload(Lane(slots=SLOTS, backlog=256), duration_s=100)
    patience = np.array([s.patience_s for s in run.lanes.trace.streams])[run.lanes.trace.stream]
    started = ~np.isnan(run.lanes.wait)

    assert (run.lanes.wait[started] < patience[started]).all()
    assert (run.lanes.end != End.NONE).all(), "everything came to an end"


def test_pressure_keeps_the_objective_through_a_step_to_twice_the_load() -> None:
    site = Site(steps=((100.0, 2.0), (200.0, 1.0)), duration_s=300.0)
    trace = site.trace(seed=1)
    config = Pressure(objective_s=site.objective_s)

    steered = site.steered(trace, config)
    fixed = site.fixed(trace, steered.cloud_share)
    turned = reversals(steered.offsets, trace.at)

    assert steered.cloud_share == pytest.approx(fixed.cloud_share, abs=0.001)
    assert fixed.late > 0.1, "the case must be one that a fixed threshold fails"
    assert steered.late <= 0.4 * fixed.late
    assert steered.offsets.min() >= -config.most_to_cloud
    assert steered.offsets[-1] == 0
    assert min(np.diff(turned), default=inf) >= config.window_s
    assert EDGE.overhead_s < site.objective_s
