"""Audits of semantic hits: in idle time the question is answered anew, and what was served is compared with that."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

import numpy as np

from router.cache.agreement import ALIKE, Agreement, agree
from router.cache.segment import Floats
from router.telemetry import Telemetry

__all__ = ["Audit", "Auditor", "Verdict"]

_MOST_WAITING: Final = 256
_MOST_CHARACTERS: Final = 65_536
_LOOK_S: Final = 0.25

_logger = logging.getLogger(__name__)
Question = TypeVar("Question")


class Verdict(StrEnum):
    """What an audit came to; only the first two count."""

    RIGHT = "right"
    WRONG = "wrong"
    UNCLEAR = "unclear"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Audit(Generic[Question]):
    """A hit to audit: what was asked, as its answerer wants it, and the text that was served for it."""

    partition: bytes
    similarity: float
    question: Question
    served: str


class Judge(Protocol):
    """Takes verdicts: `SemanticCache.judge`."""

    def __call__(self, partition: bytes, similarity: float, *, right: bool) -> None: ...


class Auditor(Generic[Question]):
    """Hits wait here, at most 256, the oldest give way; `run` is a job that audits one at a time.

    An answer that fails is no verdict, nor is a comparison that words leave unclear where no vector is to be had.
    """

    def __init__(
        self,
        answer: Callable[[Question], Awaitable[str]],
        embed: Callable[[str], Awaitable[Floats | None]],
        idle: Callable[[], bool],
        judge: Judge,
        telemetry: Telemetry,
        *,
        most_per_s: float = 1.0,
    ) -> None:
        """
        Args:
            answer: Answers anew, past every cache; whatever it raises is a failed audit.
            embed: A text's vector of length 1, or None.
            idle: Whether the router has nothing better to do.
            judge: Is told what is right and what is wrong.
            telemetry: Gets `hybrid_semantic_audits`.
            most_per_s: How fast audits follow each other at most.
        """
        self._answer = answer
        self._embed = embed
        self._idle = idle
        self._judge = judge
        self._pause_s = 1 / most_per_s
        self._waiting: deque[Audit[Question]] = deque()
        self._came = asyncio.Event()
        audits = telemetry.counter("semantic_audits", "Semantic hits that were to be answered again", "verdict")
        self._audits = {verdict: audits.labels(verdict) for verdict in Verdict}
        telemetry.gauge("semantic_audits_waiting", "Hits to audit").set_function(self._waiting.__len__)

    def submit(self, audit: Audit[Question]) -> None:
        """Have it audited, some time."""
        if len(audit.served) > _MOST_CHARACTERS:
            self._audits[Verdict.DROPPED].inc()
            return
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft()
            self._audits[Verdict.DROPPED].inc()
        self._waiting.append(audit)
        self._came.set()

    async def run(self) -> None:
        """Audit whenever there is something to, and nothing else to do; never ends."""
        while True:
            await self._came.wait()
            while self._waiting:
                if self._idle():
                    # the newest: what it was answered by is most likely what answers now
                    await self._perform(self._waiting.pop())
                    await asyncio.sleep(self._pause_s)
                else:
                    await asyncio.sleep(_LOOK_S)
            self._came.clear()

    async def _perform(self, audit: Audit[Question]) -> None:
        try:
            verdict = await self._compare(audit.served, await self._answer(audit.question))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the answer, the next audit may do better
            # without the message, which may quote the prompt
            _logger.info("Audit of a semantic hit failed with %s.", type(exc).__name__)
            verdict = Verdict.FAILED
        self._audits[verdict].inc()
        if verdict in {Verdict.RIGHT, Verdict.WRONG}:
            self._judge(audit.partition, audit.similarity, right=verdict is Verdict.RIGHT)

    async def _compare(self, served: str, fresh: str) -> Verdict:
        match agree(served, fresh):
            case Agreement.SAME:
                return Verdict.RIGHT
            case Agreement.DIFFERENT:
                return Verdict.WRONG
        first, second = await self._embed(served), await self._embed(fresh)
        if first is None or second is None:
            return Verdict.UNCLEAR
        alike = float(np.dot(first.astype(np.float32), second.astype(np.float32)))
        return Verdict.RIGHT if alike >= ALIKE else Verdict.WRONG
