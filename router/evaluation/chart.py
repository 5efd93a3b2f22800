"""Numbers as places of an SVG drawing; the page's template draws axes and words around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_WANTED_TICKS = 5


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, in pixels, and what stands beside it."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A circle in pixels, and what it says when it is pointed at."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from values `low`..`high` to pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """A value's pixel."""
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        """Some five round values."""
        raw = (self.high - self.low) / _WANTED_TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(s * power for s in _STEPS if s * power >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [Tick(self.place(k * step), f"{k * step:.4g}") for k in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Plane:
    """Two axes."""

    x: Axis
    y: Axis

    def line(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """An SVG path through points."""
        return "M" + "L".join(self._points(xs, ys))

    def area(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
        """An SVG path around what lies between two lines."""
        return "M" + "L".join([*self._points(xs, high), *reversed(self._points(xs, low))]) + "Z"

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> list[str]:
        return [f"{self.x.place(x)} {self.y.place(y)}" for x, y in zip(xs, ys, strict=True)]


def make_plane(
    *, width: float, height: float, low: float, high: float, left: float = 56, bottom: float = 44, margin: float = 12
) -> Plane:
    """A plane whose x runs over [0, 1] and whose y covers `low`..`high` with a little room."""
    room = 0.04 * (high - low) or 0.04
    return Plane(Axis(0.0, 1.0, left, width - margin), Axis(low - room, high + room, height - bottom, margin))
