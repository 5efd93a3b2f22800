"""Getting one query answered: choose a target, wait for it, call it, judge what the edge said, fall back."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from router.calls import releasing
from router.choosing import Chooser
from router.decision import Decision, Reason, Rules, Tier
from router.errors import BackendError, BudgetError, DeadlineError, FullError, OverloadedError, UnavailableError
from router.health import Health
from router.policy import Policy, Reservation
from router.query import Parameters, Query
from router.replies import Reply
from router.routing_metrics import RoutingMetrics
from router.telemetry import Stopwatch

T = TypeVar("T")
AnyReply = TypeVar("AnyReply", bound=Reply)


@dataclass(slots=True)
class Errand(Generic[AnyReply]):
    """A query on its way, and what it asks a target for: the whole answer, or its beginning."""

    query: Query
    rules: Rules
    watch: Stopwatch
    call: Callable[[Decision, Reservation, Parameters, Stopwatch], Awaitable[AnyReply]]
    observed: bool = False


class Dispatcher:
    """Every method raises `RouterError` and nothing else; cancelling it cancels the work at the target."""

    def __init__(self, health: Health, chooser: Chooser, policy: Policy, metrics: RoutingMetrics) -> None:
        self._health = health
        self._chooser = chooser
        self._policy = policy
        self._metrics = metrics

    async def run(self, errand: Errand[AnyReply]) -> tuple[AnyReply, Decision]:
        """Choose, call, judge; while an answer is on trial nothing of it reaches the client."""
        decision = await self._chooser.choose(errand.query, errand.rules)
        reply, decision = await self.attempt(decision, partial(self._ask, errand), errand.query.deadline)
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
            return await self.attempt(verdict, ask, errand.query.deadline)
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
            return await errand.call(decision, reservation, errand.query.parameters, errand.watch)

    def _observe(self, errand: Errand[AnyReply], decision: Decision) -> None:
        """Once an errand, when it is first settled where it goes."""
        if not errand.observed:
            errand.observed = True
            self._chooser.observe(decision, errand.rules)

    async def attempt(
        self, decision: Decision, ask: Callable[[Decision], Awaitable[T]], deadline: float | None
    ) -> tuple[T, Decision]:
        """Ask the decided target, and its fallback if it fails, has no room or is too dear; both share one deadline."""
        try:
            return await ask(decision), decision
        except (BackendError, OverloadedError) as exc:
            self._metrics.count_failure(decision.target, exc)
            if isinstance(exc, DeadlineError | FullError):
                raise
            if isinstance(exc, UnavailableError):
                self._health.report_unreachable(decision.target.name)
            other = decision.fall_back(Reason.BUDGET if isinstance(exc, BudgetError) else Reason.FALLBACK)
            expired = deadline is not None and time.monotonic() >= deadline
            if other is None or expired:
                raise
            try:
                return await self.attempt(other, ask, deadline)
            except (BackendError, OverloadedError):
                raise exc from None  # the first failure explains more than that of the fallback
