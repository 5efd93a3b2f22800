"""What this router counted, read from its `/metrics`: that distinct bodies met no cache, and how many were embedded."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

_SAMPLES: Final[Mapping[tuple[str, str, str], str]] = {
    ("hybrid_cache_hits_total", "cache_tier", "memory"): "record_hits",
    ("hybrid_embedding_cache_lookups_total", "result", "hit"): "vector_hits",
    ("hybrid_embedding_cache_lookups_total", "result", "miss"): "embedded",
    ("hybrid_embedder_misses_total", "", ""): "not_had",
    ("hybrid_semantic_lookups_total", "outcome", "hit"): "semantic_hits",
    ("hybrid_trials_total", "", ""): "trials",
    ("hybrid_requests_total", "", ""): "requests",
}


@dataclass(slots=True)
class Counters:
    """Counts since the start, or between two readings.

    Record hits are those of stored answers and of vectors. `embedded` is how often the full model was asked for a
    vector, `not_had` how often that was busy, late or failed.
    """

    requests: int = 0
    record_hits: int = 0
    vector_hits: int = 0
    semantic_hits: int = 0
    embedded: int = 0
    not_had: int = 0
    trials: int = 0

    @property
    def answer_hits(self) -> int:
        """Answers that were stored for the same question, or for one like it."""
        return self.record_hits - self.vector_hits + self.semantic_hits

    def since(self, earlier: "Counters") -> "Counters":
        """The difference."""
        return Counters(*(getattr(self, one.name) - getattr(earlier, one.name) for one in fields(self)))


def read_counters(url: str, headers: Mapping[str, str]) -> Counters:
    """Of the router that listens there."""
    text = httpx.get(f"{url}/metrics", headers=headers, timeout=30, trust_env=False).raise_for_status().text
    found = Counters()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for (name, label, value), counter in _SAMPLES.items():
                if sample.name == name and sample.labels.get(label, "") == value:
                    setattr(found, counter, getattr(found, counter) + int(sample.value))
    return found
