"""Targets: whom the router asks."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from router.config.lanes import Lane
from router.config.section import Name, Seconds, Section, Share
from router.decision import Tier
from router.query import Capability

TokenPrice = Annotated[float, Meta(ge=0, le=1e9)]


class Price(Section, frozen=True, kw_only=True):
    """What a target costs, per million tokens, in any one currency.

    Under a budget an answer without `max_tokens` is cut at `most_completion_tokens`, and that much is set aside for it.
    """

    prompt_per_mtok: TokenPrice
    completion_per_mtok: TokenPrice
    most_completion_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096

    @property
    def longest_answer(self) -> float:
        """What an answer without `max_tokens` may cost."""
        return self.completion_per_mtok * self.most_completion_tokens / 1e6


class Canary(Section, frozen=True, kw_only=True):
    """The target serves another version of the target `of`, and gets `share` of what that would get.

    Whose share a query is depends on its tenant and the beginning of its conversation: the same query, and a
    conversation as it grows, stay with one version. With a `share_file` the number in it counts instead, as soon as it
    changes.
    """

    of: Name
    share: Share = 0.0
    share_file: Path | None = None


class TargetSection(Section, frozen=True, kw_only=True, tag_field="backend"):
    """What every target says of itself.

    A change of `version` makes the caches forget its answers: for a server that does not say which model it serves, or
    for a setting of it that changes them. Generations take slots of `lane`, embeddings those of `embedding_lane`.
    """

    tier: Tier
    supports: frozenset[Capability] = frozenset()
    connect_s: Seconds = 1.0
    price: Price | None = None
    version: Annotated[str, Meta(pattern=r"^\S{1,128}$")] | None = None
    lane: Lane = Lane()
    embedding_lane: Lane = Lane(slots=16, backlog=256)
    canary: Canary | None = None


class OpenAITarget(TargetSection, frozen=True, kw_only=True, tag="openai"):
    """`edge/`, or any OpenAI-compatible server. `url` ends before `/v1`."""

    url: Annotated[str, Meta(pattern=r"^https?://[^/]+(/.*[^/])?$")]
    chat_model: str | None = None
    embedding_model: str | None = None
    key_file: Path | None = None
    ready_path: str = "/health/ready"
    connections: Annotated[int, Meta(ge=1)] = 256


class Cancel(StrEnum):
    """How a running request is ended early: by a request that only our own `chat` knows, or by cancelling its call.

    Up to Triton 25.03 a cancelled call can kill the server, so `request` is right for our `chat` there; the stock vLLM
    backend needs `call`.
    """

    REQUEST = "request"
    CALL = "call"


class Tls(Section, frozen=True, kw_only=True):
    """Mutual TLS: who may have signed the server's certificate, and what this router shows of itself (PEM files)."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


class TritonTarget(TargetSection, frozen=True, kw_only=True, tag="triton"):
    """A Triton server with a `chat` model that speaks the vLLM backend's contract, and/or an `embed` model.

    `template` is the tokenizer_config.json that holds the chat model's template; `temperature` is for requests that
    give none. Without `tls` everything said to it can be read on the way: keep it on one machine or network of yours.
    """

    address: Annotated[str, Meta(pattern=r"^[^/]+:\d+$")]
    chat_model: str | None = "chat"
    embedding_model: str | None = "embed"
    template: Path | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    cancel: Cancel = Cancel.CALL
    tls: Tls | None = None


AnyTarget = OpenAITarget | TritonTarget
