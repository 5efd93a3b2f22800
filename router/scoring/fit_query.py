"""
Fits the query model on labelled prompts: the gain (strong minus weak), by boosted trees on features and by kernel ridge
regression on features and meaning, added up.

The size of the trees, the kernel machines' penalty and how much meaning counts in them are chosen by cross-validation
on the rows given, by squared error; the same folds' predictions calibrate the probability of a gain and measure how far
the refined estimate lies from the first. Everything is drawn from fixed seeds: the same rows give the same model.
"""

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
from router.scoring.fit_trees import Boosting, write_trees
from router.scoring.query_model import KernelFile, QueryFile, StageFile, Standard, TreesFile, Words, WordsFile
from router.scoring.word_table import tabulate_words

Vector = NDArray[np.float64]
Rows = NDArray[np.intp]

FOLDS: Final = 5
_LANDMARKS: Final = 1024
_DEPTHS: Final = (3, 4)
_COUNTS: Final = (25, 50, 100, 200, 400)
_GAMMA: Final = 1.0
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
    """A setting that cross-validation chose, its out-of-fold predictions of the gain, and their squared error."""

    setting: tuple[float, ...]
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
        ValueError: there are too few rows, or too few with a gain or without.
    """
    gained = gains > 0
    if not FOLDS <= gained.sum() <= len(gains) - FOLDS:
        raise ValueError(f"a fit needs at least {FOLDS} rows that gained and {FOLDS} that did not")
    fit = _Fit(prepared, gains, progress)
    trees, grown = fit.grow()
    first, first_logits = fit.fit_stage(prepared.worded, grown)
    refined, refined_logits, spread = None, None, 0.0
    if prepared.embedded is not None:
        refined, refined_logits = fit.fit_stage(prepared.embedded, grown)
        spread = float(np.std(refined_logits - first_logits))
    model = QueryFile(
        features=list(NAMES),
        means=write_array(fit.means),
        scales=write_array(fit.scales),
        trees=trees,
        words=prepared.words,
        first=first,
        refined=refined,
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

    def grow(self) -> tuple[TreesFile, Vector]:
        """Trees on all rows, and what trees say out of fold."""
        choice = min((self._try_depth(depth) for depth in _DEPTHS), key=lambda choice: choice.error)
        depth, count = map(int, choice.setting)
        self._report(f"{count} trees of depth {depth}", choice)
        model = Boosting(depth, count).fit(self._features, self._gains)
        return write_trees(model, depth, self._features), choice.predictions

    def _try_depth(self, depth: int) -> Choice:
        predictions = np.empty((len(self._gains), len(_COUNTS)))
        for train, test in folds(len(self._gains)):
            model = Boosting(depth, _COUNTS[-1]).fit(self._features[train], self._gains[train])
            for count, staged in enumerate(model.staged_predict(self._features[test]), 1):
                if count in _COUNTS:
                    predictions[test, _COUNTS.index(count)] = staged
        return self._best(predictions, [(depth, count) for count in _COUNTS])

    def fit_stage(self, vectors: Matrix, grown: Vector) -> tuple[StageFile, Vector]:
        """A kernel machine on features and `vectors`, and the log-odds of it and the trees together, out of fold."""
        meaning = vectors.mean(0)
        weights = _WEIGHTS if vectors.shape[1] else (0.0,)
        placed = {weight: np.hstack([self._standard, (vectors - meaning) * np.float32(weight)]) for weight in weights}
        choice = min((self._try_kernel(placed[weight], weight) for weight in weights), key=lambda choice: choice.error)
        weight, penalty = choice.setting
        said = f"kernels on features and {vectors.shape[1]} numbers of meaning at {weight:g}, penalty {penalty:g}"
        self._report(said, choice)
        rows = placed[weight]
        landmarks = write_array(rows[_draw_landmarks(len(rows))], Number.STEPS)
        target = self._gains - self._gains.mean()
        solved = _solve(rows, landmarks.read("landmarks", None, None), target, [penalty])[:, 0]
        slope, intercept = _calibrate(choice.predictions + grown, self._gains > 0)
        kernel = KernelFile(landmarks, write_array(solved), _GAMMA)
        # The kernel machine has no intercept of its own, nor have the trees: both were fitted to gains off their mean.
        stage = StageFile(
            write_array(meaning), weight, kernel, slope, intercept + 2 * slope * float(self._gains.mean())
        )
        return stage, (choice.predictions + grown) * slope + intercept

    def _try_kernel(self, rows: Matrix, weight: float) -> Choice:
        predictions = np.empty((len(rows), len(_PENALTIES)))
        for train, test in folds(len(rows)):
            mean = self._gains[train].mean()
            landmarks = rows[train][_draw_landmarks(len(train))]
            solved = _solve(rows[train], landmarks, self._gains[train] - mean, _PENALTIES)
            predictions[test] = _kernel(rows[test], landmarks) @ solved + mean
        return self._best(predictions, [(weight, penalty) for penalty in _PENALTIES])

    def _best(self, predictions: Vector, settings: Sequence[tuple[float, ...]]) -> Choice:
        errors = np.mean((predictions - self._gains[:, None]) ** 2, 0)
        best = int(errors.argmin())
        return Choice(settings[best], predictions[:, best], float(errors[best]))

    def _report(self, what: str, choice: Choice) -> None:
        explained = 1 - choice.error / float(np.var(self._gains))
        self._progress(f"{what}: explains {explained:.1%} of the gain's variance out of fold")


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


def _calibrate(predictions: Vector, gained: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the log-odds (Platt's), on out-of-fold predictions; the order is never turned round."""
    scale = float(predictions.std()) or 1.0
    fit = LogisticRegression(C=1e3).fit(predictions[:, None] / scale, gained)
    slope = float(fit.coef_[0, 0]) / scale
    if slope <= 0:
        return 0.0, float(np.log(gained.mean() / (1 - gained.mean())))
    return slope, float(fit.intercept_[0])
