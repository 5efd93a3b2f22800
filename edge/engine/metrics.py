"""The decode loop's counters as metrics: one set of names, wherever the loop runs (the edge, Triton's `chat`)."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct


class Family(Struct, frozen=True):
    """Metrics of one name, each also labelled with `model`."""

    name: str
    """A counter's ends in `_total`."""
    help: str
    label: str
    members: Mapping[str, str]
    """For each value of the label, the attribute of `Statistics`."""


def _named_alike(*names: str) -> dict[str, str]:
    return {name: name for name in names}


COUNTERS: Final = (
    Family(
        "hybrid_chat_generations_total",
        "Generated sequences by what became of them; started_late is 0, or deadlines are not kept",
        "outcome",
        _named_alike("started", "started_late", "finished", "cancelled", "expired", "failed"),
    ),
    Family(
        "hybrid_chat_tokens_total",
        "Tokens read (prompt) and generated (completion)",
        "kind",
        {"prompt": "prompt_tokens", "completion": "completion_tokens"},
    ),
)
GAUGES: Final = (
    Family(
        "hybrid_chat_generations_now",
        "Sequences that generate (active) or wait for a slot (waiting)",
        "state",
        _named_alike("active", "waiting"),
    ),
)
