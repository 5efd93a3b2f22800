"""
Fits the query model on labelled prompts: the gain (cloud minus edge), by kernel ridge regression on features and
meaning, by small boosted trees on features, and by a prompt's length where nothing else is known, added up.

The kernel machines' penalty is chosen by cross-validation on the rows given, by squared error; the same folds'
predictions calibrate the probability of a gain (Platt's) and measure how far the refined estimate lies from the first.
Everything is drawn from fixed seeds: the same rows give the same model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edge.engine.encoder import Encoder
from router.embedder import embed_texts
from router.features import NAMES, Matrix, read_prompt, tabulate
from router.query import Prompt
from router.scoring.arrays import Number, write_array
from router.scoring.fit_trees import grow_trees, write_trees
from router.scoring.query_model import (
    EMBEDDING_WEIGHT,
    LENGTH_AT,
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
_FIRST_LANDMARKS: Final = 1024
_REFINED_LANDMARKS: Final = 2048
_GAMMA: Final = 1.0
_PENALTIES: Final = (1.0, 3.0, 10.0, 30.0)
_JITTER: Final = 1e-4
_TREES_WEIGHT: Final = 0.5
"""Beside the kernel machine's 1; a weight fitted to each set of rows is too noisy to be better."""
_LENGTH_PRIOR: Final = 0.06
"""Standard deviations of the gain for each e-fold of a prompt's length: topics that a fit has not seen follow length
more than what was learnt of the others (held-out subjects of MMLU), and those that it has seen hardly suffer."""


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


def prepare_prompts(prompts: Sequence[Prompt], encoder: Encoder | None) -> Prepared:
    """Features, and with an encoder a word table and both kinds of vectors; the slow part of a fit."""
    readings = [read_prompt(prompt) for prompt in prompts]
    features = tabulate(readings)
    if encoder is None:
        return Prepared(features, None, np.zeros((len(prompts), 0), np.float32), None)
    words = tabulate_words(readings, encoder)
    embedded = embed_texts(encoder, [prompt.text for prompt in prompts])
    return Prepared(features, words, Words(words).vectors(readings), embedded)


def fit_query(
    prepared: Prepared, edge: Vector, cloud: Vector, *, progress: Callable[[str], None] = lambda _: None
) -> Fitted:
    """A model for one pair of models.

    Args:
        prepared: A row a prompt.
        edge: How good the edge's answer was, [rows]; higher is better.
        cloud: How good the cloud's was.
        progress: Told a line per choice.

    Raises:
        ValueError: there are too few rows with a gain, or without.
    """
    gained = cloud > edge
    if not FOLDS <= gained.sum() <= len(gained) - FOLDS:
        raise ValueError(f"a fit needs at least {FOLDS} rows that gained and {FOLDS} that did not")
    fit = _Fit(prepared.features, edge, cloud, progress)
    first_stage, first_logits = fit.fit_stage(prepared.worded, _FIRST_LANDMARKS)
    refined_stage, refined_logits, spread = None, None, 0.0
    if prepared.embedded is not None:
        vectors = np.hstack([prepared.worded, prepared.embedded * EMBEDDING_WEIGHT])
        refined_stage, refined_logits = fit.fit_stage(vectors, _REFINED_LANDMARKS)
        spread = float(np.std(refined_logits - first_logits))
    model = QueryFile(
        features=list(NAMES),
        means=write_array(fit.means),
        scales=write_array(fit.scales),
        trees=write_trees(fit.forest, prepared.features),
        words=prepared.words,
        first=first_stage,
        refined=refined_stage,
        spread=spread,
    )
    return Fitted(model, first_logits, refined_logits)


class _Fit:
    """One set of rows, and what is the same for both estimates."""

    def __init__(self, features: Matrix, edge: Vector, cloud: Vector, progress: Callable[[str], None]) -> None:
        self._gains = cloud - edge
        self._progress = progress
        self.means = features.mean(0)
        self.scales = np.maximum(features.std(0), np.float32(1e-3))
        self._standard = Standard(self.means, self.scales)(features)
        self._length_weight = (
            _LENGTH_PRIOR * float(self._gains.std()) * float(self.scales[LENGTH_AT]) * math.sqrt(len(NAMES))
        )
        self.forest = grow_trees(features, edge, cloud)
        self._trees = np.empty(len(edge))
        for train, test in folds(len(edge)):
            self._trees[test] = grow_trees(features[train], edge[train], cloud[train]).predict(features[test])

    def fit_stage(self, vectors: Matrix, most_landmarks: int) -> tuple[StageFile, Vector]:
        """One estimate, on features and `vectors`, and its log-odds out of fold."""
        rows: Matrix = np.hstack([self._standard, vectors - vectors.mean(0)])
        penalty, predictions = self._choose_penalty(rows, most_landmarks)
        length = self._standard[:, LENGTH_AT] * self._length_weight
        said = predictions + _TREES_WEIGHT * self._trees + length
        slope, intercept = _calibrate(said, self._gains > 0)
        mean = float(self._gains.mean())
        # Rounded as the file rounds them, so that the weights suit the landmarks that serve.
        landmarks = write_array(rows[_draw_landmarks(len(rows), most_landmarks)], Number.STEPS)
        solved = _solve(rows, landmarks.read("landmarks", None, None), self._gains - mean, [penalty])[:, 0]
        stage = StageFile(
            meaning=write_array(vectors.mean(0)),
            kernel=KernelFile(landmarks, write_array(solved), _GAMMA),
            kernel_slope=slope,
            trees_slope=slope * _TREES_WEIGHT,
            length_slope=slope * self._length_weight,
            # Neither the file's machine nor its trees have an intercept: both are fitted to gains off their mean.
            intercept=intercept + slope * (mean + _TREES_WEIGHT * self.forest.base),
        )
        return stage, said * slope + intercept

    def _choose_penalty(self, rows: Matrix, most_landmarks: int) -> tuple[float, Vector]:
        """The kernel machine's penalty that errs least, and its out-of-fold predictions of the gain."""
        predictions = np.empty((len(rows), len(_PENALTIES)))
        for train, test in folds(len(rows)):
            mean = self._gains[train].mean()
            landmarks = rows[train][_draw_landmarks(len(train), most_landmarks)]
            solved = _solve(rows[train], landmarks, self._gains[train] - mean, _PENALTIES)
            predictions[test] = _kernel(rows[test], landmarks) @ solved + mean
        errors = np.mean((predictions - self._gains[:, None]) ** 2, 0)
        best = int(errors.argmin())
        explained = 1 - float(errors[best]) / float(np.var(self._gains))
        self._progress(
            f"kernels of {rows.shape[1]} numbers, penalty {_PENALTIES[best]:g}: "
            f"explains {explained:.1%} of the gain's variance out of fold"
        )
        return _PENALTIES[best], predictions[:, best]


def folds(count: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to fit on and rows to predict, the same for the same count."""
    fold = np.random.default_rng(0).permutation(count) % FOLDS
    for held in range(FOLDS):
        yield np.flatnonzero(fold != held), np.flatnonzero(fold == held)


def _draw_landmarks(count: int, most: int) -> Rows:
    return np.sort(np.random.default_rng(1).permutation(count)[:most])


def _kernel(rows: Matrix, landmarks: Matrix) -> Vector:
    rows, landmarks = rows.astype(np.float64), landmarks.astype(np.float64)
    squares = (rows**2).sum(1)[:, None] + (landmarks**2).sum(1)
    kernel: Vector = np.exp(-_GAMMA * np.maximum(squares - 2 * rows @ landmarks.T, 0))
    return kernel


def _solve(rows: Matrix, landmarks: Matrix, target: Vector, penalties: Sequence[float]) -> Vector:
    """Landmarks' weights [landmarks, penalties] that minimize squared error plus penalty times the function's norm."""
    mapped = _kernel(rows, landmarks)
    squared, aim = mapped.T @ mapped, mapped.T @ target
    norm = _kernel(landmarks, landmarks) + _JITTER * np.eye(len(landmarks))
    return np.stack([np.linalg.solve(squared + penalty * norm, aim) for penalty in penalties], 1)


def _calibrate(said: Vector, gained: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the log-odds (Platt's), on out-of-fold predictions; it never turns the order round."""
    scale = float(said.std()) or 1.0
    fit = LogisticRegression(C=1e3).fit(said[:, None] / scale, gained)
    slope = float(fit.coef_[0, 0]) / scale
    if slope <= 0:
        return 0.0, float(np.log(gained.mean() / (1 - gained.mean())))
    return slope, float(fit.intercept_[0])
