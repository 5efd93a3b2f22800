"""
How well scores order questions between two models, after RouteLLM (Ong et al. 2024, arXiv:2406.18665, section 3.2).

The questions are ordered by falling score; the first k of N go to the cloud. With c = k/N, and r(c) the mean quality
of the routed answers:

    PGR(c)   (r(c) - r(0)) / (r(1) - r(0)), the performance gap recovered
    APGR     the area under PGR over c in [0, 1], exact; 0.5 for a random order
    CPT(x)   the smallest c with PGR(c) >= x, by linear interpolation
    AUROC    P(a question on which the cloud gains scores above one on which it does not), ties one half
    ORACLE   the APGR of the order by true gain: the ceiling for this pair of models
    NAPGR    (APGR - 0.5) / (ORACLE - 0.5): 0 random, 1 the ceiling; comparable between pairs
    CALLS95  the smallest c with r(c) >= 0.95 r(1)

Equal scores stand for a random order, in expectation. A bootstrap replicate is a row of weights, how often each
question was drawn, so that thousands of replicates are a few cumulative sums over one sorted order.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from router.evaluation.errors import EvaluationError

Vector = np.ndarray[Any, np.dtype[np.float64]]
Matrix = np.ndarray[Any, np.dtype[np.float64]]

RESAMPLES = 1000
_LEVEL = 0.95
_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95% bootstrap interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Sample:
    """Questions with the quality of both answers, shape [n] each; higher is better."""

    edge: Vector
    cloud: Vector

    @classmethod
    def of(cls, edge: Sequence[float], cloud: Sequence[float]) -> "Sample":
        """Plain numbers as a sample."""
        return cls(np.asarray(edge, np.float64), np.asarray(cloud, np.float64))

    def __len__(self) -> int:
        return len(self.edge)

    @property
    def gain(self) -> Vector:
        """How much better the cloud's answer is."""
        return self.cloud - self.edge

    @property
    def gained(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Whether the cloud's answer is better: what a score is the probability of."""
        better: np.ndarray[Any, np.dtype[np.bool_]] = self.cloud > self.edge
        return better

    def take(self, rows: "np.ndarray[Any, Any]") -> "Sample":
        """Some of the questions, by index or mask."""
        return Sample(self.edge[rows], self.cloud[rows])


@dataclass(frozen=True, slots=True)
class Measures:
    """Every measure, one value a replicate: shape [replicates]. NaN where a replicate does not define it."""

    apgr: Vector
    cpt50: Vector
    cpt80: Vector
    auroc: Vector
    oracle: Vector
    napgr: Vector
    calls95: Vector


@dataclass(frozen=True, slots=True)
class Quality:
    """Every measure with its interval."""

    apgr: Interval
    cpt50: Interval
    cpt80: Interval
    auroc: Interval
    oracle: Interval
    napgr: Interval
    calls95: Interval


@dataclass(frozen=True, slots=True)
class _Curve:
    """Gain against cloud calls: knots of a piecewise linear function, shape [replicates, knots], from (0, 0)."""

    calls: Matrix
    gains: Matrix

    @property
    def area(self) -> Vector:
        """Under the curve, as share of calls times total gain; NaN where nothing was drawn."""
        heights = (self.gains[:, 1:] + self.gains[:, :-1]) / 2
        return _divide((heights * np.diff(self.calls, axis=1)).sum(1), self.calls[:, -1])

    def first_reaching(self, wanted: Vector) -> Vector:
        """The smallest share of calls at which the gain is at least `wanted`; NaN where it never is."""
        hit = self.gains >= wanted[:, None]
        row = np.arange(len(hit))
        at = hit.argmax(1)
        before = np.maximum(at - 1, 0)
        low, high = self.gains[row, before], self.gains[row, at]
        part = np.divide(wanted - low, high - low, out=np.zeros_like(low), where=high > low)
        calls = self.calls[row, before] + part * (self.calls[row, at] - self.calls[row, before])
        return np.where(hit.any(1), np.where(at == 0, 0.0, calls / self.calls[:, -1]), np.nan)

    def at(self, share: Vector) -> Matrix:
        """The gain at shares of calls, shape [replicates, shares]."""
        wanted = share[None, :] * self.calls[:, -1:]
        pairs = zip(wanted, self.calls, self.gains, strict=True)
        return np.stack([np.interp(one, calls, gains) for one, calls, gains in pairs])


class _Order:
    """Questions by falling score, runs of equal scores together."""

    def __init__(self, score: Vector) -> None:
        self._order = np.argsort(-score, kind="stable")
        ordered = score[self._order]
        self._starts = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1))

    def sums(self, weights: Matrix) -> Matrix:
        """Sums of each run of ties, shape [replicates, runs]."""
        sums: Matrix = np.add.reduceat(weights[:, self._order], self._starts, axis=1)
        return sums

    def curve(self, weights: Matrix, gain: Vector) -> _Curve:
        """What the calls bring when they are spent in this order."""
        return _Curve(_cumulate(self.sums(weights)), _cumulate(self.sums(weights * gain)))


def measure_ordering(sample: Sample, score: Vector, weights: Matrix) -> Measures:
    """Every measure of one score.

    Args:
        sample: n questions.
        score: Shape [n]; higher means rather the cloud.
        weights: Shape [replicates, n]: how often each question counts.
    """
    gain, order = sample.gain, _Order(score)
    curve, best = order.curve(weights, gain), _Order(gain).curve(weights, gain)
    gap = curve.gains[:, -1]
    defined = gap > 0
    scale = np.where(defined, gap, np.nan)
    edge, cloud = weights @ sample.edge, weights @ sample.cloud
    return Measures(
        apgr=curve.area / scale,
        cpt50=_where(defined, curve.first_reaching(0.5 * gap)),
        cpt80=_where(defined, curve.first_reaching(0.8 * gap)),
        auroc=_auroc(order.sums(weights * sample.gained), order.sums(weights * ~sample.gained)),
        oracle=best.area / scale,
        napgr=_where(defined, _normalise(curve.area, best.area, gap)),
        calls95=_where(defined, curve.first_reaching(0.95 * cloud - edge)),
    )


def assess(sample: Sample, score: Vector, *, resamples: int = RESAMPLES, seed: int = 0) -> Quality:
    """Every measure with a percentile bootstrap over questions.

    Raises:
        EvaluationError: the cloud is not better on this sample, so that no gap can be recovered.
    """
    if not sample.gain.sum() > 0:
        raise EvaluationError("the cloud's answers are no better than the edge's on these rows: no gap to recover")
    point = measure_ordering(sample, score, np.ones((1, len(sample))))
    drawn = [measure_ordering(sample, score, weights) for weights in draw_weights(len(sample), resamples, seed)]
    values = {
        one.name: interval(getattr(point, one.name)[0], np.concatenate([getattr(m, one.name) for m in drawn]))
        for one in fields(Measures)
    }
    return Quality(**values)


def compare(
    sample: Sample,
    score: Vector,
    other: Vector,
    measure: Callable[[Measures], Vector] = lambda measures: measures.apgr,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """How far `score` lies above `other` in one measure: a paired bootstrap, both on the same drawn questions."""

    def difference(weights: Matrix) -> Vector:
        ours, theirs = (measure_ordering(sample, one, weights) for one in (score, other))
        return measure(ours) - measure(theirs)

    return bootstrap(difference, len(sample), resamples=resamples, seed=seed)


def within_domains(
    sample: Sample, score: Vector, domains: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of NAPGR over domains: what the score knows beyond the topic. See `domain_napgr`."""
    names = np.asarray(domains)
    groups = [np.flatnonzero(names == name) for name in sorted(set(domains))]

    def macro(weights: Matrix) -> Vector:
        each = np.stack([domain_napgr(sample.take(rows), score[rows], weights[:, rows]) for rows in groups])
        known = np.isfinite(each)
        sums = np.where(known, each, 0.0).sum(0)
        return _divide(sums, known.sum(0))

    return bootstrap(macro, len(sample), resamples=resamples, seed=seed)


def domain_napgr(sample: Sample, score: Vector, weights: Matrix) -> Vector:
    """
    NAPGR per replicate, also where the domain's gap is zero or negative.

    The gap cancels out of NAPGR, so it stays in [-1, 1] without it; NaN only where all gains are equal and there is
    nothing to order.
    """
    gain = sample.gain
    curve, best = _Order(score).curve(weights, gain), _Order(gain).curve(weights, gain)
    return _normalise(curve.area, best.area, curve.gains[:, -1])


def quality_at(sample: Sample, score: Vector, shares: Vector, weights: Matrix) -> Matrix:
    """Mean quality of the routed answers at shares of cloud calls, shape [replicates, shares]."""
    curve = _Order(score).curve(weights, sample.gain)
    edge = weights @ sample.edge
    quality: Matrix = (edge[:, None] + curve.at(shares)) / weights.sum(1, keepdims=True)
    return quality


def share_reaching(sample: Sample, score: Vector, quality: float) -> float | None:
    """The smallest cloud share at which the mean quality is at least `quality`; None where it never is."""
    curve = _Order(score).curve(np.ones((1, len(sample))), sample.gain)
    share = float(curve.first_reaching(np.array([quality * len(sample) - sample.edge.sum()]))[0])
    return share if np.isfinite(share) else None


def bootstrap(
    statistic: Callable[[Matrix], Vector], count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """A statistic of weights (shape [replicates, count] to [replicates]) with its percentile interval."""
    drawn = np.concatenate([statistic(weights) for weights in draw_weights(count, resamples, seed)])
    return interval(statistic(np.ones((1, count)))[0], drawn)


def draw_weights(count: int, resamples: int, seed: int) -> Iterator[Matrix]:
    """Bootstrap replicates in chunks of bounded size, the same for the same seed."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // count)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        rows = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(size)]
        yield np.asarray(rows, np.float64)


def interval(value: float, drawn: Vector) -> Interval:
    """A value between the percentiles of its replicates; undefined replicates are left out."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return Interval(float(value), float("nan"), float("nan"))
    tail = 50 * (1 - _LEVEL)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


def _auroc(positive: Matrix, negative: Matrix) -> Vector:
    below = negative.sum(1, keepdims=True) - np.cumsum(negative, axis=1)
    won = (positive * (below + negative / 2)).sum(1)
    pairs = positive.sum(1) * negative.sum(1)
    return _divide(won, pairs)


def _normalise(area: Vector, best: Vector, gap: Vector) -> Vector:
    room = best - gap / 2
    return _divide(area - gap / 2, np.where(room > 1e-9, room, 0.0))


def _divide(above: Vector, below: Vector) -> Vector:
    """NaN where `below` is not positive."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _where(defined: "np.ndarray[Any, np.dtype[np.bool_]]", values: Vector) -> Vector:
    return np.where(defined, values, np.nan)


def _cumulate(sums: Matrix) -> Matrix:
    return np.concatenate((np.zeros((len(sums), 1)), np.cumsum(sums, axis=1)), axis=1)
