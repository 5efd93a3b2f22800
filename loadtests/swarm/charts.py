"""A run as drawings: numbers in, places in pixels out; the page draws axes and words around them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from loadtests.swarm.measures import Table, Vector
from router.evaluation.chart import Axis, Dot, Plane

WIDTH, HEIGHT = 720, 320
_LEFT, _BOTTOM, _MARGIN = 64, 44, 12
_MOST_BINS = 60
_PARTS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line; those that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn line; `style` numbers its colour."""

    name: str
    path: str
    style: int


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing."""

    title: str
    x_label: str
    y_label: str
    plane: Plane
    lines: Sequence[Line]
    dots: Sequence[Dot] = field(default_factory=list)


def draw_chart(
    title: str, x_label: str, y_label: str, series: Sequence[Series], dots: Sequence[tuple[float, float, str]] = ()
) -> Chart | None:
    """Lines and dots on common axes; None where there is nothing to draw."""
    known = [(one.name, *_known(one)) for one in series]
    xs = [x for _, line, _ in known for x in line] + [x for x, _, _ in dots]
    ys = [y for _, _, line in known for y in line] + [y for _, y, _ in dots]
    if not xs:
        return None
    plane = Plane(
        Axis(*_widen(min(xs), max(xs)), _LEFT, WIDTH - _MARGIN),
        Axis(*_widen(min(ys), max(ys)), HEIGHT - _BOTTOM, _MARGIN),
    )
    lines = [Line(name, plane.line(x, y), number) for number, (name, x, y) in enumerate(known) if x]
    placed = [Dot(plane.x.place(x), plane.y.place(y), 6, name) for x, y, name in dots]
    return Chart(title, x_label, y_label, plane, lines, placed)


def draw_run(table: Table) -> Iterator[Chart]:
    """Load, latency over time, latency of each tier and the generator's lateness."""
    edges = _edges(table)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    width_s = float(edges[1] - edges[0])
    answered = table.where(table.answered)
    load = [
        Series("due", middles, _count(table.due, edges, width_s)),
        Series("answered", middles, _count(answered.ended, edges, width_s)),
    ]
    yield from _drawn("Load", "seconds from the start", "requests/s", load)
    latency = [
        Series(f"p{part}", middles, _percentiles(answered.due, answered.latency_ms, edges, part)) for part in (50, 99)
    ]
    yield from _drawn("Latency by when a request was due", "seconds from the start", "ms", latency)
    tiers = [
        Series(name, np.quantile(group.latency_ms, _PARTS).tolist(), _PARTS.tolist())
        for name, group in answered.groups("tier")
    ]
    yield from _drawn("Latency by tier", "ms", "part of its answers", tiers)
    late = [Series("p99", middles, _percentiles(table.due, table.late_ms, edges, 99))]
    yield from _drawn("How late the generator was", "seconds from the start", "ms", late)


def _drawn(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> Iterator[Chart]:
    chart = draw_chart(title, x_label, y_label, series)
    if chart is not None:
        yield chart


def _known(series: Series) -> tuple[list[float], list[float]]:
    pairs = [(x, y) for x, y in zip(series.x, series.y, strict=True) if np.isfinite(x) and np.isfinite(y)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _widen(low: float, high: float) -> tuple[float, float]:
    """Down to zero where that is near, and never empty."""
    low = 0.0 if 0 < low < 0.5 * high else low
    room = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return low - (room if low else 0.0), high + room


def _edges(table: Table) -> Vector:
    end = float(np.nanmax(table.ended)) if len(table) else 1.0
    start = min(float(table.due.min()), 0.0) if len(table) else 0.0
    bins = int(np.clip(len(table) // 20, 5, _MOST_BINS))
    return np.linspace(start, end, bins + 1)


def _count(at: Vector, edges: Vector, width_s: float) -> list[float]:
    counts: list[float] = (np.histogram(at, edges)[0] / width_s).tolist()
    return counts


def _percentiles(at: Vector, values: Vector, edges: Vector, part: float) -> list[float]:
    bins = np.digitize(at, edges[1:-1])
    found = [values[bins == index] for index in range(len(edges) - 1)]
    return [float(np.percentile(one, part)) if len(one) else float("nan") for one in found]
