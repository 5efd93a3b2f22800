"""
OpenAI's answers as structs (https://platform.openai.com/docs/api-reference): what the edge and the router send, and
what the router reads from any OpenAI-compatible server. Unknown fields are ignored, most are optional.
"""

from typing import Final

from msgspec import UNSET, Struct, UnsetType

MODEL_VERSION: Final = "x-model-version"
"""Header of the edge's readiness and answers: the identities of its artifacts."""


class ErrorDetail(Struct, frozen=True):
    """What went wrong."""

    message: str
    type: str = "server_error"
    param: str | None = None
    code: str | int | None = None


class ErrorBody(Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class Usage(Struct, frozen=True):
    """Token counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class TopLogprob(Struct, frozen=True):
    """One of the likeliest tokens at a place."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(Struct, frozen=True):
    """The chosen token at a place."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class ChatLogprobs(Struct, frozen=True):
    """Log probabilities of a chat answer, or of a piece of it."""

    content: list[TokenLogprob] | None = None


class AssistantMessage(Struct, frozen=True):
    """A whole chat answer."""

    content: str | None = None
    role: str = "assistant"
    refusal: str | None = None


class ChatChoice(Struct, frozen=True):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    id: str
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: list[ChatChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None


class ChatDelta(Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to an answer."""

    role: str | None = None
    content: str | None = None


class ChatChunkChoice(Struct, frozen=True):
    """A chunk's part of one answer."""

    index: int
    delta: ChatDelta
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """One event of a chat stream; `usage` is absent unless asked for, then null on all but the last chunk."""

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET


class TextLogprobs(Struct, frozen=True):
    """Log probabilities of a text completion: parallel lists, one element a token."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] = []


class TextChoice(Struct, frozen=True):
    """One text completion, or a piece of it."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: TextLogprobs | None = None


class TextCompletion(Struct, frozen=True, kw_only=True):
    """`POST /v1/completions`, whole or one event of its stream."""

    id: str = ""
    object: str = "text_completion"
    created: int = 0
    model: str = ""
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET


class Embedding(Struct, frozen=True):
    """One vector: numbers, or base64 of little-endian float32.

    `tokens` is how many its input had. OpenAI gives only their sum; a cache of single vectors needs each.
    """

    index: int
    embedding: list[float] | str
    object: str = "embedding"
    tokens: int | UnsetType = UNSET


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    object: str = "list"
    data: list[Embedding]
    model: str = ""
    usage: Usage = Usage()


class Model(Struct, frozen=True):
    """What `model` may name; `version` is ours: it changes when the model does."""

    id: str
    owned_by: str = "hybrid"
    created: int = 0
    object: str = "model"
    version: str | UnsetType = UNSET


class ModelList(Struct, frozen=True):
    """`GET /v1/models`."""

    data: list[Model]
    object: str = "list"
