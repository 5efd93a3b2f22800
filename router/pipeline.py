"""The path of one query, readable aloud. The cache, the lanes and the answer check will each be a line here."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from router.backends import Backend
from router.decision import Decision, Rules, Target, decide, select_eligible
from router.errors import BackendError, DeadlineError, OverloadedError, UnavailableError
from router.health import Health
from router.policy import Policy
from router.query import Completion, Delta, EmbeddingQuery, Embeddings, Query
from router.scoring import Scorer
from router.telemetry import Stopwatch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and where it came from."""

    completion: Completion
    decision: Decision


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A stream whose first piece has come already: what fails from here on fails inside the stream.

    Closing `rest` cancels the work at the target.
    """

    first: Delta
    rest: AsyncGenerator[Delta, None]
    decision: Decision


@dataclass(frozen=True, slots=True)
class EmbeddedAnswer:
    """Vectors and where they came from."""

    embeddings: Embeddings
    decision: Decision


class Pipeline:
    """Every method raises `RouterError` and nothing else; cancelling it cancels the work at the target."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        chat_targets: Sequence[Target],
        embedding_targets: Sequence[Target],
        health: Health,
        scorer: Scorer,
        policy: Policy,
    ) -> None:
        self._backends = backends
        self._chat_targets = chat_targets
        self._embedding_targets = embedding_targets
        self._health = health
        self._scorer = scorer
        self.policy = policy

    async def answer(self, query: Query, rules: Rules, watch: Stopwatch) -> Answer:
        """Apply the rules, score, decide, compute; once more elsewhere if the target fails."""
        # response cache: look up
        decision = await self.decide(query, rules)
        # lane: wait for a slot
        completion, decision = await self._attempt(
            decision, watch, query.deadline, lambda backend: backend.complete(query)
        )
        # response cache: remember
        return Answer(completion, decision)

    async def stream(self, query: Query, rules: Rules, watch: Stopwatch) -> StreamedAnswer:
        """Like `answer`, up to the first piece; the rest follows from the same target."""
        # response cache: replay
        decision = await self.decide(query, rules)
        # lane: wait for a slot, held until the stream closes
        (first, rest), decision = await self._attempt(
            decision, watch, query.deadline, lambda backend: begin(backend.stream(query))
        )
        watch.first_s = watch.elapsed_s()
        return StreamedAnswer(first, rest, decision)

    async def embed(self, query: EmbeddingQuery, rules: Rules, watch: Stopwatch) -> EmbeddedAnswer:
        """The vectors of one model, from whichever target has it; there is no quality to score."""
        # embedding cache: look up each input
        eligible = select_eligible(rules, self._embedding_targets)
        decision = decide(eligible, score=None, threshold=self.policy.threshold, up=self._health.up())
        embeddings, decision = await self._attempt(
            decision, watch, query.deadline, lambda backend: backend.embed(query)
        )
        return EmbeddedAnswer(embeddings, decision)

    async def decide(self, query: Query, rules: Rules) -> Decision:
        """Where the query would go now, without any inference."""
        eligible = select_eligible(rules, self._chat_targets)
        score = await self._scorer.score(query.prompt, self.policy.threshold) if eligible.needs_score else None
        return decide(
            eligible, score=score.value if score else None, threshold=self.policy.threshold, up=self._health.up()
        )

    async def _attempt(
        self,
        decision: Decision,
        watch: Stopwatch,
        deadline: float | None,
        call: Callable[[Backend], Awaitable[T]],
    ) -> tuple[T, Decision]:
        """Call the decided target, and its fallback if it fails; both share one deadline."""
        try:
            with watch.wait_backend():
                return await call(self._backends[decision.target.name]), decision
        except DeadlineError:
            raise
        except (BackendError, OverloadedError) as exc:
            if isinstance(exc, UnavailableError):
                self._health.report_unreachable(decision.target.name)
            other = decision.fall_back()
            expired = deadline is not None and time.monotonic() >= deadline
            if other is None or expired:
                raise
            try:
                return await self._attempt(other, watch, deadline, call)
            except (BackendError, OverloadedError):
                raise exc from None  # the first failure explains more than that of the fallback


async def begin(deltas: AsyncGenerator[Delta, None]) -> tuple[Delta, AsyncGenerator[Delta, None]]:
    """Wait for the first piece here, while a failure can still become an HTTP error.

    Raises:
        BackendError: the stream failed, or ended, before its first piece.
    """
    try:
        return await anext(deltas), deltas
    except StopAsyncIteration:
        raise BackendError("The stream ended before its first piece.") from None
