"""
The query model: a kernel machine on what a prompt counts and means, and a calibration from its output to a probability.

A prompt is a vector: its features, standardized, beside a vector of its meaning. The first estimate takes the meaning
from a table of words (a word's vector is the sentence encoder's for the word alone, as model2vec does); the refined one
takes the encoder's vector of the whole text. Each has its own kernel machine (ridge regression of the gain on the
Gaussian kernels to some landmarks among the fitted prompts: Nystroem; Williams and Seeger 2001) and calibration
(Platt's).
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from router.features import Matrix, Reading
from router.scoring.arrays import Array

Finite = Annotated[float, Meta(ge=-1e6, le=1e6)]
Positive = Annotated[float, Meta(gt=0, le=1e6)]

CLIP: Final = 4.0
"""Standardized features are cut at so many standard deviations."""


class KernelFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`landmarks` [count, features + width], `weights` [count]; `gamma` is the kernel's."""

    landmarks: Array
    weights: Array
    gamma: Positive
    intercept: Finite


class CalibrationFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Log-odds are `slope` times the machine's output plus `intercept`."""

    slope: Annotated[float, Meta(ge=0, le=1e6)]
    intercept: Finite


class StageFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One estimate. `meaning` [width] is the mean vector, taken off; `weight` is how much meaning counts."""

    meaning: Array
    weight: Annotated[float, Meta(ge=0, le=1e6)]
    machine: KernelFile
    calibration: CalibrationFile


class WordsFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Words in alphabetical order, and a vector each [words, width], scaled by how much the word says."""

    words: list[str]
    vectors: Array


class QueryFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole model; `spread` is in log-odds, see `router.scoring.stage_one.Estimate`."""

    features: list[str]
    means: Array
    scales: Array
    words: WordsFile | None
    first: StageFile
    refined: StageFile | None
    spread: Annotated[float, Meta(ge=0, le=1e3)]


class Standard:
    """Features minus their mean over their deviation, cut, and scaled so that a whole row has about length 1."""

    def __init__(self, means: Matrix, scales: Matrix) -> None:
        self._means = means
        self._scales = scales
        self._length = np.float32(math.sqrt(len(means)))

    def __call__(self, features: Matrix) -> Matrix:
        standard: Matrix = np.clip((features - self._means) / self._scales, -CLIP, CLIP) / self._length
        return standard


class Words:
    """The table of words."""

    def __init__(self, file: WordsFile) -> None:
        """Raises `ValueError` for vectors that do not fit the words."""
        found = file.vectors.read("query.words.vectors", len(file.words), None)
        self.width = found.shape[1]
        self._vectors = np.vstack([found, np.zeros((1, self.width), np.float32)])
        self._rows = {word: row for row, word in enumerate(file.words)}

    def vectors(self, readings: Sequence[Reading]) -> Matrix:
        """The sum over a prompt's different words, scaled to length 1: [prompts, width]."""
        unknown = len(self._rows)
        sums = np.array(
            [
                self._vectors[[self._rows.get(word, unknown) for word in {*reading.tokens, ""}]].sum(0)
                for reading in readings
            ]
        )
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))[:, None]
        vectors: Matrix = sums / np.maximum(lengths, np.float32(1e-6))
        return vectors


class Machine:
    """A kernel machine."""

    def __init__(self, file: KernelFile, name: str, width: int) -> None:
        """Raises `ValueError` for arrays of other shapes."""
        self._landmarks = file.landmarks.read(f"{name}.landmarks", None, width)
        self._weights = file.weights.read(f"{name}.weights", len(self._landmarks))
        self._transposed = np.ascontiguousarray(self._landmarks.T)
        self._squares = np.einsum("ij,ij->i", self._landmarks, self._landmarks)
        self._gamma = file.gamma
        self._intercept = file.intercept

    def __call__(self, rows: Matrix) -> Matrix:
        """One output a row."""
        squares = np.einsum("ij,ij->i", rows, rows)[:, None]
        distances = squares + self._squares - 2 * (rows @ self._transposed)
        outputs: Matrix = np.exp(-self._gamma * distances) @ self._weights + self._intercept
        return outputs


class Stage:
    """One estimate: meaning beside features, through the machine, to log-odds."""

    def __init__(self, file: StageFile, name: str, features: int, width: int) -> None:
        """Raises `ValueError` for arrays of other shapes."""
        self._meaning = file.meaning.read(f"{name}.meaning", width)
        self._weight = np.float32(file.weight)
        self._machine = Machine(file.machine, f"{name}.machine", features + width)
        self._calibration = file.calibration

    def center(self, vectors: Matrix) -> Matrix:
        """Meaning as the machine sees it: 0 is the average."""
        centered: Matrix = (vectors - self._meaning) * self._weight
        return centered

    def logits(self, features: Matrix, vectors: Matrix) -> Matrix:
        """Log-odds of standardized features [n, features] and vectors [n, width]."""
        return self.logits_of_rows(np.hstack([features, self.center(vectors)]))

    def logits_of_rows(self, rows: Matrix) -> Matrix:
        """Log-odds of what the machine sees [n, features + width]."""
        logits: Matrix = self._machine(rows) * self._calibration.slope + self._calibration.intercept
        return logits
