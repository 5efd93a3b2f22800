"""Placeholder for the answer check's seam: no model yet."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from router.query import Prompt
from router.scoring import EdgeAnswer


class CheckModel(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters yet."""


@dataclass(frozen=True, slots=True)
class CheckItem:
    """A prompt, stage one's score of it, and the edge's answer or its beginning."""

    prompt: Prompt
    score: float
    answer: EdgeAnswer


class AnswerChecker:
    """Says what stage one said."""

    def __init__(self, model: CheckModel) -> None:
        self._model = model

    def check(self, items: Sequence[CheckItem]) -> list[float]:
        """The scores as they were."""
        return [item.score for item in items]
