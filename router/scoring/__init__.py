"""How much the cloud would gain over the edge: the seam between evidence and policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from router.decision import Evidence, Score
from router.query import Finish, Prompt, Query, TokenLogprob

__all__ = ["EdgeAnswer", "Evidence", "Explanation", "Score", "Scorer", "UnknownScorer"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A score, and what each signal added to it (in log-odds, the largest first)."""

    score: Score
    signals: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EdgeAnswer:
    """What the edge has said so far; `finish` is None while it has not ended, `logprobs` empty where it gives none."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


class Scorer(Protocol):
    """Two stages of evidence. Every method returns within milliseconds, computes nothing on the event loop, and never
    raises: who cannot say more gives the score that stands.
    """

    @property
    def artifact(self) -> str | None:
        """Which artifact the scores come from: the first digits of its file's sha256."""
        ...

    @property
    def checks_answers(self) -> bool:
        """Whether `check` can say more than `score`."""
        ...

    async def score(self, query: Query, threshold: float) -> Score:
        """Stage one, before any generation; dearer evidence is used only where it can move the score across
        `threshold`."""
        ...

    async def check(self, prompt: Prompt, score: Score, answer: EdgeAnswer) -> Score:
        """Stage two: the same probability, now that the edge's answer, or its beginning, is known."""
        ...

    async def explain(self, query: Query, threshold: float) -> Explanation:
        """`score` with its parts."""
        ...


class UnknownScorer:
    """Knows nothing, and says so: 0.5."""

    artifact = None
    checks_answers = False

    async def score(self, query: Query, threshold: float) -> Score:
        """Always 0.5."""
        return Score(0.5, Evidence.NONE)

    async def check(self, prompt: Prompt, score: Score, answer: EdgeAnswer) -> Score:
        """The score as it was."""
        return score

    async def explain(self, query: Query, threshold: float) -> Explanation:
        """Always 0.5, from no signal."""
        return Explanation(Score(0.5, Evidence.NONE), {})
