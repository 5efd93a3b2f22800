"""
Stage two: the probability that the cloud's answer is better, now that the edge's answer, or its beginning, is known.

Four logistic regressions on `router.scoring.answer_signals` and stage one's score: for whole answers and for
beginnings, with log-probabilities and without. Each is calibrated on its own out-of-fold predictions when it is fitted,
so that the sum of the weighted signals is the calibrated log-odds, and every signal's part of it can be told.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from edge.engine.settings import ConfigError
from router.query import Prompt
from router.scoring import EdgeAnswer
from router.scoring.answer_signals import read_signals, signal_names

STAGE_ONE = "stage_one"
BIAS = "bias"
FARTHEST = 6.0
_LARGEST_LOGIT = 30.0

Finite = Annotated[float, Meta(ge=-1e6, le=1e6)]


class SignalWeight(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal's weight in log-odds, on the signal minus `mean` over `scale`."""

    weight: Finite
    mean: Finite
    scale: Annotated[float, Meta(gt=0, le=1e6)]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """A logistic regression; a signal that an answer lacks counts as if at its mean."""

    bias: Finite
    signals: dict[str, SignalWeight]


class Heads(Struct, frozen=True, forbid_unknown_fields=True):
    """One for answers that have ended, one for those that go on."""

    whole: Head
    beginning: Head


class CheckModel(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fitted weights. `with_logprobs` is None where the edge of the fit gave no log-probabilities."""

    with_logprobs: Heads | None
    without_logprobs: Heads


@dataclass(frozen=True, slots=True)
class CheckItem:
    """A question, stage one's probability for it, and what the edge has said; `answer.finish` None: it goes on."""

    prompt: Prompt
    score: float
    answer: EdgeAnswer


class AnswerChecker:
    """Judges an answer within a millisecond, a short one in a tenth. Immutable, synchronous, safe in any thread.

    Raises:
        ConfigError: the model names a signal that this router does not read.
    """

    def __init__(self, model: CheckModel) -> None:
        known = signal_names() | {STAGE_ONE}
        unknown = {name for head in _heads(model) for name in head.signals} - known
        if unknown:
            raise ConfigError(f"check: {min(unknown)!r} is no signal of this router; fit the artifact again")
        self._model = model

    def check(self, items: Sequence[CheckItem]) -> list[float]:
        """The calibrated probability in (0, 1), for each item, that the cloud's answer is better."""
        return [_sigmoid(sum(self._weigh(item).values())) for item in items]

    def explain(self, item: CheckItem) -> Mapping[str, float]:
        """The log-odds that each signal adds, the largest first; their sum is the probability's logit."""
        return dict(sorted(self._weigh(item).items(), key=lambda part: -abs(part[1])))

    def _weigh(self, item: CheckItem) -> dict[str, float]:
        head = self._head(item.answer)
        found = {STAGE_ONE: logit(item.score), **read_signals(item.prompt.text, item.answer)}
        parts = {BIAS: head.bias}
        for name, one in head.signals.items():
            if name in found:
                parts[name] = one.weight * _standardize(found[name], one.mean, one.scale)
        return parts

    def _head(self, answer: EdgeAnswer) -> Head:
        heads = self._model.with_logprobs if answer.logprobs else None
        heads = heads or self._model.without_logprobs
        return heads.beginning if answer.finish is None else heads.whole


def logit(probability: float) -> float:
    """Log-odds, of a probability kept 1e-6 away from 0 and 1."""
    kept = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(kept / (1 - kept))


def _standardize(value: float, mean: float, scale: float) -> float:
    """In units of `scale`, at most 6: an outlier is not evidence without end."""
    return max(min((value - mean) / scale, FARTHEST), -FARTHEST)


def _heads(model: CheckModel) -> list[Head]:
    groups = [model.without_logprobs, *([model.with_logprobs] if model.with_logprobs else [])]
    return [head for group in groups for head in (group.whole, group.beginning)]


def _sigmoid(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(min(log_odds, _LARGEST_LOGIT), -_LARGEST_LOGIT)))
