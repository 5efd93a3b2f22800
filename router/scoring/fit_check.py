"""
Fits the answer check on labelled rows and the edge's answers to them: logistic regressions whose L2 is chosen by
cross-validation and whose slope and offset are set on out-of-fold predictions (Platt 1999). Deterministic.

Needs scikit-learn (the extra `fit`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from router.scoring import EdgeAnswer
from router.scoring.answer_check import FARTHEST, STAGE_ONE, CheckModel, Head, Heads, SignalWeight, logit
from router.scoring.answer_signals import read_signals
from router.scoring.dataset import Row

Labelled = tuple[Row, EdgeAnswer, float]
Vector = np.ndarray[Any, np.dtype[np.float64]]
Identities = np.ndarray[Any, np.dtype[np.str_]]
Folds = np.ndarray[Any, np.dtype[np.int64]]
_FOLDS = 5
_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_CHARACTERS_PER_TOKEN = 4
_FEWEST = 20
_SMALLEST_SCALE = 1e-3


@dataclass(frozen=True, slots=True)
class Examples:
    """Signals [examples, names], NaN where absent; outcomes; and row ids, by which folds are dealt."""

    names: tuple[str, ...]
    signals: Vector
    gained: Vector
    rows: Identities

    def take(self, chosen: "np.ndarray[Any, np.dtype[np.bool_]]") -> "Examples":
        """Some of them."""
        return Examples(self.names, self.signals[chosen], self.gained[chosen], self.rows[chosen])


def fit_check(
    rows: Sequence[Row],
    answers: Sequence[EdgeAnswer],
    scores: Sequence[float],
    *,
    hold_tokens: int = 16,
    progress: Callable[[str], None] = lambda _: None,
) -> CheckModel:
    """The check for one pair of models.

    Args:
        rows: Labelled prompts, of both outcomes.
        answers: The edge's whole answers, row by row.
        scores: Stage one's probabilities, row by row, each from a fit that had not seen the row.
        hold_tokens: How many tokens of a stream are known when it is judged.
        progress: Told a line per head.

    Raises:
        ValueError: the three differ in length, or all rows have the same outcome.
    """
    if not len(rows) == len(answers) == len(scores):
        raise ValueError(f"{len(rows)} rows, {len(answers)} answers and {len(scores)} scores; give one of each a row")
    gained = [row.gain > 0 for row in rows]
    if len(set(gained)) < 2:
        raise ValueError("every row has the same outcome: there is nothing to learn")
    every = list(zip(rows, answers, scores, strict=True))
    silent = [(row, replace(answer, logprobs=()), score) for row, answer, score in every]
    told = [labelled for labelled in every if labelled[1].logprobs]
    return CheckModel(
        with_logprobs=_fit_heads(told, hold_tokens, progress) if told else None,
        without_logprobs=_fit_heads(silent, hold_tokens, progress),
    )


def cut_answer(answer: EdgeAnswer, tokens: int) -> EdgeAnswer:
    """What is known of an answer after so many tokens, or, without log-probabilities, four characters for each. An
    answer that has ended by then is whole."""
    if answer.logprobs:
        if len(answer.logprobs) <= tokens:
            return answer
        known = answer.logprobs[:tokens]
        return EdgeAnswer("".join(token.token for token in known), known)
    characters = _CHARACTERS_PER_TOKEN * tokens
    return answer if len(answer.text) <= characters else EdgeAnswer(answer.text[:characters])


def _fit_heads(labelled: Sequence[Labelled], hold_tokens: int, progress: Callable[[str], None]) -> Heads:
    """Beginnings are cut shorter than the hold too: a slow edge has said less when `hold_ms` are over."""
    lengths = sorted({hold_tokens, max(hold_tokens // 2, 1), max(hold_tokens // 4, 1)})
    cuts = [(row, cut_answer(answer, length), score) for length in lengths for row, answer, score in labelled]
    begun = [cut for cut in cuts if cut[1].finish is None]
    return Heads(
        whole=_fit_head(_read_examples(labelled), "whole", progress),
        beginning=_fit_head(_read_examples(begun), "beginning", progress),
    )


def cross_check(
    rows: Sequence[Row], answers: Sequence[EdgeAnswer], scores: Sequence[float], *, folds: int = 10
) -> Vector:
    """Probabilities for whole answers, each from a fit that had not seen the row: what a fit on all will be worth."""
    examples = _read_examples(list(zip(rows, answers, scores, strict=True)))
    fold = _deal(examples.rows, folds, seed=1)
    chances = np.empty(len(rows))
    for held in range(folds):
        head = _fit_head(examples.take(fold != held), f"fold {held + 1} of {folds}", lambda _: None)
        chances[fold == held] = 1 / (1 + np.exp(-_log_odds(head, examples.take(fold == held))))
    return chances


def _read_examples(labelled: Sequence[Labelled]) -> Examples:
    found = [
        {STAGE_ONE: logit(score), **read_signals(row.conversation().text, answer)} for row, answer, score in labelled
    ]
    names = tuple(sorted({name for one in found for name in one}))
    signals = np.array([[one.get(name, np.nan) for name in names] for one in found], float)
    return Examples(
        names,
        signals.reshape(len(found), len(names)),
        gained=np.array([row.gain > 0 for row, _, _ in labelled], float),
        rows=np.array([row.id for row, _, _ in labelled], np.str_),
    )


def _fit_head(examples: Examples, what: str, progress: Callable[[str], None]) -> Head:
    if min(examples.gained.sum(), (1 - examples.gained).sum()) < _FEWEST:
        progress(f"{what}: {len(examples.gained)} examples are too few of one outcome; stage one's score stands")
        return Head(0.0, {STAGE_ONE: SignalWeight(1.0, 0.0, 1.0)})
    fold = _deal(examples.rows, _FOLDS, seed=0)
    trials = {strength: _validate(examples, fold, strength) for strength in _STRENGTHS}
    losses = {strength: _log_loss(examples.gained, log_odds) for strength, log_odds in trials.items()}
    best = min(losses, key=losses.__getitem__)
    slope, offset = _calibrate(trials[best], examples.gained)
    progress(f"{what}: {len(examples.gained)} examples, C {best:g}, out-of-fold log loss {losses[best]:.4f}")
    head = _regress(examples, best)
    scaled = {
        name: SignalWeight(round(slope * one.weight, 6), one.mean, one.scale) for name, one in head.signals.items()
    }
    return Head(round(slope * head.bias + offset, 6), scaled)


def _deal(rows: Identities, folds: int, seed: int) -> Folds:
    """A fold for each example, the same for all that came from one row."""
    different, place = np.unique(rows, return_inverse=True)
    dealt: Folds = np.random.default_rng(seed).permutation(len(different)) % folds
    return dealt[place]


def _validate(examples: Examples, fold: Folds, strength: float) -> Vector:
    log_odds = np.empty(len(fold))
    for held in range(_FOLDS):
        log_odds[fold == held] = _log_odds(_regress(examples.take(fold != held), strength), examples.take(fold == held))
    return log_odds


def _regress(examples: Examples, strength: float) -> Head:
    """On stage one and the signals that vary, standardized; an absent one stands at its mean, as in the checker."""
    present = ~np.isnan(examples.signals)
    count = np.maximum(present.sum(0), 1)
    means = np.where(present, examples.signals, 0.0).sum(0) / count
    scales = np.sqrt((np.where(present, examples.signals - means, 0.0) ** 2).sum(0) / count)
    kept = [i for i, name in enumerate(examples.names) if scales[i] > _SMALLEST_SCALE or name == STAGE_ONE]
    places = {
        examples.names[i]: SignalWeight(
            0.0, round(float(means[i]), 6), round(max(float(scales[i]), _SMALLEST_SCALE), 6)
        )
        for i in kept
    }
    model = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=200)
    model.fit(_standardize(examples, places), examples.gained)
    weights = zip(places.items(), model.coef_[0], strict=True)
    return Head(
        float(model.intercept_[0]),
        {name: SignalWeight(float(weight), one.mean, one.scale) for (name, one), weight in weights},
    )


def _standardize(examples: Examples, places: dict[str, SignalWeight]) -> Vector:
    columns = [examples.names.index(name) for name in places]
    means = np.array([one.mean for one in places.values()])
    scales = np.array([one.scale for one in places.values()])
    placed: Vector = np.nan_to_num(
        np.clip((examples.signals[:, columns] - means) / scales, -FARTHEST, FARTHEST), nan=0.0
    )
    return placed


def _log_odds(head: Head, examples: Examples) -> Vector:
    weights = np.array([one.weight for one in head.signals.values()])
    log_odds: Vector = head.bias + _standardize(examples, head.signals) @ weights
    return log_odds


def _calibrate(log_odds: Vector, gained: Vector) -> tuple[float, float]:
    """Slope and offset; where the log-odds are worse than none, the base rate alone."""
    model = LogisticRegression(C=1e6, solver="newton-cholesky").fit(log_odds[:, None], gained)
    slope = float(model.coef_[0, 0])
    return (slope, float(model.intercept_[0])) if slope > 0 else (0.0, logit(float(gained.mean())))


def _log_loss(gained: Vector, log_odds: Vector) -> float:
    return float(np.mean(np.logaddexp(0.0, np.where(gained > 0, -log_odds, log_odds))))
