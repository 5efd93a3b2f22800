"""The path of one query, readable aloud. The cache and the lanes will each be a line here."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from router.calls import Caller, releasing
from router.choosing import Chooser
from router.decision import Decision, Reason, Rules, Target, Tier, decide, select_eligible
from router.embedding_calls import CacheStatus, Embedded, EmbeddingCaller
from router.errors import BackendError, BudgetError, DeadlineError, OverloadedError, UnavailableError
from router.health import Health
from router.policy import Policy, Reservation
from router.query import Completion, EmbeddingQuery, Embeddings, Parameters, Query
from router.replies import Opening, Reply
from router.routing_metrics import RoutingMetrics
from router.telemetry import Stopwatch

T = TypeVar("T")
AnyReply = TypeVar("AnyReply", bound=Reply)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and where it came from."""

    completion: Completion
    decision: Decision


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A stream that has begun, and where it comes from; closing `opening` cancels the work at the target."""

    opening: Opening
    decision: Decision


@dataclass(frozen=True, slots=True)
class EmbeddedAnswer:
    """Vectors and where they came from."""

    embeddings: Embeddings
    decision: Decision
    status: CacheStatus


@dataclass(slots=True)
class Errand(Generic[AnyReply]):
    """A query on its way, and what it asks a target for: the whole answer, or its beginning."""

    query: Query
    rules: Rules
    watch: Stopwatch
    call: Callable[[Decision, Reservation, Parameters], Awaitable[AnyReply]]
    observed: bool = False


class Pipeline:
    """Every method raises `RouterError` and nothing else; cancelling it cancels the work at the target."""

    def __init__(
        self,
        embedding_targets: Sequence[Target],
        embedding_caller: EmbeddingCaller,
        health: Health,
        chooser: Chooser,
        caller: Caller,
        policy: Policy,
        metrics: RoutingMetrics,
    ) -> None:
        self._embedding_targets = embedding_targets
        self._embedding_caller = embedding_caller
        self._health = health
        self._chooser = chooser
        self._caller = caller
        self._policy = policy
        self._metrics = metrics

    async def answer(self, query: Query, rules: Rules, watch: Stopwatch) -> Answer:
        """Choose, call; judge the edge's answer where that can change the choice."""
        # response cache: look up
        whole, decision = await self._run(Errand(query, rules, watch, self._caller.complete))
        # response cache: remember
        return Answer(whole.for_client(), decision)

    async def stream(self, query: Query, rules: Rules, watch: Stopwatch) -> StreamedAnswer:
        """Like `answer`, up to the first pieces; the rest follows from the same target."""
        # response cache: replay
        opening, decision = await self._run(Errand(query, rules, watch, self._caller.begin))
        watch.first_s = watch.elapsed_s()
        return StreamedAnswer(opening, decision)

    async def embed(
        self, query: EmbeddingQuery, rules: Rules, watch: Stopwatch, *, lookup: bool = True, store: bool = True
    ) -> EmbeddedAnswer:
        """The vectors of one model, from whichever target has it, as far as they are not cached; there is no quality to
        score.
        """
        eligible = select_eligible(rules, self._embedding_targets)
        decision = decide(eligible, score=None, threshold=self._policy.threshold, up=self._health.up())

        async def ask(decision: Decision) -> Embedded:
            return await self._embedding_caller.embed(decision.target.name, query, watch, lookup=lookup, store=store)

        embedded, decision = await self._attempt(decision, ask, query.deadline)
        return EmbeddedAnswer(embedded.embeddings, decision, embedded.status)

    async def _run(self, errand: Errand[AnyReply]) -> tuple[AnyReply, Decision]:
        """Choose, call, judge; while an answer is on trial nothing of it reaches the client."""
        decision = await self._chooser.choose(errand.query, errand.rules)
        # lane: wait for a slot, held until the answer, or its stream, ends
        reply, decision = await self._attempt(decision, partial(self._ask, errand), errand.query.deadline)
        if not decision.on_trial:
            return reply, decision
        try:
            verdict = await self._chooser.judge(decision, errand.query, errand.rules, reply.said())
            final, verdict = await self._carry_out(errand, verdict, reply)
        except BaseException:
            await reply.aclose()
            raise
        if final is not reply:
            self._metrics.count_dropped(decision.target, reply.spent)
        self._observe(errand, verdict)
        self._metrics.count_trial(verdict.reason)
        return final, verdict

    async def _carry_out(
        self, errand: Errand[AnyReply], verdict: Decision, reply: AnyReply
    ) -> tuple[AnyReply, Decision]:
        """The edge's reply, or the cloud's if it was found wanting; the edge stops before the cloud begins.

        Without money for the cloud, or if it fails, the edge's all the same: a new one if it was stopped.
        """
        if verdict.reason is not Reason.ESCALATED:
            return reply, verdict
        stopped = False

        async def ask(decision: Decision) -> AnyReply:
            nonlocal stopped
            if decision.tier is Tier.EDGE and not stopped:
                return reply
            reservation = self._reserve(errand, decision)
            if not reply.complete:
                stopped = True
                with releasing(reservation):
                    await reply.aclose()
            return await self._call(errand, decision, reservation)

        try:
            return await self._attempt(verdict, ask, errand.query.deadline)
        except (BackendError, OverloadedError):
            late = verdict.fall_back()
            if late is None or stopped:
                raise
            return reply, late

    async def _ask(self, errand: Errand[AnyReply], decision: Decision) -> AnyReply:
        return await self._call(errand, decision, self._reserve(errand, decision))

    def _reserve(self, errand: Errand[AnyReply], decision: Decision) -> Reservation:
        """Set aside what the call may cost; with that the query is as good as sent."""
        reservation = self._policy.reserve(decision.target, errand.query)
        if reservation is None:
            raise BudgetError(f"The budget cannot pay for {decision.target.name} now; try later or raise policy.per_*.")
        if not decision.on_trial:
            self._observe(errand, decision)
        return reservation

    async def _call(self, errand: Errand[AnyReply], decision: Decision, reservation: Reservation) -> AnyReply:
        with errand.watch.wait_backend():
            return await errand.call(decision, reservation, errand.query.parameters)

    def _observe(self, errand: Errand[AnyReply], decision: Decision) -> None:
        """Once an errand, when it is first settled where it goes."""
        if not errand.observed:
            errand.observed = True
            self._chooser.observe(decision, errand.rules)

    async def _attempt(
        self, decision: Decision, ask: Callable[[Decision], Awaitable[T]], deadline: float | None
    ) -> tuple[T, Decision]:
        """Ask the decided target, and its fallback if it fails or is too dear; both share one deadline."""
        try:
            return await ask(decision), decision
        except DeadlineError:
            raise
        except (BackendError, OverloadedError) as exc:
            if isinstance(exc, UnavailableError):
                self._health.report_unreachable(decision.target.name)
            other = decision.fall_back(Reason.BUDGET if isinstance(exc, BudgetError) else Reason.FALLBACK)
            expired = deadline is not None and time.monotonic() >= deadline
            if other is None or expired:
                raise
            try:
                return await self._attempt(other, ask, deadline)
            except (BackendError, OverloadedError):
                raise exc from None  # the first failure explains more than that of the fallback
