"""The decode loop's counters as Triton metrics, beside Triton's own on the metrics port."""

from typing import Any, Final

import triton_python_backend_utils as pb_utils

from edge.engine.generation import Statistics

_OUTCOMES: Final = ("started", "finished", "cancelled", "expired", "failed")
_STATES: Final = ("active", "waiting")
_KINDS: Final = ("prompt", "completion")


class ChatMetrics:
    """Not for every decode step: each change of a metric is a message to tritonserver."""

    def __init__(self, model: str) -> None:
        # A family must outlive its metrics; both live as long as this object.
        self._sequences = pb_utils.MetricFamily(
            name="hybrid_chat_sequences_total",
            description="Generated sequences by what became of them",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._tokens = pb_utils.MetricFamily(
            name="hybrid_chat_tokens_total",
            description="Tokens read (prompt) and generated (completion)",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._now = pb_utils.MetricFamily(
            name="hybrid_chat_sequences",
            description="Sequences that generate (active) or wait for a slot (waiting)",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._counters: dict[str, Any] = {
            **{key: self._sequences.Metric(labels={"model": model, "outcome": key}) for key in _OUTCOMES},
            **{f"{key}_tokens": self._tokens.Metric(labels={"model": model, "kind": key}) for key in _KINDS},
        }
        self._gauges: dict[str, Any] = {key: self._now.Metric(labels={"model": model, "state": key}) for key in _STATES}
        self._published = Statistics(*(0 for _ in Statistics.__struct_fields__))

    def publish(self, statistics: Statistics) -> bool:
        """Publish what has changed; returns whether sequences are there that will change it again."""
        for key, counter in self._counters.items():
            if increment := getattr(statistics, key) - getattr(self._published, key):
                counter.increment(increment)
        for key, gauge in self._gauges.items():
            if (now := getattr(statistics, key)) != getattr(self._published, key):
                gauge.set(now)
        self._published = statistics
        return bool(statistics.active or statistics.waiting)
