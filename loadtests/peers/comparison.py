"""Values of interleaved turns, set beside each other repeat by repeat: the median, and how far they spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the repeats, their least and their most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """
        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("a spread needs a value")
        return cls(median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        """`median [least, most]`, each by the format that a number would get."""
        return f"{self.median:{spec}} [{self.least:{spec}}, {self.most:{spec}}]"


def compare_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours / theirs, of each repeat.

    Raises:
        ValueError: one side has more repeats, or none, or a repeat of theirs is zero.
    """
    pairs = list(zip(ours, theirs, strict=True))
    if any(their == 0 for _, their in pairs):
        raise ValueError("a ratio to nothing")
    return Spread.of([our / their for our, their in pairs])


def compare_differences(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours - theirs, of each repeat.

    Raises:
        ValueError: one side has more repeats, or none.
    """
    return Spread.of([our - their for our, their in zip(ours, theirs, strict=True)])
