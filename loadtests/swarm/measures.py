"""Figures of a run: each measure is a function of a table of its records, NaN where there is nothing to measure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np

from loadtests.swarm.record import Record

Vector = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
_REFUSED = (429, 503)
_OUT_OF_TIME = 504


class Measure(StrEnum):
    """What a run can be judged by; times count from when a request was due, of answered requests only."""

    LATENCY_MEAN_MS = "latency_mean_ms"
    LATENCY_P50_MS = "latency_p50_ms"
    LATENCY_P95_MS = "latency_p95_ms"
    LATENCY_P99_MS = "latency_p99_ms"
    FIRST_TOKEN_P50_MS = "first_token_p50_ms"
    FIRST_TOKEN_P99_MS = "first_token_p99_ms"
    GAP_MEAN_MS = "gap_mean_ms"
    LONGEST_GAP_P99_MS = "longest_gap_p99_ms"
    QUEUE_P50_MS = "queue_p50_ms"
    QUEUE_P99_MS = "queue_p99_ms"
    OVERHEAD_P50_MS = "overhead_p50_ms"
    OVERHEAD_P99_MS = "overhead_p99_ms"
    TARGET_P50_MS = "target_p50_ms"
    """The rest: the target, and the way there and back."""
    REQUESTS = "requests"
    OFFERED_PER_S = "offered_per_s"
    ANSWERED_PER_S = "answered_per_s"
    GOODPUT_PER_S = "goodput_per_s"
    """Answered, right where that is known, and within its deadline."""
    ACCURACY = "accuracy"
    """Of the answered questions."""
    FAILED_SHARE = "failed_share"
    """Neither answered, nor refused, nor out of time: what should not happen."""
    REFUSED_SHARE = "refused_share"
    EXPIRED_SHARE = "expired_share"
    """Told that the deadline had passed, or could not be kept."""
    MISSED_SHARE = "missed_share"
    """Of the answered with a deadline: those that came after it."""
    CLOUD_SHARE = "cloud_share"
    CACHED_SHARE = "cached_share"
    DEGRADED_SHARE = "degraded_share"
    DRIFT = "drift"
    """Median latency of the last quarter of the run's requests, by that of the first."""
    LATE_P99_MS = "late_p99_ms"
    """How late the generator was."""


@dataclass(frozen=True)
class Table:
    """Columns of n records, shape [n] each."""

    due: Vector
    sent: Vector
    ended: Vector
    first: Vector
    gap_ms: Vector
    longest_gap_ms: Vector
    queue_ms: Vector
    overhead_ms: Vector
    deadline_ms: Vector
    right: Vector
    """1, 0, or NaN where no answer is known."""
    status: Vector
    tier: "np.ndarray[Any, Any]"
    reason: "np.ndarray[Any, Any]"
    cache: "np.ndarray[Any, Any]"
    form: "np.ndarray[Any, Any]"
    origin: "np.ndarray[Any, Any]"
    priority: "np.ndarray[Any, Any]"
    degraded: "np.ndarray[Any, Any]"
    span_s: float
    """From the first that was due to the last end, of the whole run: its parts have the run's rates."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Table":
        """From records; None becomes NaN."""
        columns = {
            name: np.array([getattr(record, name) for record in records], str if name in _TEXTS else float)
            for name in _COLUMNS
        }
        span_s = float(columns["ended"].max() - columns["due"].min()) if len(records) else float("nan")
        return cls(**columns, span_s=span_s)

    @classmethod
    def join(cls, tables: "Sequence[Table]") -> "Table":
        """One after the other; the whole took as long as all of them."""
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}
        return cls(**columns, span_s=sum(table.span_s for table in tables))

    def __len__(self) -> int:
        return len(self.due)

    def where(self, rows: "np.ndarray[Any, Any]") -> "Table":
        """Some of the records, by mask or index."""
        return Table(**{name: getattr(self, name)[rows] for name in _COLUMNS}, span_s=self.span_s)

    def only(self, chosen: Mapping[str, str]) -> "Table":
        """Those whose columns say so."""
        mask = np.ones(len(self), bool)
        for column, value in chosen.items():
            mask &= getattr(self, column) == value
        return self.where(mask)

    def groups(self, column: str) -> Iterator[tuple[str, "Table"]]:
        """The records by a column's values."""
        for value in sorted(set(getattr(self, column).tolist())):
            yield value or "none", self.only({column: value})

    @property
    def answered(self) -> Mask:
        """Which have an answer."""
        mask: Mask = self.status == 200
        return mask

    @property
    def latency_ms(self) -> Vector:
        """From due to the end."""
        return (self.ended - self.due) * 1e3

    @property
    def late_ms(self) -> Vector:
        """From due to sent."""
        return (self.sent - self.due) * 1e3

    @property
    def in_time(self) -> Mask:
        """Which kept their deadline, or had none."""
        mask: Mask = ~(self.latency_ms > self.deadline_ms)
        return mask


_COLUMNS = tuple(one.name for one in fields(Table) if one.name != "span_s")
_TEXTS = frozenset({"tier", "reason", "cache", "form", "origin", "priority", "degraded"})


def measure(one: Measure, table: Table) -> float:
    """One figure."""
    return _MEASURES[one](table)


def _percentile(values: Vector, part: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, part)) if len(known) else float("nan")


def _mean(values: "np.ndarray[Any, Any]") -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _latency(part: float) -> Callable[[Table], float]:
    return lambda table: _percentile(table.latency_ms[table.answered], part)


def _first(part: float) -> Callable[[Table], float]:
    return lambda table: _percentile(((table.first - table.due) * 1e3)[table.answered], part)


def _column(name: str, part: float) -> Callable[[Table], float]:
    return lambda table: _percentile(getattr(table, name)[table.answered], part)


def _target(table: Table) -> float:
    rest = (table.ended - table.sent) * 1e3 - table.queue_ms - table.overhead_ms
    return _percentile(rest[table.answered], 50)


def _per_s(count: Callable[[Table], float]) -> Callable[[Table], float]:
    return lambda table: count(table) / table.span_s if table.span_s > 0 else float("nan")


def _good(table: Table) -> float:
    return float((table.answered & table.in_time & ~(table.right == 0)).sum())


def _failed(table: Table) -> float:
    return _mean(~(table.answered | np.isin(table.status, (*_REFUSED, _OUT_OF_TIME))))


def _missed(table: Table) -> float:
    bound = table.where(table.answered & np.isfinite(table.deadline_ms))
    return _mean(~bound.in_time)


def _of_answered(mask: Callable[[Table], Mask]) -> Callable[[Table], float]:
    return lambda table: _mean(mask(table)[table.answered])


def _drift(table: Table) -> float:
    answered = table.where(table.answered)
    quarter = len(answered) // 4
    if not quarter:
        return float("nan")
    order = np.argsort(answered.due)
    latency = answered.latency_ms[order]
    return _percentile(latency[-quarter:], 50) / _percentile(latency[:quarter], 50)


_MEASURES: Mapping[Measure, Callable[[Table], float]] = {
    Measure.LATENCY_MEAN_MS: lambda table: _mean(table.latency_ms[table.answered]),
    Measure.LATENCY_P50_MS: _latency(50),
    Measure.LATENCY_P95_MS: _latency(95),
    Measure.LATENCY_P99_MS: _latency(99),
    Measure.FIRST_TOKEN_P50_MS: _first(50),
    Measure.FIRST_TOKEN_P99_MS: _first(99),
    Measure.GAP_MEAN_MS: lambda table: _mean(table.gap_ms[table.answered]),
    Measure.LONGEST_GAP_P99_MS: _column("longest_gap_ms", 99),
    Measure.QUEUE_P50_MS: _column("queue_ms", 50),
    Measure.QUEUE_P99_MS: _column("queue_ms", 99),
    Measure.OVERHEAD_P50_MS: _column("overhead_ms", 50),
    Measure.OVERHEAD_P99_MS: _column("overhead_ms", 99),
    Measure.TARGET_P50_MS: _target,
    Measure.REQUESTS: lambda table: float(len(table)),
    Measure.OFFERED_PER_S: _per_s(lambda table: float(len(table))),
    Measure.ANSWERED_PER_S: _per_s(lambda table: float(table.answered.sum())),
    Measure.GOODPUT_PER_S: _per_s(_good),
    Measure.ACCURACY: lambda table: _mean(table.right[table.answered]),
    Measure.FAILED_SHARE: _failed,
    Measure.REFUSED_SHARE: lambda table: _mean(np.isin(table.status, _REFUSED)),
    Measure.EXPIRED_SHARE: lambda table: _mean(table.status == _OUT_OF_TIME),
    Measure.MISSED_SHARE: _missed,
    Measure.CLOUD_SHARE: _of_answered(lambda table: np.asarray(table.tier == "cloud")),
    Measure.CACHED_SHARE: _of_answered(lambda table: np.isin(table.cache, ("hit", "semantic"))),
    Measure.DEGRADED_SHARE: _of_answered(lambda table: np.asarray(table.degraded != "")),
    Measure.DRIFT: _drift,
    Measure.LATE_P99_MS: lambda table: _percentile(table.late_ms, 99),
}
