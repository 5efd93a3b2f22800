"""Stage one's choice between cheap and dear evidence, the same for one live request and for a file of prompts."""

from collections.abc import Sequence

from edge.engine.encoder import Encoder
from router.config import EmbeddingUse
from router.decision import Evidence, Score
from router.embedder import embed_texts
from router.query import Prompt
from router.scoring.stage_one import EmbeddedPrompt, Estimate, QueryScorer


def settle_use(use: EmbeddingUse, *, checked: bool) -> EmbeddingUse:
    """What `auto` comes to where answers are checked, as a score near the threshold then decides nothing by itself."""
    return EmbeddingUse.NEVER if use is EmbeddingUse.AUTO and checked else use


def needs_refining(estimate: Estimate, threshold: float, use: EmbeddingUse) -> bool:
    """Whether the full embedding is to be used: with `auto`, where it can change the side of the threshold.

    Never because a vector happens to be cached, though it would cost nothing: a score is a function of the prompt and
    the configuration alone, the same on every replica and at every time.
    """
    match use:
        case EmbeddingUse.NEVER:
            return False
        case EmbeddingUse.ALWAYS:
            return True
        case EmbeddingUse.AUTO:
            return 0 < threshold < 1 and estimate.can_cross(threshold)


def score_prompts(
    scorer: QueryScorer, encoder: Encoder | None, prompts: Sequence[Prompt], *, threshold: float, use: EmbeddingUse
) -> list[Score]:
    """Every prompt's score, as `router.scoring.service` gives it to a request alone; None: without the embedding."""
    estimates = scorer.estimate(prompts)
    scores = [Score(estimate.probability, Evidence.FEATURES) for estimate in estimates]
    if encoder is None or not scorer.refines:
        return scores
    unsure = [row for row, estimate in enumerate(estimates) if needs_refining(estimate, threshold, use)]
    vectors = embed_texts(encoder, [prompts[row].text for row in unsure])
    embedded = [EmbeddedPrompt(prompts[row], vector) for row, vector in zip(unsure, vectors, strict=True)]
    for row, estimate in zip(unsure, scorer.refine(embedded) if embedded else [], strict=True):
        scores[row] = Score(estimate.probability, Evidence.EMBEDDING)
    return scores
