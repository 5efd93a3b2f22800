"""Both tiers answer every question, a judge compares: bounded concurrency, and nothing that is paid for is lost."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.calibration.endpoint import Endpoint
from router.calibration.errors import CalibrationError, UnansweredError, UnjudgedError
from router.calibration.journal import Answered, Journal, Judged, Skipped
from router.calibration.judges import Judge
from router.calibration.prompts import Question
from router.decision import Tier
from router.evaluation.files import write_lines
from router.scoring.dataset import AnswerRow, Row


@dataclass(frozen=True, slots=True)
class Targets:
    """The model that is asked for each tier: the tier itself, or one target of it."""

    edge: str = Tier.EDGE
    cloud: str = Tier.CLOUD

    def model(self, tier: Tier) -> str:
        """A tier's."""
        return self.edge if tier is Tier.EDGE else self.cloud


@dataclass(frozen=True, slots=True)
class Collector:
    """What a collection works with."""

    journal: Journal
    endpoint: Endpoint
    judge: Judge
    targets: Targets
    max_tokens: int | None = None

    async def collect(
        self, questions: Sequence[Question], *, concurrency: int, progress: Callable[[], None] = lambda: None
    ) -> None:
        """Label every question that the journal has no label for; `progress` is called once a question.

        Raises:
            CalibrationError: it cannot go on; what is done stays done.
        """
        pending = iter(questions)
        error: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(self._work(pending, progress))
        except* CalibrationError as failed:
            error = failed.exceptions[0]
        if error is not None:  # raised in there, Python 3.11.2 would wrap it in a group
            raise error from None

    async def _work(self, pending: Iterator[Question], progress: Callable[[], None]) -> None:
        for question in pending:
            if self.journal.skip_reason(question.id, self.judge.key) is None:
                await self._label(question)
            progress()

    async def _label(self, question: Question) -> None:
        if (objection := self.judge.objection(question)) is not None:
            self.journal.add(Skipped(question.id, objection, self.judge.key))
            return
        try:
            edge = await self._answer(question, Tier.EDGE)
            cloud = await self._answer(question, Tier.CLOUD)
        except UnansweredError as exc:
            self.journal.add(Skipped(question.id, str(exc)))
            return
        if (question.id, self.judge.key) in self.journal.judgements:
            return
        try:
            grades = await self.judge.grade(question, edge.text, cloud.text)
        except UnjudgedError as exc:
            self.journal.add(Skipped(question.id, str(exc), self.judge.key))
            return
        self.journal.add(Judged(question.id, self.judge.key, grades.edge, grades.cloud))

    async def _answer(self, question: Question, tier: Tier) -> Answered:
        known = self.journal.answers.get((question.id, tier))
        if known is not None:
            return known
        reply = await self.endpoint.ask(
            self.targets.model(tier), question.turns, logprobs=tier is Tier.EDGE, max_tokens=self.max_tokens
        )
        answered = Answered(question.id, tier, reply.text, reply.tokens, reply.finish)
        self.journal.add(answered)
        return answered


def write_labels(folder: Path, questions: Sequence[Question], journal: Journal, judge: Judge) -> tuple[Path, Path]:
    """All labels so far as data and answers that `hybrid fit` and `hybrid evaluate` read; returns both files."""
    labelled = [one for one in questions if (one.id, judge.key) in journal.judgements]
    data, answers = folder / "calibration.jsonl", folder / "calibration.answers.jsonl"
    write_lines(data, [_row(one, journal.judgements[one.id, judge.key]) for one in labelled])
    write_lines(answers, [_answer_row(journal.answers[one.id, Tier.EDGE]) for one in labelled])
    return data, answers


def _row(question: Question, judged: Judged) -> Row:
    return Row(
        id=question.id,
        messages=list(question.turns),
        domain=question.domain,
        weak_correct=judged.edge,
        strong_correct=judged.cloud,
    )


def _answer_row(answered: Answered) -> AnswerRow:
    return AnswerRow(id=answered.id, weak_answer=answered.text, tokens=answered.tokens, finish=answered.finish)
