"""
The query model: a kernel machine, boosted trees and a prompt's length, added up and calibrated to a probability.

The kernel machine looks at a vector: features, standardized, beside a vector of the prompt's meaning. The first
estimate takes the meaning from a table of words (a word's vector is the sentence encoder's for the word alone, as
model2vec does); the refined one adds the encoder's vector of the whole text. It is a ridge regression of the gain on
the Gaussian kernels to some landmarks among the fitted prompts (Nystroem; Williams and Seeger 2001). The trees look at
features only (gradient boosting; Friedman 2001). They err differently, so that both together are better than either.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from router.features import NAMES, Matrix, Reading
from router.scoring.arrays import Array

Finite = Annotated[float, Meta(ge=-1e6, le=1e6)]
Slope = Annotated[float, Meta(ge=0, le=1e6)]
Positive = Annotated[float, Meta(gt=0, le=1e6)]

CLIP: Final = 4.0
"""Standardized features are cut at so many standard deviations."""

LENGTH_AT: Final = NAMES.index("characters")

_SMALL_PRODUCT: Final = 1_000_000
"""Multiplications. OpenBLAS copies the factors of a larger product together first, which takes most of its time."""

EMBEDDING_WEIGHT: Final = np.float32(0.8)
"""How much a number of the whole text's vector counts beside one of the words'."""


class KernelFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`landmarks` [count, features + width], `weights` [count]; `gamma` is the kernel's."""

    landmarks: Array
    weights: Array
    gamma: Positive


class TreesFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Complete binary trees of one depth on the features as they are; a feature above the threshold goes right.

    `features` and `thresholds` [trees, 2**depth - 1] are in the order of a heap, `leaves` is [trees, 2**depth].
    """

    features: Array
    thresholds: Array
    leaves: Array


class StageFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One estimate. `meaning` [width] is the mean vector, taken off.

    Log-odds are what the kernel machine says times `kernel_slope`, what the trees say times `trees_slope`, the
    standardized length times `length_slope`, and `intercept`, added up.
    """

    meaning: Array
    kernel: KernelFile
    kernel_slope: Slope
    trees_slope: Slope
    length_slope: Slope
    intercept: Finite


class WordsFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Words in alphabetical order, and a vector each [words, width], scaled by how much the word says."""

    words: list[str]
    vectors: Array


class QueryFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole model; `spread` is in log-odds, see `router.scoring.stage_one.Estimate`."""

    features: list[str]
    means: Array
    scales: Array
    trees: TreesFile
    words: WordsFile | None
    first: StageFile
    refined: StageFile | None
    spread: Annotated[float, Meta(ge=0, le=1e3)]


def _squares(rows: Matrix) -> Matrix:
    """Each row's squared length."""
    squares: Matrix = np.add.reduce(rows * rows, 1)
    return squares


class Standard:
    """Features minus their mean over their deviation, cut, and scaled so that a whole row has about length 1."""

    def __init__(self, means: Matrix, scales: Matrix) -> None:
        length = np.float32(math.sqrt(len(means)))
        self._means = means
        self._factors = 1 / (scales * length)
        self._limit = CLIP / length

    def __call__(self, features: Matrix) -> Matrix:
        standard: Matrix = features - self._means
        standard *= self._factors
        np.minimum(standard, self._limit, out=standard)
        return np.maximum(standard, -self._limit, out=standard)


class Words:
    """The table of words."""

    def __init__(self, file: WordsFile) -> None:
        """Raises `ValueError` for vectors that do not fit the words."""
        found = file.vectors.read("query.words.vectors", len(file.words), None)
        self.width = found.shape[1]
        self._vectors = np.vstack([np.zeros((1, self.width), np.float32), found])
        self._rows = {word: row for row, word in enumerate(file.words, 1)}

    def vectors(self, readings: Sequence[Reading]) -> Matrix:
        """The sum over a prompt's different words, scaled to length 1: [prompts, width]."""
        sums = np.empty((len(readings), self.width), np.float32)
        for place, reading in zip(sums, readings, strict=True):
            rows = [0, *filter(None, map(self._rows.get, {*reading.tokens, ""}))]  # 0 is of no word
            np.add.reduce(self._vectors.take(rows, 0), out=place)
        lengths = np.sqrt(_squares(sums))[:, None]
        vectors: Matrix = sums / np.maximum(lengths, np.float32(1e-6))
        return vectors


class Kernel:
    """A kernel machine."""

    def __init__(self, file: KernelFile, name: str, width: int) -> None:
        """Raises `ValueError` for arrays of other shapes."""
        landmarks = file.landmarks.read(f"{name}.landmarks", None, width)
        self._weights = file.weights.read(f"{name}.weights", len(landmarks))
        self._transposed = np.ascontiguousarray(landmarks.T) * np.float32(2 * file.gamma)
        self._squares = np.einsum("ij,ij->i", landmarks, landmarks) * np.float32(file.gamma)
        self._gamma = np.float32(file.gamma)
        self._together = max(1, _SMALL_PRODUCT // landmarks.size)

    @property
    def size(self) -> int:
        """How many numbers it looks at for each batch."""
        return self._transposed.size

    def __call__(self, rows: Matrix) -> Matrix:
        """One output a row."""
        exponents = np.empty((len(rows), len(self._squares)), np.float32)
        for start in range(0, len(rows), self._together):
            some = slice(start, start + self._together)
            np.matmul(rows[some], self._transposed, out=exponents[some])
        exponents -= self._squares
        exponents -= self._gamma * _squares(rows)[:, None]
        outputs: Matrix = np.exp(exponents, out=exponents) @ self._weights
        return outputs


class Trees:
    """Boosted trees, all walked at once."""

    def __init__(self, file: TreesFile, name: str, features: int) -> None:
        """Raises `ValueError` for arrays that are no such trees."""
        leaves = file.leaves.read(f"{name}.leaves", None, None)
        count, width = leaves.shape
        if width & (width - 1) or width < 2:
            raise ValueError(f"{name}.leaves: {width} leaves a tree are no power of two")
        split = file.features.read(f"{name}.features", count, width - 1)
        if split.size and not 0 <= split.min() <= split.max() < features:
            raise ValueError(f"{name}.features: names a feature outside 0 to {features - 1}")
        thresholds = file.thresholds.read(f"{name}.thresholds", count, width - 1)
        depth = width.bit_length() - 1
        # level by level, the roots first; inside a level tree by tree
        self._levels = [slice(count * (2**level - 1), count * (2 ** (level + 1) - 1)) for level in range(depth)]
        inside = [slice(2**level - 1, 2 ** (level + 1) - 1) for level in range(depth)]
        self._features = np.concatenate([split.astype(np.intp)[:, nodes].ravel() for nodes in inside])
        self._thresholds = np.concatenate([thresholds[:, nodes].ravel() for nodes in inside])
        self._leaves = leaves.reshape(1, -1)

    def __call__(self, features: Matrix) -> Matrix:
        """One output a row."""
        right = features.take(self._features, 1) > self._thresholds
        values = self._leaves
        for level in reversed(self._levels):  # of each two neighbours the one that their node chooses
            values = np.where(right[:, level], values[:, 1::2], values[:, ::2])
        outputs: Matrix = np.add.reduce(values, 1)
        return outputs


class Stage:
    """One estimate: meaning beside features through the kernel machine, added to what the trees say, as log-odds."""

    def __init__(self, file: StageFile, name: str, features: int, width: int) -> None:
        """Raises `ValueError` for arrays of other shapes."""
        self._meaning = file.meaning.read(f"{name}.meaning", width)
        self._kernel = Kernel(file.kernel, f"{name}.kernel", features + width)
        self._slopes = file.kernel_slope, file.trees_slope, np.float32(file.length_slope)
        self._intercept = file.intercept
        self.size = self._kernel.size

    def place(self, standard: Matrix, vectors: Matrix) -> Matrix:
        """What the kernel machine sees [n, features + width]; 0 is the average."""
        placed: Matrix = np.concatenate((standard, vectors - self._meaning), 1)
        return placed

    def logits(self, placed: Matrix, trees: Matrix) -> Matrix:
        """Log-odds of rows as `place` gives them and of the trees' outputs [n]."""
        kernel_slope, trees_slope, length_slope = self._slopes
        logits: Matrix = self._kernel(placed) * kernel_slope + trees * trees_slope + self._intercept
        logits += placed[:, LENGTH_AT] * length_slope
        return logits
