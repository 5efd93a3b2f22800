"""A logistic regression on `router.features`, and the file that carries it."""

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edge.engine.settings import ConfigError
from router.features import extract_features
from router.query import Prompt
from router.scoring import EdgeAnswer, Evidence, Explanation, Score

Finite = Annotated[float, Meta(ge=-1e6, le=1e6)]


class NamedWeight(Struct, frozen=True, forbid_unknown_fields=True):
    """A named feature's weight, on the feature minus `mean` over `scale`."""

    weight: Finite
    mean: Finite
    scale: Annotated[float, Meta(gt=0, le=1e6)]


class LinearArtifact(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: weights, and where they came from. `grams` is sparse, by n-gram hash."""

    format: Literal["hybrid-linear-1"] = "hybrid-linear-1"
    pair: str
    labels_sha256: str
    rows: int
    bits: Annotated[int, Meta(ge=8, le=20)]
    bias: Finite
    named: dict[str, NamedWeight]
    grams: dict[int, Finite]


class LinearScorer:
    """Scores in tens of microseconds; synchronous at heart."""

    def __init__(self, artifact: LinearArtifact) -> None:
        self._artifact = artifact

    checks_answers = False

    async def score(self, prompt: Prompt, threshold: float) -> Score:
        """The probability that the cloud's answer is better."""
        return (await self.explain(prompt, threshold)).score

    async def check(self, prompt: Prompt, score: Score, answer: EdgeAnswer) -> Score:
        """The score as it was."""
        return score

    async def explain(self, prompt: Prompt, threshold: float) -> Explanation:
        """The probability with each named signal's log-odds; all n-grams together are `wording`."""
        return self.explain_now(prompt)

    def explain_now(self, prompt: Prompt) -> Explanation:
        """The same, here and now."""
        artifact = self._artifact
        features = extract_features(prompt.text, bits=artifact.bits)
        signals = {name: w.weight * (features.named[name] - w.mean) / w.scale for name, w in artifact.named.items()}
        signals["wording"] = sum(artifact.grams.get(key, 0.0) * value for key, value in features.grams.items())
        logit = artifact.bias + sum(signals.values())
        ordered = dict(sorted(signals.items(), key=lambda item: -abs(item[1])))
        return Explanation(Score(_sigmoid(logit), Evidence.FEATURES), {"bias": artifact.bias, **ordered})


def load_linear(path: Path) -> LinearScorer:
    """Read an artifact.

    Raises:
        ConfigError: one line naming the file and what is wrong with it.
    """
    try:
        artifact = msgspec.json.decode(path.read_bytes(), type=LinearArtifact)
    except (OSError, msgspec.MsgspecError) as exc:
        raise ConfigError(f"{path}: not a scoring artifact ({exc}); fit one for this pair of models") from exc
    unknown = set(artifact.named) - set(extract_features("", bits=artifact.bits).named)
    if unknown:
        raise ConfigError(f"{path}: named.{min(unknown)}: this router has no such feature; fit the artifact again")
    return LinearScorer(artifact)


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(min(logit, 30.0), -30.0)))
