"""
Whether choosing a tier for each question beats a coin: accuracy against latency, beside fixed mixes of the two tiers.

A coin that picks one of two mixes has the weighted mean of their accuracies and of their mean latencies, so every point
between two measured mixes can be had without looking at a question. Routing is compared with the upper hull of them
all. Means mix like that, and medians or 99th percentiles do not: so latency is judged by its mean.

Arms are asked the same questions at the same times. Questions near each other wait for the same things, and what else
the machine does lasts longer than that: so intervals are bootstraps in two stages (Davison and Hinkley, Bootstrap
Methods, 1997, 3.8), over rounds, and over slices of neighbours within each; the same for all arms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from loadtests.swarm.measures import Table, Vector
from loadtests.swarm.strain import Strain, average_strains, list_strains
from router.evaluation.metrics import RESAMPLES, Interval, Matrix, interval

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
        """What was wrong with the generator, over all turns."""
        strains = [average_strains(self.strains)] if self.strains else []
        return list(list_strains(strains, self.table))

    def totals(self) -> list[Matrix]:
        """Of each turn's slices: questions, right answers (none is not right), ms since they were due; [slices, 3]."""
        return [_slice(turn) for turn in self.turns]

    def accuracy(self) -> Interval:
        """Of all questions."""
        return _bootstrap([self], lambda accuracies, _: accuracies[:, 0])

    def latency_ms(self) -> Interval:
        """The mean."""
        return _bootstrap([self], lambda _, latencies: latencies[:, 0])


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

    def statistic(accuracies: Matrix, latencies: Matrix) -> Vector:
        rows = zip(accuracies.tolist(), latencies.tolist(), strict=True)
        return np.array(
            [gained(right[0], slow[0], list(zip(right[1:], slow[1:], strict=True))) for right, slow in rows]
        )

    return _bootstrap([routed, *fixed], statistic)


def _bootstrap(arms: Sequence[Arm], statistic: Callable[[Matrix, Matrix], Vector]) -> Interval:
    """A statistic of accuracies and mean latencies, [replicates, arms] each."""
    totals = [arm.totals() for arm in arms]
    weights = _draw_weights([len(turn) for turn in totals[0]])
    sums = np.stack([weights @ np.concatenate(turns) for turns in totals], axis=1)
    drawn = statistic(sums[:, :, 1] / sums[:, :, 0], sums[:, :, 2] / sums[:, :, 0])
    return interval(float(drawn[0]), drawn[1:])


def _draw_weights(slices: Sequence[int]) -> Matrix:
    """How often each slice counts, [1 + replicates, slices]: once each, then as drawn; `slices` of each round."""
    rng = np.random.default_rng(0)
    ends = list(accumulate(slices))
    weights = np.zeros((1 + RESAMPLES, ends[-1]))
    weights[0] = 1
    for row in weights[1:]:
        for turn in rng.integers(0, len(slices), len(slices)):
            count = slices[turn]
            row[ends[turn] - count : ends[turn]] += np.bincount(rng.integers(0, count, count), minlength=count)
    return weights


def _slice(turn: Table) -> Matrix:
    right = np.where(turn.answered, np.nan_to_num(turn.right), 0.0)
    columns = np.stack([np.ones(len(turn)), right, turn.latency_ms], axis=1)
    parts = np.array_split(columns, max(round(len(turn) / SLICE), 1))
    return np.array([part.sum(0) for part in parts])


def _only(arm: Arm, place: int) -> Arm:
    return Arm(arm.name, arm.per_s, [arm.turns[place]])
