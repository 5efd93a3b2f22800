"""How the next token is chosen, for a whole batch at once."""

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

Logits = NDArray[np.float32]

MOST_LOGPROBS: Final = 20
_CANDIDATES: Final = 256


class Sampling(Struct, frozen=True, kw_only=True):
    """What a caller asks of a generation.

    `temperature` 0 takes the likeliest token. `logprobs` None asks for none, else for that many alternatives a token.
    `max_tokens` None means as many as the context has room for. `json_schema` is JSON text that the answer must follow.
    """

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    json_schema: str | None = None


class Score(Struct, frozen=True):
    """A token's natural-log probability by the model alone, before temperature and grammar; rank 1 is the likeliest."""

    token: int
    logprob: float
    rank: int


class Choice(Struct, frozen=True, gc=False):
    """The token at a place; `score` and `top` (likeliest first) only where they were asked for."""

    token: int
    score: Score | None = None
    top: tuple[Score, ...] = ()


class Picker:
    """One sequence's way to choose; its random numbers depend on its seed alone, never on its neighbours."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.plain = sampling.temperature == 0 and sampling.logprobs is None
        self._random: np.random.Generator | None = None  # seeding takes longer than a greedy choice

    def draw(self) -> float:
        """The next random number in [0, 1)."""
        if self._random is None:
            seed = self.sampling.seed
            self._random = np.random.default_rng(None if seed is None else seed % 2**64)
        return float(self._random.random())


def pick(logits: Logits, pickers: Sequence[Picker], allowed: Sequence[NDArray[np.bool_] | None]) -> list[Choice]:
    """Choose a token for each row of `logits` [n, vocabulary]; `allowed` [vocabulary] is a grammar's word, if any."""
    if all(picker.plain for picker in pickers) and not any(mask is not None for mask in allowed):
        return [Choice(token) for token in logits.argmax(axis=-1).tolist()]
    masked = logits
    if any(mask is not None for mask in allowed):
        masked = logits.copy()
        for row, mask in zip(masked, allowed, strict=True):
            if mask is not None:
                row[~mask] = -np.inf
    tokens = masked.argmax(axis=-1)
    warm = [i for i, picker in enumerate(pickers) if picker.sampling.temperature > 0]
    if warm:
        temperatures = np.array([pickers[i].sampling.temperature for i in warm], np.float64)
        probabilities = _softmax(masked[warm] / temperatures[:, None])
        for i, row in zip(warm, probabilities, strict=True):
            tokens[i] = _draw(row, pickers[i].sampling.top_p, pickers[i].draw())
    return [
        Choice(token) if picker.sampling.logprobs is None else _describe(row, token, picker.sampling.logprobs)
        for row, token, picker in zip(logits, tokens.tolist(), pickers, strict=True)
    ]


def log_softmax(row: Logits) -> NDArray[np.float64]:
    """Natural-log probabilities of one row."""
    shifted = row.astype(np.float64) - row.max()
    normalized: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return normalized


def _softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(rows - rows.max(axis=-1, keepdims=True))
    normalized: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return normalized


def _draw(probabilities: NDArray[np.float64], top_p: float, uniform: float) -> int:
    """Inverse-transform sampling; from the nucleus of Holtzman et al. 2020 (arXiv:1904.09751) if `top_p` < 1."""
    if top_p >= 1:
        return _at(np.cumsum(probabilities), uniform)
    order = _likeliest(probabilities, _CANDIDATES)
    cumulated = np.cumsum(probabilities[order])
    if cumulated[-1] < top_p:  # flat: the nucleus is larger than the candidates
        order = _likeliest(probabilities, probabilities.size)
        cumulated = np.cumsum(probabilities[order])
    size = int(np.searchsorted(cumulated, top_p)) + 1
    return int(order[_at(cumulated[:size], uniform)])


def _at(cumulated: NDArray[np.float64], uniform: float) -> int:
    """The index whose share of the total holds `uniform`."""
    found = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    return min(found, int(np.searchsorted(cumulated, cumulated[-1])))  # rounding may point past the last with a share


def _likeliest(values: NDArray[np.float32] | NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest values, largest first, the smaller index first among equals."""
    if count >= values.size:
        return np.argsort(-values, kind="stable")
    found = np.sort(np.argpartition(-values, count - 1)[:count])
    return found[np.argsort(-values[found], kind="stable")]


def _describe(row: Logits, token: int, count: int) -> Choice:
    logprobs = log_softmax(row)
    score = Score(token, float(logprobs[token]), int((row > row[token]).sum()) + 1)
    top = _likeliest(row, count) if count else ()
    return Choice(token, score, tuple(Score(int(i), float(logprobs[i]), n) for n, i in enumerate(top, 1)))
