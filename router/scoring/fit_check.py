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

Vector = np.ndarray[Any, np.dtype[np.float64]]
_FOLDS = 5
_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_CHARACTERS_PER_TOKEN = 4
_FEWEST = 40
_SMALLEST_SCALE = 1e-3


@dataclass(frozen=True, slots=True)
class Examples:
    """Signals [examples, names], NaN where absent; outcomes; and the row that each came from, which no fold splits."""

    names: tuple[str, ...]
    signals: Vector
    gained: Vector
    row: "np.ndarray[Any, np.dtype[np.int64]]"

    def take(self, chosen: "np.ndarray[Any, Any]") -> "Examples":
        """Some of them."""
        return Examples(self.names, self.signals[chosen], self.gained[chosen], self.row[chosen])


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
    silent = [replace(answer, logprobs=()) for answer in answers]
    worded = any(answer.logprobs for answer in answers)
    return CheckModel(
        with_logprobs=_fit_heads(rows, answers, scores, hold_tokens, progress) if worded else None,
        without_logprobs=_fit_heads(rows, silent, scores, hold_tokens, progress),
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


def _fit_heads(
    rows: Sequence[Row],
    answers: Sequence[EdgeAnswer],
    scores: Sequence[float],
    hold_tokens: int,
    progress: Callable[[str], None],
) -> Heads:
    whole = read_examples(rows, answers, scores)
    lengths = sorted({hold_tokens, max(hold_tokens // 2, 1), max(hold_tokens // 4, 1)})
    cuts = [(index, cut_answer(answer, n)) for n in lengths for index, answer in enumerate(answers)]
    begun = [(index, answer) for index, answer in cuts if answer.finish is None]
    chosen = [index for index, _ in begun]
    beginnings = read_examples([rows[i] for i in chosen], [answer for _, answer in begun], [scores[i] for i in chosen])
    beginnings = replace(beginnings, row=np.array(chosen, np.int64))
    return Heads(whole=_fit_head(whole, "whole", progress), beginning=_fit_head(beginnings, "beginning", progress))


def cross_check(
    rows: Sequence[Row], answers: Sequence[EdgeAnswer], scores: Sequence[float], *, folds: int = 10
) -> Vector:
    """Probabilities for whole answers, each from a fit that had not seen the row: what a fit on all will be worth."""
    examples = read_examples(rows, answers, scores)
    fold = _deal(examples.row, folds, seed=1)
    chances = np.empty(len(rows))
    for held in range(folds):
        head = _fit_head(examples.take(fold != held), f"fold {held + 1} of {folds}", lambda _: None)
        chances[fold == held] = 1 / (1 + np.exp(-_log_odds(head, examples.take(fold == held))))
    return chances


def read_examples(rows: Sequence[Row], answers: Sequence[EdgeAnswer], scores: Sequence[float]) -> Examples:
    """The rows as numbers."""
    found = [
        {STAGE_ONE: logit(score), **read_signals(row.conversation().text, answer)}
        for row, answer, score in zip(rows, answers, scores, strict=True)
    ]
    names = tuple(sorted({name for one in found for name in one}))
    signals = np.array([[one.get(name, np.nan) for name in names] for one in found], float).reshape(len(found), -1)
    gained = np.array([row.gain > 0 for row in rows], float)
    return Examples(names, signals, gained, np.arange(len(rows)))


def _fit_head(examples: Examples, what: str, progress: Callable[[str], None]) -> Head:
    if min(examples.gained.sum(), (1 - examples.gained).sum()) < _FEWEST:
        progress(f"{what}: {len(examples.gained)} examples are too few of one outcome; stage one's score stands")
        return Head(0.0, {STAGE_ONE: SignalWeight(1.0, 0.0, 1.0)})
    fold = _deal(examples.row, _FOLDS, seed=0)
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


def _deal(row: "np.ndarray[Any, np.dtype[np.int64]]", folds: int, seed: int) -> "np.ndarray[Any, Any]":
    """A fold for each example, the same for all that came from one row."""
    rows, place = np.unique(row, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(rows)) % folds)[place]


def _validate(examples: Examples, fold: "np.ndarray[Any, Any]", strength: float) -> Vector:
    log_odds = np.empty(len(fold))
    for held in range(_FOLDS):
        log_odds[fold == held] = _log_odds(_regress(examples.take(fold != held), strength), examples.take(fold == held))
    return log_odds


def _regress(examples: Examples, strength: float) -> Head:
    """Signals that vary, standardized where present; an absent one stands at its mean, here as in the checker."""
    present = ~np.isnan(examples.signals)
    count = np.maximum(present.sum(0), 1)
    means = np.where(present, examples.signals, 0.0).sum(0) / count
    scales = np.sqrt((np.where(present, examples.signals - means, 0.0) ** 2).sum(0) / count)
    kept = np.flatnonzero(scales > _SMALLEST_SCALE)
    places = {examples.names[i]: SignalWeight(0.0, round(means[i], 6), round(scales[i], 6)) for i in kept}
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
    model = LogisticRegression(C=1e6, solver="newton-cholesky").fit(log_odds[:, None], gained)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _log_loss(gained: Vector, log_odds: Vector) -> float:
    return float(np.mean(np.logaddexp(0.0, np.where(gained > 0, -log_odds, log_odds))))
