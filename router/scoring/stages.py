"""Stage one's choice between cheap and dear evidence, the same for one live request and for a file of prompts."""

from collections.abc import Sequence

from router.config import EmbeddingUse
from router.decision import Evidence, Score
from router.query import Prompt
from router.scoring.stage_one import Estimate, QueryScorer


def needs_refining(estimate: Estimate, threshold: float, use: EmbeddingUse) -> bool:
    """Whether the full embedding is to be computed: with `auto`, where it can change the side of the threshold."""
    match use:
        case EmbeddingUse.NEVER:
            return False
        case EmbeddingUse.ALWAYS:
            return True
        case EmbeddingUse.AUTO:
            return 0 < threshold < 1 and estimate.can_cross(threshold)


def score_prompts(
    scorer: QueryScorer, prompts: Sequence[Prompt], *, threshold: float, use: EmbeddingUse
) -> list[Score]:
    """Every prompt's score, as `router.scoring.service` gives it to a request alone."""
    estimates = scorer.estimate(prompts)
    unsure = [row for row, estimate in enumerate(estimates) if needs_refining(estimate, threshold, use)]
    refined = scorer.refine([prompts[row] for row in unsure]) if unsure else []
    scores = [Score(estimate.probability, Evidence.FEATURES) for estimate in estimates]
    for row, estimate in zip(unsure, refined, strict=True):
        scores[row] = Score(estimate.probability, Evidence.EMBEDDING)
    return scores
