"""
Whether a score means what it says: of the questions with score 0.7, does the cloud gain on seven in ten?

    Brier        mean squared distance of the probability to the outcome (Brier 1950)
    Brier skill  1 - Brier / Brier of always saying the base rate; 0 knows nothing, 1 knows all
    ECE          expected calibration error over 15 equal-width bins (Guo et al. 2017)

Even a perfect predictor has an ECE above 0 on n questions; `expected_ece` says which.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from router.evaluation.metrics import RESAMPLES, Interval, Matrix, Vector, bootstrap

BINS = 15
_SIMULATIONS = 1000


class Bin(msgspec.Struct, frozen=True):
    """The questions whose score lies in one fifteenth of [0, 1]: how many, what was said, what came."""

    count: int
    mean_score: float
    gained_share: float


def measure_brier(gained: "np.ndarray[Any, Any]", score: Vector) -> float:
    """Mean squared distance to the outcomes."""
    return float(np.mean((score - gained) ** 2))


def measure_skill(
    gained: "np.ndarray[Any, Any]", score: Vector, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Brier skill over the base rate of the very questions it is measured on, taken anew in every replicate."""
    outcome = gained.astype(np.float64)
    errors = (score - outcome) ** 2

    def skill(weights: Matrix) -> Vector:
        count = weights.sum(1)
        rate = weights @ outcome / count
        known = rate * (1 - rate)
        return np.divide(
            known - weights @ errors / count, known, out=np.full(len(weights), np.nan), where=known > 1e-12
        )

    return bootstrap(skill, len(outcome), resamples=resamples, seed=seed)


def make_bins(gained: "np.ndarray[Any, Any]", score: Vector) -> list[Bin]:
    """The reliability diagram, empty bins left out."""
    places = _places(score)
    chosen = [places == place for place in range(BINS) if np.any(places == place)]
    return [Bin(int(rows.sum()), float(score[rows].mean()), float(gained[rows].mean())) for rows in chosen]


def measure_ece(bins: Sequence[Bin]) -> float:
    """Mean distance between what was said and what came, weighted by the bins' counts."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.mean_score - one.gained_share) for one in bins) / total


def expected_ece(score: Vector, *, simulations: int = _SIMULATIONS, seed: int = 0) -> Interval:
    """The ECE of a perfect predictor that said these scores: its mean, and where 95% of the simulations lie."""
    rng = np.random.default_rng(seed)
    places = _places(score)
    said = np.bincount(places, score, BINS)
    drawn = np.empty(simulations)
    for index in range(simulations):
        came = np.bincount(places, rng.random(len(score)) < score, BINS)
        drawn[index] = np.abs(said - came).sum() / len(score)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(drawn.mean()), float(low), float(high))


def _places(score: Vector) -> "np.ndarray[Any, np.dtype[np.intp]]":
    return np.minimum((score * BINS).astype(np.intp), BINS - 1)
