"""The decode loop's counters as Triton metrics, beside Triton's own on the metrics port."""

import time
from typing import Any, Final

import triton_python_backend_utils as pb_utils

from edge.engine.generation import Statistics

_PUBLISH_EVERY_S: Final = 0.2
_OUTCOMES: Final = ("started", "finished", "cancelled", "expired", "failed")
_STATES: Final = ("active", "waiting")
_KINDS: Final = ("prompt", "completion")


class ChatMetrics:
    """Published on change, and not at every decode step: each change of a metric is a message to tritonserver."""

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
        self._due = 0.0

    def publish(self, statistics: Statistics) -> bool:
        """Publish `statistics` if it is time to; returns whether there is more to come."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _PUBLISH_EVERY_S
            for key, counter in self._counters.items():
                if increment := getattr(statistics, key) - getattr(self._published, key):
                    counter.increment(increment)
            for key, gauge in self._gauges.items():
                gauge.set(getattr(statistics, key))
            self._published = statistics
        return bool(statistics.active or statistics.waiting or statistics != self._published)
