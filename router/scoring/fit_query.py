"""
Fits the query model on labelled prompts: the gain (strong minus weak), by kernel ridge regression on landmarks.

How wide the kernel is, how strongly it is regularized and how much meaning counts is chosen by cross-validation on the
rows given, by squared error; the same folds' predictions calibrate the probability of a gain and measure how far the
refined estimate lies from the first. Everything is drawn from a fixed seed: the same rows give the same model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edge.engine.encoder import Encoder
from router.features import NAMES, Matrix, read_prompt, tabulate
from router.query import Prompt
from router.scoring.arrays import Number, write_array
from router.scoring.embedding import embed_texts
from router.scoring.query_model import (
    CalibrationFile,
    KernelFile,
    QueryFile,
    StageFile,
    Standard,
    Words,
    WordsFile,
)
from router.scoring.word_table import tabulate_words

Vector = NDArray[np.float64]
Rows = NDArray[np.intp]

FOLDS: Final = 5
_LANDMARKS: Final = 1024
_GAMMAS: Final = (0.5, 1.0, 2.0)
_WEIGHTS: Final = (0.5, 1.0)
_PENALTIES: Final = (1.0, 3.0, 10.0, 30.0, 100.0)
_JITTER: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model, and what it says out of fold: log-odds of the rows in their order, None without a refined estimate."""

    model: QueryFile
    first: Vector
    refined: Vector | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is read of prompts once, whatever is fitted on them: no label goes in."""

    features: Matrix
    words: WordsFile | None
    worded: Matrix
    embedded: Matrix | None

    def select(self, rows: Rows) -> "Prepared":
        """Some of the rows."""
        embedded = None if self.embedded is None else self.embedded[rows]
        return Prepared(self.features[rows], self.words, self.worded[rows], embedded)


@dataclass(frozen=True, slots=True)
class Choice:
    """What cross-validation chooses, and the predictions that it was chosen by."""

    gamma: float
    weight: float
    penalty: float
    predictions: Vector
    error: float


def prepare_prompts(prompts: Sequence[Prompt], encoder: Encoder | None) -> Prepared:
    """Features, and with an encoder a word table and both kinds of vectors; the slow part of a fit."""
    readings = [read_prompt(prompt) for prompt in prompts]
    features = tabulate(readings)
    if encoder is None:
        return Prepared(features, None, np.zeros((len(prompts), 0), np.float32), None)
    words = tabulate_words(readings, encoder)
    embedded = embed_texts(encoder, [prompt.text for prompt in prompts])
    return Prepared(features, words, Words(words).vectors(readings), embedded)


def fit_query(prepared: Prepared, gains: Vector, *, progress: Callable[[str], None] = lambda _: None) -> Fitted:
    """A model for one pair of models.

    Args:
        prepared: A row a prompt.
        gains: How much better the cloud's answer was, [rows].
        progress: Told a line per choice.

    Raises:
        ValueError: all rows gained, or none did, or there are fewer than 20.
    """
    gained = gains > 0
    if len(gains) < 4 * FOLDS or not FOLDS <= gained.sum() <= len(gains) - FOLDS:
        raise ValueError(f"a fit needs {4 * FOLDS} rows, {FOLDS} with a gain and {FOLDS} without")
    means, scales = prepared.features.mean(0), np.maximum(prepared.features.std(0), np.float32(1e-3))
    features = Standard(means, scales)(prepared.features)
    first, first_logits = _fit_stage(features, prepared.worded, gains, progress)
    refined, refined_logits, spread = None, None, 0.0
    if prepared.embedded is not None:
        refined, refined_logits = _fit_stage(features, prepared.embedded, gains, progress)
        spread = float(np.std(refined_logits - first_logits))
    model = QueryFile(
        features=list(NAMES),
        means=write_array(means),
        scales=write_array(scales),
        words=prepared.words,
        first=first,
        refined=refined,
        spread=spread,
    )
    return Fitted(model, first_logits, refined_logits)


def _fit_stage(
    features: Matrix, vectors: Matrix, gains: Vector, progress: Callable[[str], None]
) -> tuple[StageFile, Vector]:
    meaning = vectors.mean(0)
    choice = _choose(features, vectors - meaning, gains)
    progress(
        f"{vectors.shape[1]} numbers of meaning at weight {choice.weight:g}, kernel {choice.gamma:g}, "
        f"penalty {choice.penalty:g}: out-of-fold error {choice.error:.5f}, {np.var(gains):.5f} without a model"
    )
    rows = np.hstack([features, (vectors - meaning) * np.float32(choice.weight)]).astype(np.float64)
    landmarks = rows[_draw_landmarks(len(rows))].astype(np.float16).astype(np.float64)
    weights = _solve(rows, landmarks, gains - gains.mean(), choice.gamma, [choice.penalty])[:, 0]
    machine = KernelFile(
        landmarks=write_array(landmarks, Number.FLOAT16),
        weights=write_array(weights),
        gamma=choice.gamma,
        intercept=float(gains.mean()),
    )
    calibration, logits = _calibrate(choice.predictions, gains > 0)
    return StageFile(write_array(meaning), choice.weight, machine, calibration), logits


def _choose(features: Matrix, vectors: Matrix, gains: Vector) -> Choice:
    weights = _WEIGHTS if vectors.shape[1] else (0.0,)
    choices = []
    for gamma, weight in product(_GAMMAS, weights):
        rows = np.hstack([features, vectors * np.float32(weight)]).astype(np.float64)
        predictions = np.empty((len(rows), len(_PENALTIES)))
        for train, test in folds(len(rows)):
            landmarks = rows[train][_draw_landmarks(len(train))]
            solved = _solve(rows[train], landmarks, gains[train] - gains[train].mean(), gamma, _PENALTIES)
            predictions[test] = _kernel(rows[test], landmarks, gamma) @ solved + gains[train].mean()
        errors = np.mean((predictions - gains[:, None]) ** 2, 0)
        best = int(errors.argmin())
        choices.append(Choice(gamma, weight, _PENALTIES[best], predictions[:, best], float(errors[best])))
    return min(choices, key=lambda choice: choice.error)


def folds(count: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to fit on and rows to predict, the same for the same count."""
    fold = np.random.default_rng(0).permutation(count) % FOLDS
    for held in range(FOLDS):
        yield np.flatnonzero(fold != held), np.flatnonzero(fold == held)


def _draw_landmarks(count: int) -> Rows:
    return np.sort(np.random.default_rng(1).permutation(count)[:_LANDMARKS])


def _kernel(rows: Vector, landmarks: Vector, gamma: float) -> Vector:
    squares = (rows**2).sum(1)[:, None] + (landmarks**2).sum(1)
    kernel: Vector = np.exp(-gamma * np.maximum(squares - 2 * rows @ landmarks.T, 0))
    return kernel


def _solve(rows: Vector, landmarks: Vector, target: Vector, gamma: float, penalties: Sequence[float]) -> Vector:
    """Landmarks' weights [landmarks, penalties] that minimize squared error plus penalty times the function's norm."""
    values, vectors = np.linalg.eigh(_kernel(landmarks, landmarks, gamma))
    whiten = vectors / np.sqrt(np.maximum(values, _JITTER))
    mapped = _kernel(rows, landmarks, gamma) @ whiten
    strengths, axes = np.linalg.eigh(mapped.T @ mapped)
    aim = axes.T @ (mapped.T @ target)
    solved: Vector = whiten @ axes @ (aim[:, None] / (strengths[:, None] + np.array(penalties)))
    return solved


def _calibrate(predictions: Vector, gained: NDArray[np.bool_]) -> tuple[CalibrationFile, Vector]:
    """Platt's, on out-of-fold predictions; it never turns the order round."""
    scale = float(predictions.std()) or 1.0
    fit = LogisticRegression(C=1e3).fit(predictions[:, None] / scale, gained)
    slope = max(float(fit.coef_[0, 0]) / scale, 0.0)
    intercept = float(fit.intercept_[0]) if slope else float(np.log(gained.mean() / (1 - gained.mean())))
    return CalibrationFile(slope, intercept), predictions * slope + intercept
