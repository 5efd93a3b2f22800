"""How much the cloud would gain over the edge: the seam, and the scorer to use when there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from router.query import Query


@dataclass(frozen=True, slots=True)
class Explanation:
    """A score, and what each signal added to it (in log-odds, the largest first)."""

    score: float
    signals: Mapping[str, float]


class Scorer(Protocol):
    """Estimates, before any generation, the probability in [0, 1] that the cloud's answer is better than the edge's."""

    async def score(self, query: Query) -> float:
        """The probability."""
        ...

    def explain(self, query: Query) -> Explanation:
        """The same probability with its parts."""
        ...


class UnknownScorer:
    """Knows nothing, and says so: 0.5."""

    async def score(self, query: Query) -> float:
        """Always 0.5."""
        return self.explain(query).score

    def explain(self, query: Query) -> Explanation:
        """Always 0.5, from no signal."""
        return Explanation(0.5, {})
