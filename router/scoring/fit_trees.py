"""Boosted trees on features, by scikit-learn, as arrays that `router.scoring.query_model.Trees` walks."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from router.features import Matrix
from router.scoring.arrays import Number, write_array
from router.scoring.query_model import Trees, TreesFile

Vector = NDArray[np.float64]

_NEVER: Final = np.finfo(np.float32).max
_RATE: Final = 0.1
_SHRINKAGE: Final = 10.0
_SHARE_OF_FEATURES: Final = 0.3


def grow_trees(features: Matrix, target: Vector, *, depth: int, count: int) -> HistGradientBoostingRegressor:
    """Gradient boosting of squared error (Friedman 2001), a third of the features looked at for each split."""
    return HistGradientBoostingRegressor(
        max_iter=count,
        max_depth=depth,
        learning_rate=_RATE,
        l2_regularization=_SHRINKAGE,
        max_features=_SHARE_OF_FEATURES,
        min_samples_leaf=max(5, min(30, len(target) // 50)),
        early_stopping=False,
        random_state=0,
    ).fit(features, target)


def write_trees(model: HistGradientBoostingRegressor, features: Matrix, *, depth: int) -> TreesFile:
    """The trees of a model, whose intercept is left out.

    Raises:
        RuntimeError: on `features` they do not say what the model says; this scikit-learn stores trees in another way.
    """
    # The only place where scikit-learn keeps them: checked below, because it is not public.
    nodes = [predictors[0].nodes for predictors in model._predictors]
    heaps = [_fill(tree, depth) for tree in nodes]
    file = TreesFile(
        write_array(np.array([heap[0] for heap in heaps]), Number.INTEGER),
        write_array(np.array([heap[1] for heap in heaps])),
        write_array(np.array([heap[2] for heap in heaps])),
    )
    said = Trees(file, "trees", features.shape[1])(features) + float(np.ravel(model._baseline_prediction)[0])
    if not np.allclose(said, model.predict(features), atol=1e-4):
        raise RuntimeError("the trees of this scikit-learn cannot be read; install another version of it")
    return file


def _fill(nodes: "NDArray[Any]", depth: int) -> tuple[NDArray[np.int16], Matrix, Matrix]:
    """One tree as a complete heap; a leaf above the bottom becomes a split that never goes right."""
    inner = (1 << depth) - 1
    features = np.zeros(inner, np.int16)
    thresholds = np.full(inner, _NEVER, np.float32)
    leaves = np.zeros(inner + 1, np.float32)
    places = {0: 0}
    for place in range(2 * inner + 1):
        node = nodes[places[place]]
        if place >= inner:
            leaves[place - inner] = node["value"]
        elif node["is_leaf"]:
            places[2 * place + 1] = places[2 * place + 2] = places[place]
        else:
            features[place] = node["feature_idx"]
            thresholds[place] = _round_down(float(node["num_threshold"]))
            places[2 * place + 1], places[2 * place + 2] = int(node["left"]), int(node["right"])
    return features, thresholds, leaves


def _round_down(threshold: float) -> np.float32:
    """To float32, so that the same float32 features stay above it."""
    rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if rounded > threshold else rounded
