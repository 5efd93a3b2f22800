"""
Whether choosing a tier for each question beats a coin: accuracy against latency, beside fixed mixes of the two tiers.

A coin that picks one of two mixes has the weighted mean of their accuracies and of their mean latencies, so every point
between two measured mixes can be had without looking at a question. Routing is compared with the upper hull of them
all. Means mix like that, and medians or 99th percentiles do not: so latency is judged by its mean.

Arms are asked the same questions at the same times. Questions near each other wait for the same things, so intervals
are bootstraps over slices of neighbours, drawn for all arms alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.swarm.measures import Table, Vector
from loadtests.swarm.strain import Strain, list_strains
from router.evaluation.metrics import Interval, Matrix, bootstrap

SLICE = 25
"""Questions: some three seconds at the rates of the demo."""


@dataclass(frozen=True)
class Arm:
    """What one way of choosing a tier gave."""

    name: str
    per_s: Sequence[float]
    """Throughput in each turn of the closed loop."""
    turns: Sequence[Table]
    """Of the open loop; questions by number. The same questions in every arm's turn of that place."""
    strains: Sequence[Strain] = ()

    @property
    def table(self) -> Table:
        """All turns of the open loop."""
        return Table.join(self.turns)

    def complaints(self) -> list[str]:
        """What was wrong with the generator."""
        return list(list_strains(self.strains, self.table))

    def totals(self) -> Matrix:
        """Of each slice: questions, right answers (none is not right), ms from when they were due; [slices, 3]."""
        return np.concatenate([_slice(turn) for turn in self.turns])

    def accuracy(self) -> Interval:
        """Of all questions."""
        totals = self.totals()
        return bootstrap(lambda weights: _means(weights, totals)[0], len(totals))

    def latency_ms(self) -> Interval:
        """The mean."""
        totals = self.totals()
        return bootstrap(lambda weights: _means(weights, totals)[1], len(totals))


def best_mix(points: Sequence[tuple[float, float]], cost: float) -> float:
    """The most value that a mixture of points (cost, value) has at a mean cost of at most `cost`.

    Where every point costs more, the cheapest one's value.
    """
    values = [value for at, value in points if at <= cost]
    for low, low_value in points:
        for high, high_value in points:
            if low <= cost < high:
                values.append(low_value + (high_value - low_value) * (cost - low) / (high - low))
    return max(values) if values else min(points)[1]


def accuracy_above(routed: Arm, fixed: Sequence[Arm]) -> Interval:
    """How much more accurate routing is than the best fixed mix that is no slower in the mean."""

    def gained(accuracy: float, latency: float, points: Sequence[tuple[float, float]]) -> float:
        return accuracy - best_mix([(slow, right) for right, slow in points], latency)

    return _compare(routed, fixed, gained)


def latency_below(routed: Arm, fixed: Sequence[Arm]) -> Interval:
    """How many ms faster in the mean routing is than the fastest fixed mix that is no less accurate."""

    def gained(accuracy: float, latency: float, points: Sequence[tuple[float, float]]) -> float:
        return -best_mix([(-right, -slow) for right, slow in points], -accuracy) - latency

    return _compare(routed, fixed, gained)


def in_turns(measure: Callable[[Arm, Sequence[Arm]], Interval], routed: Arm, fixed: Sequence[Arm]) -> list[float]:
    """A comparison's value in each turn by itself."""
    return [
        measure(_only(routed, place), [_only(arm, place) for arm in fixed]).value for place in range(len(routed.turns))
    ]


def _compare(
    routed: Arm, fixed: Sequence[Arm], gained: Callable[[float, float, Sequence[tuple[float, float]]], float]
) -> Interval:
    """`gained` takes routing's accuracy and mean latency, and those of every fixed mix."""
    own, others = routed.totals(), [arm.totals() for arm in fixed]

    def statistic(weights: Matrix) -> Vector:
        accuracy, latency = _means(weights, own)
        points = [_means(weights, other) for other in others]
        rows = range(len(weights))
        return np.array(
            [gained(accuracy[n], latency[n], [(right[n], slow[n]) for right, slow in points]) for n in rows]
        )

    return bootstrap(statistic, len(own))


def _means(weights: Matrix, totals: Matrix) -> tuple[Vector, Vector]:
    """Accuracy and mean latency, shape [replicates] each; weights are of slices."""
    sums = weights @ totals
    return sums[:, 1] / sums[:, 0], sums[:, 2] / sums[:, 0]


def _slice(turn: Table) -> Matrix:
    right = np.where(turn.answered, np.nan_to_num(turn.right), 0.0)
    columns = np.stack([np.ones(len(turn)), right, turn.latency_ms], axis=1)
    parts = np.array_split(columns, max(round(len(turn) / SLICE), 1))
    return np.array([part.sum(0) for part in parts])


def _only(arm: Arm, place: int) -> Arm:
    return Arm(arm.name, arm.per_s, [arm.turns[place]])
