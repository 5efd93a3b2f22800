"""Small boosted trees on features, by scikit-learn, as arrays that `router.scoring.query_model.Trees` walks."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from router.features import Matrix
from router.scoring.arrays import Number, write_array
from router.scoring.query_model import Trees, TreesFile

Vector = NDArray[np.float64]

_DEPTH: Final = 2
_COUNT: Final = 40
_RATE: Final = 0.1
_SHRINKAGE: Final = 10.0
_NEVER: Final = np.finfo(np.float32).max


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees for each side's quality; what they say of the gain is the difference."""

    edge: HistGradientBoostingRegressor
    cloud: HistGradientBoostingRegressor

    @property
    def base(self) -> float:
        """The gain that both take for granted; `write_trees` leaves it out."""
        base, other = (float(np.ravel(one._baseline_prediction)[0]) for one in (self.cloud, self.edge))
        return base - other

    def predict(self, features: Matrix) -> Vector:
        """The gain of each row."""
        gain: Vector = self.cloud.predict(features) - self.edge.predict(features)
        return gain


def grow_trees(features: Matrix, edge: Vector, cloud: Vector) -> Forest:
    """Gradient boosting of squared error (Friedman 2001), of the edge's quality and of the cloud's apart.

    Measured on subjects that a fit has not seen, two such forests say more than one of the gain itself.
    """
    with threadpool_limits(1):  # its threads wait for each other in spins, which a busy core makes very slow
        return Forest(_boost(features, edge), _boost(features, cloud))


def _boost(features: Matrix, target: Vector) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=_COUNT,
        max_depth=_DEPTH,
        learning_rate=_RATE,
        l2_regularization=_SHRINKAGE,
        min_samples_leaf=max(5, min(60, len(target) // 50)),
        early_stopping=False,
        random_state=0,
    ).fit(features, target)


def write_trees(forest: Forest, features: Matrix) -> TreesFile:
    """The trees, without `Forest.base`.

    Raises:
        RuntimeError: on `features` they do not say what the forest says; this scikit-learn stores trees in another way.
    """
    # The only place where scikit-learn keeps them: checked below, because it is not public.
    heaps = [
        (split, thresholds, sign * leaves)
        for sign, model in ((1, forest.cloud), (-1, forest.edge))
        for split, thresholds, leaves in (_fill(predictors[0].nodes) for predictors in model._predictors)
    ]
    file = TreesFile(
        write_array(np.array([heap[0] for heap in heaps]), Number.INTEGER),
        write_array(np.array([heap[1] for heap in heaps])),
        write_array(np.array([heap[2] for heap in heaps])),
    )
    said = Trees(file, "trees", features.shape[1])(features) + forest.base
    if not np.allclose(said, forest.predict(features), atol=1e-4):
        raise RuntimeError("the trees of this scikit-learn cannot be read; install another version of it")
    return file


def _fill(nodes: "NDArray[Any]") -> tuple[NDArray[np.int16], Matrix, Matrix]:
    """One tree as a complete heap; a leaf above the bottom becomes a split that never goes right."""
    inner = (1 << _DEPTH) - 1
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
