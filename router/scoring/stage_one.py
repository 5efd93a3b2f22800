"""Stage one: the probability that the cloud's answer gains over the edge's, before either has begun."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.embedder import Vector
from router.features import NAMES, SIGNALS, Matrix, Reading, Signal, read_prompt, tabulate
from router.query import Prompt
from router.scoring.query_model import EMBEDDING_WEIGHT, QueryFile, Stage, Standard, Trees, Words

_SMALL: Final = 500_000
"""Numbers in the kernel machine: they are read once a batch, at some 10 a nanosecond."""
_REACH: Final = 1.5
"""A refined estimate farther away than so many standard deviations is not reckoned with: one in fifteen is."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`probability` of a gain; `spread`: standard deviation, in log-odds, of the refined estimate around this one."""

    probability: float
    spread: float

    def can_cross(self, threshold: float) -> bool:
        """Whether refining may well change the side of the threshold (in (0, 1))."""
        return abs(_logit(self.probability) - _logit(threshold)) < _REACH * self.spread


@dataclass(frozen=True, slots=True)
class EmbeddedPrompt:
    """A prompt, and its text's vector [width] from the embedding model that the query model was fitted with."""

    prompt: Prompt
    vector: Vector


class QueryScorer:
    """The query model at work: immutable, so any thread may use it."""

    def __init__(self, model: QueryFile, width: int | None) -> None:
        """
        Args:
            model: As fitted.
            width: Of the vectors of the embedding model that it was fitted with; None: there will be none.

        Raises:
            ValueError: an array has the wrong shape or number, or the features are not this router's.
        """
        if tuple(model.features) != NAMES:
            raise ValueError("query.features: are not what this router reads in a prompt; fit the artifact again")
        count = len(NAMES)
        self._means = model.means.read("query.means", count)
        self._standard = Standard(self._means, model.scales.read("query.scales", count))
        self._trees = Trees(model.trees, "query.trees", count)
        self._words = Words(model.words) if model.words else None
        self._first_width = self._words.width if self._words else 0
        self._first = Stage(model.first, "query.first", count, self._first_width)
        self._refined = None
        if model.refined is not None and width is not None:
            self._refined = Stage(model.refined, "query.refined", count, self._first_width + width)
        self._spread = model.spread if self._refined is not None else 0.0

    @property
    def refines(self) -> bool:
        """Whether a vector can say more than `estimate`."""
        return self._refined is not None

    @property
    def small(self) -> bool:
        """Whether `estimate` of a short prompt takes some tenth of a millisecond."""
        return self._first.size <= _SMALL

    def estimate(self, prompts: Sequence[Prompt]) -> list[Estimate]:
        """From features and words, without a vector."""
        readings = [read_prompt(prompt) for prompt in prompts]
        features = tabulate(readings)
        placed = self._first.place(self._standard(features), self._word_vectors(readings))
        logits = self._first.logits(placed, self._trees(features))
        return [Estimate(_probability(logit), self._spread) for logit in logits.tolist()]

    def refine(self, embedded: Sequence[EmbeddedPrompt]) -> list[Estimate]:
        """With the whole text's vector.

        Raises:
            ValueError: this model does not refine.
        """
        if self._refined is None:
            raise ValueError("this query model has no refined stage")
        readings = [read_prompt(one.prompt) for one in embedded]
        features = tabulate(readings)
        vectors = np.hstack([self._word_vectors(readings), _weigh([one.vector for one in embedded])])
        placed = self._refined.place(self._standard(features), vectors)
        logits = self._refined.logits(placed, self._trees(features))
        return [Estimate(_probability(logit), 0.0) for logit in logits.tolist()]

    def explain(self, prompt: Prompt, vector: Vector | None) -> Mapping[str, float]:
        """Log-odds by signal, the largest first after `base`, that of an average prompt; they sum to the logit: of
        `refine`, given a vector.

        Signals interact, so each gets the mean of what it adds when it comes first to last and last to first: a Shapley
        value estimated from two opposite orders (Castro et al. 2009).
        """
        reading = read_prompt(prompt)
        features = tabulate([reading])
        stage, vectors = self._first, self._word_vectors([reading])
        columns = [*SIGNALS, *[Signal.WORDING] * vectors.shape[1]]
        if vector is not None and self._refined is not None:
            stage, vectors = self._refined, np.hstack([vectors, _weigh([vector])])
            columns += [Signal.EMBEDDING] * len(vector)
        signals = [signal for signal in Signal if signal in columns]
        names = np.array(columns)
        known: Matrix = np.array([*_known(signals, names), *_known(signals[::-1], names)])
        walked = self._means + (features - self._means) * known[:, : len(SIGNALS)]
        placed = stage.place(self._standard(features), vectors) * known
        logits = stage.logits(placed, self._trees(walked)).reshape(2, -1)
        forth, back = np.diff(logits[0]), np.diff(logits[1])[::-1]
        added = {signal.value: float(value) for signal, value in zip(signals, (forth + back) / 2, strict=True)}
        return {"base": float(logits[0, 0]), **dict(sorted(added.items(), key=lambda item: -abs(item[1])))}

    def _word_vectors(self, readings: Sequence[Reading]) -> Matrix:
        return self._words.vectors(readings) if self._words else np.zeros((len(readings), 0), np.float32)


def _weigh(vectors: Sequence[Vector]) -> Matrix:
    return np.stack(vectors) * EMBEDDING_WEIGHT


def _known(signals: Sequence[Signal], columns: NDArray[np.str_]) -> list[Matrix]:
    """Masks over the columns: nothing known, then one signal more each time."""
    mask = np.zeros(len(columns), np.float32)
    masks = [mask]
    for signal in signals:
        mask = mask + (columns == signal).astype(np.float32)
        masks.append(mask)
    return masks


def _probability(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(min(logit, 30.0), -30.0)))


def _logit(probability: float) -> float:
    inside = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(inside / (1 - inside))
