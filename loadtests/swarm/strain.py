"""Whether the generator itself was the bottleneck: then a run's figures are its own, and the run says so."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from loadtests.swarm.measures import Measure, Table, measure

PERIOD_S = 0.02
MOST_BUSY = 0.8
MOST_WAITED = 0.1
MOST_LAG_MS = 25.0
MOST_PAUSE_MS = 1000.0
MOST_LATE_MS = 10.0
MOST_LATE_PART = 0.05
"""Lateness is told beyond 10 ms, and beyond this part of the median latency."""
_SCHEDSTAT = Path("/proc/self/schedstat")


class Strain(Struct, frozen=True):
    """What one worker measured of itself."""

    worker: int
    busy: float
    """Part of the time that it computed; one core is all it can use."""
    waited: float
    """Part of the time that it was ready to compute and its core was taken."""
    lag_p99_ms: float
    """How much later than asked its event loop woke up."""
    lag_most_ms: float


def average_strains(strains: Sequence[Strain]) -> Strain:
    """One strain for several runs of one worker; `lag_most_ms` is the most of all."""
    return Strain(
        worker=strains[0].worker,
        busy=float(np.mean([one.busy for one in strains])),
        waited=float(np.mean([one.waited for one in strains])),
        lag_p99_ms=float(np.mean([one.lag_p99_ms for one in strains])),
        lag_most_ms=max(one.lag_most_ms for one in strains),
    )


class StrainWatch:
    """Measures from its making until `end`; `run` belongs in a task of its own."""

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        self._lags_ms: list[float] = []
        self._began = time.perf_counter()
        self._computed = time.process_time()
        self._waited_s = _waited_s()

    def run(self) -> None:
        """Sleep, and see how late one wakes up; ends by being killed."""
        while True:
            asked = time.perf_counter() + PERIOD_S
            self._sleep(PERIOD_S)
            self._lags_ms.append((time.perf_counter() - asked) * 1e3)

    def end(self, worker: int) -> Strain:
        """What came of it."""
        took_s = time.perf_counter() - self._began
        lags = np.array(self._lags_ms or [0.0])
        return Strain(
            worker=worker,
            busy=(time.process_time() - self._computed) / took_s,
            waited=(_waited_s() - self._waited_s) / took_s,
            lag_p99_ms=float(np.percentile(lags, 99)),
            lag_most_ms=float(lags.max()),
        )


def list_strains(strains: Sequence[Strain], table: Table) -> Iterator[str]:
    """What was wrong with the generator, one line each; nothing where it was not the bottleneck."""
    for one in strains:
        name = f"generator worker {one.worker}"
        if one.busy > MOST_BUSY:
            yield f"{name} computed {one.busy:.0%} of the time (limit {MOST_BUSY:.0%}): add workers"
        if one.waited > MOST_WAITED:
            yield f"{name} waited for its core {one.waited:.0%} of the time (limit {MOST_WAITED:.0%}): give it a core"
        if one.lag_p99_ms > MOST_LAG_MS:
            yield f"{name}: its event loop woke {one.lag_p99_ms:.0f} ms late (p99; limit {MOST_LAG_MS:g} ms)"
        if one.lag_most_ms > MOST_PAUSE_MS:
            yield f"{name} stood still for {one.lag_most_ms / 1e3:.1f} s: see what stopped it, or its machine"
    late_ms, typical_ms = measure(Measure.LATE_P99_MS, table), measure(Measure.LATENCY_P50_MS, table)
    limit_ms = max(MOST_LATE_MS, MOST_LATE_PART * typical_ms) if np.isfinite(typical_ms) else MOST_LATE_MS
    if late_ms > limit_ms:
        yield (
            f"requests were sent {late_ms:.0f} ms late (p99; limit {limit_ms:.0f} ms): add workers, "
            "or raise most_in_flight; latencies count the delay"
        )


def _waited_s() -> float:
    """The main thread's time on a run queue, as Linux counts it; 0 elsewhere."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
