"""
Fits the query model on labelled prompts: the gain (strong minus weak), by boosted trees on features and by kernel ridge
regression on features and meaning, added up.

The size of the trees, the kernel machines' penalty and how much meaning counts in them are chosen by cross-validation
on the rows given, by squared error; the same folds' predictions calibrate the probability of a gain and measure how far
the refined estimate lies from the first. Everything is drawn from fixed seeds: the same rows give the same model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edge.engine.encoder import Encoder
from router.features import NAMES, Matrix, read_prompt, tabulate
from router.query import Prompt
from router.scoring.arrays import Number, write_array
from router.scoring.embedding import embed_texts
from router.scoring.fit_trees import grow_trees, write_trees
from router.scoring.query_model import (
    EMBEDDING_WEIGHT,
    LENGTH_AT,
    KernelFile,
    QueryFile,
    StageFile,
    Standard,
    TreesFile,
    Words,
    WordsFile,
)
from router.scoring.word_table import tabulate_words

Vector = NDArray[np.float64]
Rows = NDArray[np.intp]

FOLDS: Final = 5
_LANDMARKS: Final = 1024
_DEPTH: Final = 4
_COUNTS: Final = (12, 25, 50, 100, 200)
_GAMMA: Final = 1.0
_PENALTIES: Final = (1.0, 3.0, 10.0, 30.0)
_LENGTH_PRIOR: Final = 0.2
"""Log-odds for each e-fold of a prompt's length, before calibration: topics that a fit has not seen follow length more
than what was learnt of the others (held-out subjects of MMLU), and those that it has seen do not suffer."""
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
    """A setting that cross-validation chose, and its out-of-fold predictions of the gain."""

    setting: float
    predictions: Vector


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
        ValueError: there are too few rows, or too few with a gain or without.
    """
    gained = gains > 0
    if not FOLDS <= gained.sum() <= len(gains) - FOLDS:
        raise ValueError(f"a fit needs at least {FOLDS} rows that gained and {FOLDS} that did not")
    fit = _Fit(prepared, gains, progress)
    first = fit.choose_kernel(prepared.worded)
    trees = fit.choose_trees(first.predictions)
    first_stage, first_logits = fit.join(prepared.worded, first, trees)
    refined_stage, refined_logits, spread = None, None, 0.0
    if prepared.embedded is not None:
        vectors = np.hstack([prepared.worded, prepared.embedded * EMBEDDING_WEIGHT])
        refined = fit.choose_kernel(vectors)
        refined_stage, refined_logits = fit.join(vectors, refined, trees)
        spread = float(np.std(refined_logits - first_logits))
    model = QueryFile(
        features=list(NAMES),
        means=write_array(fit.means),
        scales=write_array(fit.scales),
        trees=fit.grow(trees),
        words=prepared.words,
        first=first_stage,
        refined=refined_stage,
        spread=spread,
    )
    return Fitted(model, first_logits, refined_logits)


class _Fit:
    """One set of rows, and what is the same for all its parts."""

    def __init__(self, prepared: Prepared, gains: Vector, progress: Callable[[str], None]) -> None:
        self._features = prepared.features
        self._gains = gains
        self._progress = progress
        self.means = prepared.features.mean(0)
        self.scales = np.maximum(prepared.features.std(0), np.float32(1e-3))
        self._standard = Standard(self.means, self.scales)(prepared.features)
        self._length_scale = float(self.scales[LENGTH_AT]) * math.sqrt(len(NAMES))

    def choose_trees(self, beside: Vector) -> Choice:
        """How many trees, joined to the predictions `beside`, say most of the gain."""
        predictions = np.empty((len(self._gains), len(_COUNTS)))
        for train, test in folds(len(self._gains)):
            model = grow_trees(self._features[train], self._gains[train], depth=_DEPTH, count=_COUNTS[-1])
            for count, staged in enumerate(model.staged_predict(self._features[test]), 1):
                if count in _COUNTS:
                    predictions[test, _COUNTS.index(count)] = staged
        joined = [_regress(np.stack([beside, one], 1), self._gains) for one in predictions.T]
        return self._choose("with {:g} trees", _COUNTS, predictions, np.stack(joined, 1))

    def grow(self, choice: Choice) -> TreesFile:
        """Trees on all rows."""
        model = grow_trees(self._features, self._gains, depth=_DEPTH, count=int(choice.setting))
        return write_trees(model, self._features, depth=_DEPTH)

    def choose_kernel(self, vectors: Matrix) -> Choice:
        """The kernel machine's penalty, on features and `vectors`."""
        rows = self._place(vectors)
        predictions = np.empty((len(rows), len(_PENALTIES)))
        for train, test in folds(len(rows)):
            mean = self._gains[train].mean()
            landmarks = rows[train][_draw_landmarks(len(train))]
            solved = _solve(rows[train], landmarks, self._gains[train] - mean, _PENALTIES)
            predictions[test] = _kernel(rows[test], landmarks) @ solved + mean
        what = f"kernels of features and {vectors.shape[1]} numbers of meaning, penalty {{:g}}"
        return self._choose(what, _PENALTIES, predictions, predictions)

    def join(self, vectors: Matrix, kernel: Choice, trees: Choice) -> tuple[StageFile, Vector]:
        """A kernel machine on all rows, joined to the trees, and their log-odds out of fold."""
        rows, mean = self._place(vectors), float(self._gains.mean())
        landmarks = write_array(rows[_draw_landmarks(len(rows))], Number.STEPS)
        solved = _solve(rows, landmarks.read("landmarks", None, None), self._gains - mean, [kernel.setting])[:, 0]
        said = np.stack([kernel.predictions, trees.predictions], 1)
        slopes, _ = _calibrate(said, self._gains > 0)
        length_slope = _LENGTH_PRIOR * self._length_scale
        lengthened = said @ slopes + self._standard[:, LENGTH_AT] * length_slope
        (again,), intercept = _calibrate(lengthened[:, None], self._gains > 0)
        slopes, length_slope = slopes * again, length_slope * float(again)
        stage = StageFile(
            meaning=write_array(vectors.mean(0)),
            kernel=KernelFile(landmarks, write_array(solved), _GAMMA),
            kernel_slope=float(slopes[0]),
            trees_slope=float(slopes[1]),
            length_slope=length_slope,
            # Neither the file's machine nor its trees have an intercept: both are fitted to gains off their mean.
            intercept=intercept + float(slopes.sum()) * mean,
        )
        return stage, lengthened * float(again) + intercept

    def _place(self, vectors: Matrix) -> Matrix:
        placed: Matrix = np.hstack([self._standard, vectors - vectors.mean(0)])
        return placed

    def _choose(self, what: str, settings: Sequence[float], predictions: Vector, judged: Vector) -> Choice:
        """The setting whose column of `judged` errs least."""
        errors = np.mean((judged - self._gains[:, None]) ** 2, 0)
        best = int(errors.argmin())
        explained = 1 - float(errors[best]) / float(np.var(self._gains))
        self._progress(f"{what.format(settings[best])}: explains {explained:.1%} of the gain's variance out of fold")
        return Choice(settings[best], predictions[:, best])


def folds(count: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to fit on and rows to predict, the same for the same count."""
    fold = np.random.default_rng(0).permutation(count) % FOLDS
    for held in range(FOLDS):
        yield np.flatnonzero(fold != held), np.flatnonzero(fold == held)


def _draw_landmarks(count: int) -> Rows:
    return np.sort(np.random.default_rng(1).permutation(count)[:_LANDMARKS])


def _kernel(rows: Matrix, landmarks: Matrix) -> Vector:
    rows, landmarks = rows.astype(np.float64), landmarks.astype(np.float64)
    squares = (rows**2).sum(1)[:, None] + (landmarks**2).sum(1)
    kernel: Vector = np.exp(-_GAMMA * np.maximum(squares - 2 * rows @ landmarks.T, 0))
    return kernel


def _solve(rows: Matrix, landmarks: Matrix, target: Vector, penalties: Sequence[float]) -> Vector:
    """Landmarks' weights [landmarks, penalties] that minimize squared error plus penalty times the function's norm."""
    values, vectors = np.linalg.eigh(_kernel(landmarks, landmarks))
    whiten = vectors / np.sqrt(np.maximum(values, _JITTER))
    mapped = _kernel(rows, landmarks) @ whiten
    strengths, axes = np.linalg.eigh(mapped.T @ mapped)
    aim = axes.T @ (mapped.T @ target)
    solved: Vector = whiten @ axes @ (aim[:, None] / (strengths[:, None] + np.array(penalties)))
    return solved


def _regress(said: Vector, gains: Vector) -> Vector:
    """The best sum of the columns, by least squares."""
    columns = np.column_stack([said, np.ones(len(said))])
    regressed: Vector = columns @ np.linalg.lstsq(columns, gains, rcond=None)[0]
    return regressed


def _calibrate(said: Vector, gained: NDArray[np.bool_]) -> tuple[Vector, float]:
    """Slopes and intercept of the log-odds (Platt's), on out-of-fold predictions; no slope is below zero."""
    scales = np.maximum(said.std(0), 1e-9)
    slopes = np.zeros(said.shape[1])
    used = list(range(said.shape[1]))
    while used:
        fit = LogisticRegression(C=1e3).fit((said / scales)[:, used], gained)
        if (fit.coef_[0] > 0).all():
            slopes[used] = fit.coef_[0] / scales[used]
            return slopes, float(fit.intercept_[0])
        used.pop(int(fit.coef_[0].argmin()))
    return slopes, float(np.log(gained.mean() / (1 - gained.mean())))
