"""Everything that an evaluation says of one artifact's scores on labelled rows: numbers only, for a table or a page."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.evaluation.errors import EvaluationError
from router.evaluation.metrics import (
    Interval,
    Quality,
    Sample,
    Vector,
    assess,
    compare,
    domain_napgr,
    draw_weights,
    quality_at,
    share_reaching,
    within_domains,
)
from router.evaluation.reliability import Bin, expected_ece, make_bins, measure_ece, measure_skill
from router.scoring import Evidence, Score
from router.scoring.dataset import Row

SHARES = tuple(step / 100 for step in range(101))
_WANTED_SHARES = tuple(step / 10 for step in range(1, 10))
_WANTED_QUALITIES = (0.8, 0.9, 0.95, 0.98, 0.99)
_BAND_RESAMPLES = 400
_FEWEST_ROWS = 20
_PROMPT_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Band:
    """Mean quality at each of `SHARES`, and its pointwise 95% interval."""

    value: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, slots=True)
class Curves:
    """Quality against cloud share, at each of `SHARES`; `random` is the straight line between the tiers."""

    routed: Band
    length: list[float]
    oracle: list[float]
    random: list[float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether the scores are the probabilities that they claim to be."""

    skill: Interval
    ece: float
    ece_of_perfect: Interval
    bins: list[Bin]


@dataclass(frozen=True, slots=True)
class DomainLine:
    """One domain at the evaluated threshold."""

    domain: str
    rows: int
    edge: float
    cloud: float
    routed: float
    share: float
    napgr: float


@dataclass(frozen=True, slots=True)
class Regret:
    """A row on which the threshold chose the worse answer."""

    id: str
    domain: str
    prompt: str
    score: float
    gain: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A threshold, and what it does on these rows; `of_cloud` is quality over the cloud's."""

    wanted: str
    threshold: float
    share: float
    quality: float
    of_cloud: float


@dataclass(frozen=True, slots=True)
class Assessment:
    """One artifact on one set of rows. `known_rows` of them were there when it was fitted."""

    rows: int
    known_rows: int
    edge: float
    cloud: float
    threshold: float
    share: float
    routed: float
    evidence: Mapping[str, int]
    quality: Quality
    length_quality: Quality
    above_length: Interval
    within_domains: Interval
    curves: Curves
    calibration: Calibration
    domains: list[DomainLine]
    missed: list[Regret]
    wasted: list[Regret]
    suggestions: list[Suggestion]


def assess_scores(
    rows: Sequence[Row], scores: Sequence[Score], *, threshold: float = 0.5, known_rows: int = 0, regrets: int = 12
) -> Assessment:
    """Everything at once; some seconds for 10,000 rows.

    Args:
        rows: Labelled prompts.
        scores: One a row, in their order.
        threshold: Scores from here up go to the cloud.
        known_rows: How many of the rows the artifact was fitted on.
        regrets: How many rows of each kind of mistake are named.

    Raises:
        EvaluationError: there are too few rows, or the cloud is not better on them.
    """
    if len(rows) < _FEWEST_ROWS:
        raise EvaluationError(f"{len(rows)} rows are too few to say anything; give at least {_FEWEST_ROWS}")
    sample = make_sample(rows)
    score = np.array([one.value for one in scores])
    length = prompt_lengths(rows)
    to_cloud = score >= threshold
    return Assessment(
        rows=len(rows),
        known_rows=known_rows,
        edge=float(sample.edge.mean()),
        cloud=float(sample.cloud.mean()),
        threshold=threshold,
        share=float(to_cloud.mean()),
        routed=float(np.where(to_cloud, sample.cloud, sample.edge).mean()),
        evidence=_count_evidence(scores),
        quality=assess(sample, score),
        length_quality=assess(sample, length),
        above_length=compare(sample, score, length),
        within_domains=within_domains(sample, score, [row.domain for row in rows]),
        curves=_draw_curves(sample, score, length),
        calibration=check_calibration(sample, score),
        domains=_split_domains(rows, sample, score, threshold),
        missed=_list_regrets(rows, score, np.flatnonzero(~to_cloud & (sample.gain > 0)), regrets, surest=1),
        wasted=_list_regrets(rows, score, np.flatnonzero(to_cloud & (sample.gain <= 0)), regrets, surest=-1),
        suggestions=suggest_thresholds(sample, score),
    )


def make_sample(rows: Sequence[Row]) -> Sample:
    """The labels of rows."""
    return Sample.of([row.weak_correct for row in rows], [row.strong_correct for row in rows])


def prompt_lengths(rows: Sequence[Row]) -> Vector:
    """The baseline that needs no training: characters of the whole conversation."""
    return np.array([float(len(row.prompt) or sum(len(turn.content) for turn in row.messages)) for row in rows])


def check_calibration(sample: Sample, score: Vector) -> Calibration:
    """Skill, calibration error, and the error that a perfect predictor would have on as many rows."""
    bins = make_bins(sample.gained, score)
    return Calibration(measure_skill(sample.gained, score), measure_ece(bins), expected_ece(score), bins)


def suggest_thresholds(sample: Sample, score: Vector) -> list[Suggestion]:
    """Thresholds for wanted cloud shares, then for wanted parts of the cloud's quality."""
    found = [(f"{share:.0%} to the cloud", share) for share in _WANTED_SHARES]
    cloud = float(sample.cloud.mean())
    for part in _WANTED_QUALITIES:
        share = share_reaching(sample, score, part * cloud)
        if share is not None:
            found.append((f"{part:.0%} of the cloud's quality", share))
    return [_suggest(sample, score, wanted, share) for wanted, share in found]


def _suggest(sample: Sample, score: Vector, wanted: str, share: float) -> Suggestion:
    """Halfway between the last score that goes to the cloud and the next; above all scores when none does."""
    count = math.ceil(round(share * len(score), 6))
    falling = np.concatenate(([1.0], np.sort(score)[::-1], [0.0]))
    threshold = float((falling[count] + falling[count + 1]) / 2)
    to_cloud = score >= threshold
    quality = float(np.where(to_cloud, sample.cloud, sample.edge).mean())
    return Suggestion(wanted, threshold, float(to_cloud.mean()), quality, quality / float(sample.cloud.mean()))


def _draw_curves(sample: Sample, score: Vector, length: Vector) -> Curves:
    shares, once = np.array(SHARES), np.ones((1, len(sample)))

    def draw(order: Vector) -> list[float]:
        line: list[float] = quality_at(sample, order, shares, once)[0].tolist()
        return line

    drawn = np.concatenate(
        [quality_at(sample, score, shares, w) for w in draw_weights(len(sample), _BAND_RESAMPLES, seed=0)]
    )
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    band = Band(draw(score), low.tolist(), high.tolist())
    return Curves(band, draw(length), draw(sample.gain), draw(np.zeros(len(sample))))


def _split_domains(rows: Sequence[Row], sample: Sample, score: Vector, threshold: float) -> list[DomainLine]:
    names = np.array([row.domain for row in rows])
    lines = []
    for name in sorted(set(names.tolist())):
        at = np.flatnonzero(names == name)
        part, to_cloud = sample.take(at), score[at] >= threshold
        lines.append(
            DomainLine(
                name or "(none)",
                len(at),
                float(part.edge.mean()),
                float(part.cloud.mean()),
                float(np.where(to_cloud, part.cloud, part.edge).mean()),
                float(to_cloud.mean()),
                float(domain_napgr(part, score[at], np.ones((1, len(at))))[0]),
            )
        )
    return lines


def _list_regrets(
    rows: Sequence[Row], score: Vector, wrong: "np.ndarray[Any, Any]", most: int, *, surest: int
) -> list[Regret]:
    """The rows among `wrong` on which the score was surest; `surest` is 1 for low scores and -1 for high ones."""
    worst = wrong[np.argsort(surest * score[wrong], kind="stable")][:most]
    return [
        Regret(rows[at].id, rows[at].domain, shorten(rows[at]), float(score[at]), rows[at].gain)
        for at in worst.tolist()
    ]


def shorten(row: Row) -> str:
    """The last words of the user on one line of bounded length."""
    return textwrap.shorten(row.conversation().text[: 4 * _PROMPT_CHARACTERS], _PROMPT_CHARACTERS, placeholder=" …")


def _count_evidence(scores: Sequence[Score]) -> dict[str, int]:
    counts = Counter(score.evidence.value for score in scores)
    return {kind.value: counts[kind.value] for kind in Evidence if counts[kind.value]}
