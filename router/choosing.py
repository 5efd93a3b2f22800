"""From a query to a decision: rules, score, policy, and the verdict on the edge's answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from router.config import Check
from router.decision import Decision, Rules, Target, decide, select_eligible
from router.health import Health
from router.policy import Policy
from router.query import Conversation, Query
from router.routing_metrics import RoutingMetrics
from router.scoring import EdgeAnswer, Scorer
from router.steering import Steering


@dataclass(frozen=True, slots=True)
class ExplainedDecision:
    """A decision, and what each signal added to its score, in log-odds."""

    decision: Decision
    signals: Mapping[str, float] = field(default_factory=dict)


class Chooser:
    """Who answers what. It calls no target."""

    def __init__(
        self,
        targets: Sequence[Target],
        health: Health,
        scorer: Scorer,
        policy: Policy,
        check: Check,
        metrics: RoutingMetrics,
        steering: Steering,
    ) -> None:
        self._targets = targets
        self._health = health
        self._scorer = scorer
        self._policy = policy
        self._check = check
        self._metrics = metrics
        self._steering = steering

    async def choose(self, query: Query, rules: Rules) -> Decision:
        """Where the query goes.

        Raises:
            RequestError: a rule leaves no target.
            UnavailableError: no target that may answer is up.
        """
        eligible = select_eligible(rules, self._targets)
        if eligible.needs_score and rules.threshold is None:
            self._steering.look(query, eligible.targets, self._health.up())
        score = await self._scorer.score(query, self._threshold(rules)) if eligible.needs_score else None
        decision = decide(
            eligible,
            score=score,
            threshold=self._threshold(rules),
            up=self._health.up(),
            band=self._band(query, rules),
        )
        return self._note_shift(decision, rules)

    async def explain(self, query: Query, rules: Rules) -> ExplainedDecision:
        """Where the query would go now, and why."""
        decision = await self.choose(query, rules)
        if decision.score is None:
            return ExplainedDecision(decision)
        explanation = await self._scorer.explain(query, decision.threshold)
        return ExplainedDecision(decision, explanation.signals)

    async def judge(self, decision: Decision, query: Query, rules: Rules, answer: EdgeAnswer) -> Decision:
        """The decision now that the answer on trial, or its beginning, is known."""
        if decision.score is None:
            raise ValueError("an answer is on trial for its score")
        score = await self._scorer.check(query.prompt, decision.score, answer)
        return self._note_shift(decision.judge(score, self._threshold(rules)), rules)

    def observe(self, decision: Decision, rules: Rules) -> None:
        """A query is sent there: count it, and let the policy learn, unless the request set a threshold of its own."""
        if decision.score is None:
            return
        self._metrics.count_score(decision.score)
        if rules.threshold is None:
            self._policy.observe(decision.score.value, decision.tier)

    def _threshold(self, rules: Rules) -> float:
        """As it is now: a policy may move it from one reading to the next, and load moves the policy's."""
        return self._steering.apply(self._policy.threshold) if rules.threshold is None else rules.threshold

    def _note_shift(self, decision: Decision, rules: Rules) -> Decision:
        moved = decision.score is not None and rules.threshold is None
        return replace(decision, shift=self._steering.shift) if moved and self._steering.shift else decision

    def _band(self, query: Query, rules: Rules) -> float | None:
        """How near the threshold a score puts the edge's answer on trial; None when none does."""
        if not self._scorer.checks_answers or not _has_one_answer(query):
            return None
        if rules.check is None:
            return self._check.band if self._check.enabled else None
        return math.inf if rules.check else None


def _has_one_answer(query: Query) -> bool:
    """Several would each need a verdict, and the client one model's answers."""
    texts = 1 if isinstance(query.prompt, Conversation) else len(query.prompt.texts)
    return texts == query.parameters.n == 1
