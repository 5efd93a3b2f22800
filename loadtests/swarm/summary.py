"""A run's figures: of all requests, and by tier, reason, cache, form, question and priority."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtests.swarm.measures import Measure, Table, measure

COLUMNS = ("tier", "reason", "cache", "form", "origin", "priority")
SHOWN: dict[Measure, str] = {
    Measure.REQUESTS: "n",
    Measure.ANSWERED_PER_S: "/s",
    Measure.ACCURACY: "right",
    Measure.CLOUD_SHARE: "cloud",
    Measure.LATENCY_P50_MS: "p50 ms",
    Measure.LATENCY_P99_MS: "p99 ms",
    Measure.FIRST_TOKEN_P50_MS: "first",
    Measure.GAP_MEAN_MS: "gap",
    Measure.QUEUE_P99_MS: "queue p99",
    Measure.OVERHEAD_P50_MS: "router p50",
    Measure.TARGET_P50_MS: "target p50",
    Measure.REFUSED_SHARE: "refused",
    Measure.EXPIRED_SHARE: "expired",
    Measure.MISSED_SHARE: "missed",
    Measure.FAILED_SHARE: "failed",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One group of requests; NaN where there is nothing to measure."""

    column: str
    value: str
    figures: dict[Measure, float]

    @property
    def name(self) -> str:
        """Of the group."""
        return f"{self.column} {self.value}" if self.column else "all"


def summarise(table: Table) -> list[Line]:
    """All first; a column with one value only says nothing new and is left out."""
    lines = [_line("", "", table)]
    for column in COLUMNS:
        groups = list(table.groups(column))
        if len(groups) > 1:
            lines += [_line(column, value, group) for value, group in groups]
    return lines


def print_lines(lines: Sequence[Line]) -> Iterator[str]:
    """The table as text."""
    rows = [["", *SHOWN.values()]]
    rows += [[line.name, *(spell(line.figures[one]) for one in SHOWN)] for line in lines]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([first.strip().ljust(widths[0]), *others])


def spell(value: float) -> str:
    """Short; a dash for NaN."""
    if math.isnan(value):
        return "-"
    if value == round(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _line(column: str, value: str, table: Table) -> Line:
    return Line(column, value, {one: measure(one, table) for one in Measure})
