"""How load changes over a run: each shape is a level over time, in parts of the scenario's rate or users."""

import math
from typing import Annotated

from msgspec import Meta

from router.config.section import Seconds, Section, Share

Factor = Annotated[float, Meta(ge=0, le=1000)]


class Shape(Section, frozen=True, tag_field="kind"):
    """`level(at_s)` for 0 <= at_s < `duration_s`."""

    duration_s: Seconds

    def level(self, at_s: float) -> float:
        """In parts of the scenario's rate or users."""
        raise NotImplementedError

    @property
    def highest(self) -> float:
        """No level is above it."""
        raise NotImplementedError


class Steady(Shape, frozen=True, tag="steady"):
    """One level."""

    def level(self, at_s: float) -> float:
        """Always 1."""
        return 1.0

    @property
    def highest(self) -> float:
        """That."""
        return 1.0


class Soak(Steady, frozen=True, tag="soak"):
    """One level for long: its objectives compare the last quarter of the run with the first."""


class Ramp(Shape, frozen=True, tag="ramp"):
    """From one level to another, in a straight line."""

    start: Factor = 0.1
    end: Factor = 1.0

    def level(self, at_s: float) -> float:
        """On the line."""
        return self.start + (self.end - self.start) * at_s / self.duration_s

    @property
    def highest(self) -> float:
        """At one of its ends."""
        return max(self.start, self.end)


class Spike(Shape, frozen=True, tag="spike"):
    """Level 1, and `peak` for a while in the middle."""

    peak: Factor = 5.0
    part: Share = 0.1

    def level(self, at_s: float) -> float:
        """`peak` in the middle."""
        return self.peak if abs(at_s / self.duration_s - 0.5) < self.part / 2 else 1.0

    @property
    def highest(self) -> float:
        """Usually the peak."""
        return max(1.0, self.peak)


class Diurnal(Shape, frozen=True, tag="diurnal"):
    """Nights and days, made short: a wave from `night` up to 1 and back, `days` times."""

    night: Share = 0.2
    days: Annotated[int, Meta(ge=1)] = 2

    def level(self, at_s: float) -> float:
        """Lowest at the start, the end and between the days."""
        wave = (1 - math.cos(2 * math.pi * self.days * at_s / self.duration_s)) / 2
        return self.night + (1 - self.night) * wave

    @property
    def highest(self) -> float:
        """At noon."""
        return 1.0


class Overload(Shape, frozen=True, tag="overload"):
    """Level 1, then `factor` times that, then 1 again, a third of the time each: what it costs, and whether it ends."""

    factor: Factor = 3.0

    def level(self, at_s: float) -> float:
        """`factor` in the middle third."""
        return self.factor if 1 / 3 <= at_s / self.duration_s < 2 / 3 else 1.0

    @property
    def highest(self) -> float:
        """While overloaded, unless the factor is below 1."""
        return max(1.0, self.factor)


AnyShape = Steady | Soak | Ramp | Spike | Diurnal | Overload
