"""What a run amounts to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.queueing.simulator import End, Outcome
from router.query import Priority

_CLASSES = tuple(Priority)


@dataclass(frozen=True, slots=True)
class ClassResult:
    """A class between two moments; seconds of those that started, latency of those answered in time."""

    count: int
    started: int
    in_time: int
    expired: int
    refused: int
    shed: int
    wait_p50_s: float
    wait_p99_s: float
    wait_most_s: float
    latency_p99_s: float
    tokens: float


def result_of(outcome: Outcome, priority: Priority, since: float = 0.0, until: float = np.inf) -> ClassResult:
    """Of the requests that arrived in between."""
    trace = outcome.trace
    mine = (trace.ranks() == _CLASSES.index(priority)) & (trace.at >= since) & (trace.at < until)
    end, wait = outcome.end[mine], outcome.wait[mine]
    waited = wait[~np.isnan(wait)]
    latency = (outcome.finished - trace.at)[mine & outcome.in_time]
    tokens = (trace.prompt + trace.completion)[mine & ~np.isnan(outcome.wait)]
    return ClassResult(
        count=int(mine.sum()),
        started=len(waited),
        in_time=int((end == End.IN_TIME).sum()),
        expired=int((end == End.EXPIRED).sum()),
        refused=int((end == End.REFUSED).sum()),
        shed=int((end == End.SHED).sum()),
        wait_p50_s=quantile(waited, 0.5),
        wait_p99_s=quantile(waited, 0.99),
        wait_most_s=quantile(waited, 1.0),
        latency_p99_s=quantile(latency, 0.99),
        tokens=float(tokens.sum()),
    )


def quantile(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", share: float) -> float:
    """NaN of nothing."""
    return float(np.quantile(values, share)) if len(values) else float("nan")


def goodput_per_s(outcome: Outcome, since: float, until: float) -> float:
    """Answers within their deadlines that ended in between, a second."""
    ended = outcome.finished
    return float((outcome.in_time & (ended >= since) & (ended < until)).sum() / (until - since))


def served_tokens(outcome: Outcome, tenants: Sequence[str], since: float, until: float) -> list[float]:
    """Of the requests of each tenant that ended in between, whether in time or not."""
    trace = outcome.trace
    names = np.array([s.tenant for s in trace.streams])[trace.stream]
    ended = (outcome.finished >= since) & (outcome.finished < until)
    tokens = trace.prompt + trace.completion
    return [float(tokens[ended & (names == tenant)].sum()) for tenant in tenants]


def jain(amounts: Sequence[float]) -> float:
    """1 when all are equal, 1/n when one has all (Jain, Chiu, Hawe, DEC-TR-301, 1984)."""
    values = np.array(amounts)
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))
