"""What operators see of routing: where scores lie, what became of trials, and how the policy stands."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.decision import Evidence, Reason, Score, Target
from router.errors import RouterError
from router.policy import Policy
from router.query import Usage
from router.telemetry import Telemetry

_TWENTIETHS = tuple(n / 20 for n in range(1, 21))


class RoutingMetrics:
    """Counts what `router.pipeline` decides."""

    def __init__(self, telemetry: Telemetry) -> None:
        scores = telemetry.histogram("score", "Last scores, by the best evidence", "evidence", buckets=_TWENTIETHS)
        trials = telemetry.counter("trials", "Edge answers judged, by the reason of what the client got", "reason")
        self._scores = {evidence: scores.labels(evidence) for evidence in Evidence}
        self._trials = {reason: trials.labels(reason) for reason in Reason}
        self._telemetry = telemetry

    def count_score(self, score: Score) -> None:
        """A query was sent by this score."""
        self._scores[score.evidence].observe(score.value)

    def count_trial(self, reason: Reason) -> None:
        """An answer was judged, and the client gets this."""
        self._trials[reason].inc()

    def count_failure(self, target: Target, error: RouterError) -> None:
        """A call brought no answer, or none of a stream's pieces; another target may have answered."""
        self._telemetry.count_failure(target.name, error.code or error.type)

    def count_dropped(self, target: Target, usage: Usage) -> None:
        """An answer that no client gets took tokens all the same."""
        self._telemetry.count_tokens(target.tier, target.name, usage)


class PolicyCollector(Collector):
    """The policy's statistics, read when somebody looks."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Threshold, share, and each window's money."""
        now = self._policy.statistics()
        yield GaugeMetricFamily("hybrid_policy_threshold", "Scores from here up go to the cloud", now.threshold)
        yield GaugeMetricFamily("hybrid_policy_warm", "Whether the policy has seen enough", float(now.warm))
        if now.cloud_share is not None:
            yield GaugeMetricFamily("hybrid_policy_cloud_share", "Of the last scored requests", now.cloud_share)
        if now.balances:
            money = GaugeMetricFamily("hybrid_policy_money", "In the prices' currency", labels=("period", "what"))
            refused = GaugeMetricFamily("hybrid_policy_refused_calls", "Not affordable", labels=("period",))
            for balance in now.balances:
                money.add_metric([balance.period, "limit"], float(balance.limit))
                money.add_metric([balance.period, "paid"], float(balance.paid))
                money.add_metric([balance.period, "reserved"], float(balance.reserved))
                refused.add_metric([balance.period], balance.refused)
            yield money
            yield refused
