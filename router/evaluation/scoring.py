"""Scores of rows in a file, by the very functions that the router calls for a live request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.engine.encoder import Encoder
from router.config import EmbeddingUse
from router.embedder import open_embedding
from router.evaluation.labels import Labels
from router.scoring import Evidence, Score
from router.scoring.answer_check import AnswerChecker, CheckItem
from router.scoring.artifact import load_artifact, open_scoring
from router.scoring.stage_one import QueryScorer
from router.scoring.stages import score_prompts

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Stages:
    """An artifact's models at work. `threshold` and `use` say where the full embedding is worth its price."""

    query: QueryScorer
    check: AnswerChecker | None
    encoder: Encoder | None
    use: EmbeddingUse = EmbeddingUse.ALWAYS
    threshold: float = 0.5

    def score(self, labels: Labels, progress: Callable[[int], None] = lambda _: None) -> list[Score]:
        """One score a row: stage two's where the answer is known and the artifact has a check, else stage one's."""
        return self.check_answers(labels, self.score_prompts(labels, progress))

    def score_prompts(self, labels: Labels, progress: Callable[[int], None] = lambda _: None) -> list[Score]:
        """Stage one's score of each row; `progress` is told how many more are done."""
        scores: list[Score] = []
        for start in range(0, len(labels.rows), _BATCH):
            prompts = [row.conversation() for row in labels.rows[start : start + _BATCH]]
            scores += score_prompts(self.query, self.encoder, prompts, threshold=self.threshold, use=self.use)
            progress(len(prompts))
        return scores

    def check_answers(self, labels: Labels, scores: Sequence[Score]) -> list[Score]:
        """Stage two's score where it can say something, the given one where not."""
        checked = list(scores)
        known = [(at, answer) for at, answer in enumerate(labels.answers) if answer is not None]
        if self.check is not None:
            items = [CheckItem(labels.rows[at].conversation(), scores[at].value, answer) for at, answer in known]
            for (at, _), value in zip(known, self.check.check(items), strict=True):
                checked[at] = Score(value, Evidence.ANSWER)
        return checked


def open_stages(
    artifact: Path, embedding: Path | None, *, use: EmbeddingUse = EmbeddingUse.ALWAYS, threshold: float = 0.5
) -> Stages:
    """The models of an artifact's file.

    Raises:
        ConfigError: the artifact is wrong, or was fitted with another embedding.
    """
    read = load_artifact(artifact)
    opened = None if embedding is None or read.embedding is None else open_embedding(embedding)
    query, check = open_scoring(read, opened, name=str(artifact))
    return Stages(query, check, opened and opened.encoder, use, threshold)
