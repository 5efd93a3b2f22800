"""
Fits the linear scorer on labelled prompts: logistic regression on whether the cloud gained, with L2 chosen by
cross-validation. Full-batch Adam (Kingma and Ba 2015) from zero: deterministic, a few seconds for 10,000 rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np

from router.features import extract_features
from router.scoring.linear import LinearArtifact, NamedWeight

Matrix = np.ndarray[Any, np.dtype[np.float32]]
_STEPS = 300
_RATE = 0.05
_FOLDS = 5
_L2_GRID = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
_SMALLEST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class Label:
    """A prompt, and whether the cloud answered it better than the edge."""

    prompt: str
    gained: bool


@dataclass(frozen=True, slots=True)
class Design:
    """Rows as numbers: named features standardized, then n-grams by hash."""

    matrix: Matrix
    names: tuple[str, ...]
    means: Matrix
    scales: Matrix


def fit_linear(
    labels: Sequence[Label], *, pair: str, bits: int = 12, progress: Callable[[str], None] = lambda _: None
) -> LinearArtifact:
    """An artifact for one pair of models.

    Args:
        labels: Rows of the pair's own traffic; a few hundred or more, of both outcomes.
        pair: Names the two models, for whoever reads the artifact.
        bits: The n-gram table has `2**bits` places.
        progress: Told a line per regularization strength.

    Raises:
        ValueError: all rows have the same outcome.
    """
    gained = np.array([label.gained for label in labels], np.float32)
    if not 0 < gained.sum() < len(gained):
        raise ValueError("every row has the same outcome: there is nothing to learn")
    design = _design([label.prompt for label in labels], bits)
    fold = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    losses = {l2: _validate(design.matrix, gained, fold, l2) for l2 in _L2_GRID}
    for l2, loss in losses.items():
        progress(f"l2 {l2:g}: out-of-fold log loss {loss:.4f}")
    weights = _descend(design.matrix, gained, min(losses, key=losses.__getitem__))
    return _artifact(design, weights, labels, pair, bits)


def _design(prompts: Sequence[str], bits: int) -> Design:
    features = [extract_features(prompt, bits=bits) for prompt in prompts]
    names = tuple(features[0].named)
    named = np.array([[one.named[name] for name in names] for one in features], np.float32)
    means, scales = named.mean(0), np.maximum(named.std(0), 1e-3)
    matrix = np.zeros((len(prompts), 1 + len(names) + (1 << bits)), np.float32)
    matrix[:, 0] = 1.0
    matrix[:, 1 : 1 + len(names)] = (named - means) / scales
    for row, one in enumerate(features):
        for key, value in one.grams.items():
            matrix[row, 1 + len(names) + key] = value
    return Design(matrix, names, means, scales)


def _validate(matrix: Matrix, gained: Matrix, fold: "np.ndarray[Any, Any]", l2: float) -> float:
    total = 0.0
    for held in range(_FOLDS):
        train, test = fold != held, fold == held
        chance = np.clip(_sigmoid(matrix[test] @ _descend(matrix[train], gained[train], l2)), 1e-6, 1 - 1e-6)
        total -= float(np.sum(gained[test] * np.log(chance) + (1 - gained[test]) * np.log1p(-chance)))
    return total / len(gained)


def _descend(matrix: Matrix, gained: Matrix, l2: float) -> Matrix:
    weights = np.zeros(matrix.shape[1], np.float32)
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    penalty = np.full_like(weights, l2)
    penalty[0] = 0.0  # the base rate is not shrunk
    for step in range(1, _STEPS + 1):
        gradient = matrix.T @ (_sigmoid(matrix @ weights) - gained) / len(gained) + penalty * weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = _RATE * (1 - step / _STEPS)
        weights -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


def _sigmoid(logits: Matrix) -> Matrix:
    chances: Matrix = 1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30)))
    return chances


def _artifact(design: Design, weights: Matrix, labels: Sequence[Label], pair: str, bits: int) -> LinearArtifact:
    first_gram = 1 + len(design.names)
    named = {
        name: NamedWeight(round(float(w), 5), round(float(mean), 5), round(float(scale), 5))
        for name, w, mean, scale in zip(design.names, weights[1:first_gram], design.means, design.scales, strict=True)
    }
    grams = {key: round(float(w), 4) for key, w in enumerate(weights[first_gram:]) if abs(w) >= _SMALLEST_WEIGHT}
    content = b"\n".join(msgspec.json.encode((label.prompt, label.gained)) for label in labels)
    return LinearArtifact(
        pair=pair,
        labels_sha256=sha256(content).hexdigest(),
        rows=len(labels),
        bits=bits,
        bias=round(float(weights[0]), 5),
        named=named,
        grams=grams,
    )
