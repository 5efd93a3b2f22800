"""
What clients send: OpenAI's request bodies (https://platform.openai.com/docs/api-reference), decoded once and strictly
typed; unknown fields are ignored, as OpenAI-compatible servers do. Each body becomes a value of `router.query` and the
set of capabilities that it needs of a target. Answers use the structs of `edge.wire`.
"""

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from router.decision import AUTO
from router.errors import RequestError
from router.query import (
    Capability,
    Conversation,
    EmbeddingQuery,
    JsonFormat,
    Message,
    Parameters,
    Priority,
    Query,
    RawPrompts,
)

Text = Annotated[str, Meta(max_length=1_048_576)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=4)] | None
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2)] | None
TopP = Annotated[float, Meta(gt=0, le=1)] | None
Penalty = Annotated[float, Meta(ge=-2, le=2)] | None
TokenIds = Annotated[list[TokenId], Meta(min_length=1, max_length=8192)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)] | None
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None
Answers = Annotated[int, Meta(ge=1, le=16)] | None
ServiceTier = Literal["auto", "default", "flex", "scale", "priority"] | None
Absent = msgspec.Raw | None | UnsetType

_PRIORITIES = {"priority": Priority.INTERACTIVE, "scale": Priority.INTERACTIVE, "flex": Priority.BATCH}
_ROLES = {"developer": "system", "function": "tool"}


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """A piece of text."""

    text: Text


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    """An assistant's refusal, given back as history."""

    refusal: Text


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image; no target of ours reads one unless it declares `messages.image_url`."""


class AudioPart(Struct, frozen=True, tag_field="type", tag="input_audio"):
    """Sound."""


class FilePart(Struct, frozen=True, tag_field="type", tag="file"):
    """A file."""


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart
_PART_NEEDS: dict[type, Capability] = {
    ImagePart: Capability.IMAGES,
    AudioPart: Capability.AUDIO,
    FilePart: Capability.FILES,
}


class ChatMessage(Struct, frozen=True):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[list[Part], Meta(max_length=256)] | None = None
    name: str | None = None
    tool_calls: list[msgspec.Raw] | None = None

    def needs(self) -> set[Capability]:
        """What a target must be able to read."""
        parts = self.content if isinstance(self.content, list) else []
        needs = {need for part in parts if (need := _PART_NEEDS.get(type(part)))}
        return needs | {Capability.TOOLS} if self.tool_calls or self.role in {"tool", "function"} else needs

    def message(self) -> Message:
        """The turn as text."""
        if isinstance(self.content, list):
            text = "".join(
                part.text if isinstance(part, TextPart) else part.refusal
                for part in self.content
                if isinstance(part, TextPart | RefusalPart)
            )
        else:
            text = self.content or ""
        return Message(_ROLES.get(self.role, self.role), text, self.name)


class StreamOptions(Struct, frozen=True):
    """How to stream."""

    include_usage: bool = False


class PlainFormat(Struct, frozen=True, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class SchemaFormat(Struct, frozen=True):
    """A named JSON Schema."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema: msgspec.Raw
    strict: bool | None = None


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that satisfies a schema."""

    json_schema: SchemaFormat


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """What chat and text completions share."""

    model: str = AUTO
    max_tokens: MaxTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    stop: Stop = None
    seed: Seed = None
    n: Answers = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    service_tier: ServiceTier = None

    @property
    def priority(self) -> Priority:
        """What `service_tier` says of urgency."""
        return _PRIORITIES.get(self.service_tier or "", Priority.STANDARD)

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def shared_needs(self) -> set[Capability]:
        """Capabilities behind parameters whose neutral value needs none."""
        asked = {
            Capability.FREQUENCY_PENALTY: self.frequency_penalty,
            Capability.PRESENCE_PENALTY: self.presence_penalty,
            Capability.LOGIT_BIAS: self.logit_bias,
        }
        return {need for need, value in asked.items() if value}

    def check_stream_options(self) -> None:
        """OpenAI refuses `stream_options` without `stream`."""
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )

    def shared_parameters(self) -> Parameters:
        """The parameters that both kinds of request carry."""
        return Parameters(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            seed=self.seed,
            n=self.n or 1,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=self.logit_bias or {},
        )


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=2048)]
    max_completion_tokens: MaxTokens = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: PlainFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: Absent = UNSET
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Absent = UNSET

    def needs(self) -> frozenset[Capability]:
        """What a target must be able to honour."""
        asked = {
            Capability.TOOLS: self.tools or self.functions,
            Capability.MODALITIES: (self.modalities or ["text"]) != ["text"] or _given(self.audio),
            Capability.REASONING_EFFORT: self.reasoning_effort not in {None, "none"},
            Capability.VERBOSITY: self.verbosity not in {None, "medium"},
            Capability.WEB_SEARCH: _given(self.web_search_options),
            Capability.JSON_OBJECT: isinstance(self.response_format, JsonObjectFormat),
            Capability.JSON_SCHEMA: isinstance(self.response_format, JsonSchemaFormat),
        }
        needs = self.shared_needs() | {need for need, value in asked.items() if value}
        return frozenset(needs.union(*(message.needs() for message in self.messages)))

    def query(self) -> Query:
        """The request as the pipeline sees it, without what its headers say.

        Raises:
            RequestError: parameters contradict each other.
        """
        self.check_stream_options()
        if self.top_logprobs and not self.logprobs:
            raise RequestError("The 'top_logprobs' parameter needs 'logprobs' to be true.", param="top_logprobs")
        parameters = replace(
            self.shared_parameters(),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=bool(self.logprobs),
            top_logprobs=self.top_logprobs or 0,
            json_format=_json_format(self.response_format),
        )
        return Query(Conversation(tuple(m.message() for m in self.messages)), parameters, self.priority)


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/completions`. Token prompts are refused: ids belong to one target's tokenizer."""

    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=16)]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None

    def needs(self) -> frozenset[Capability]:
        """What a target must be able to honour."""
        asked = {
            Capability.ECHO: self.echo,
            Capability.SUFFIX: self.suffix,
            Capability.BEST_OF: self.best_of is not None and self.best_of > (self.n or 1),
        }
        return frozenset(self.shared_needs() | {need for need, value in asked.items() if value})

    def query(self) -> Query:
        """The request as the pipeline sees it, without what its headers say.

        Raises:
            RequestError: parameters contradict each other.
        """
        self.check_stream_options()
        parameters = replace(
            self.shared_parameters(), logprobs=self.logprobs is not None, top_logprobs=self.logprobs or 0
        )
        texts = (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)
        return Query(RawPrompts(texts), parameters, self.priority)


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    input: Text | Annotated[list[Text | TokenId | TokenIds], Meta(min_length=1, max_length=2048)]
    model: str = AUTO
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    service_tier: ServiceTier = None

    def query(self) -> EmbeddingQuery:
        """The request as the pipeline sees it, without what its headers say.

        Raises:
            RequestError: the list mixes texts and tokens.
        """
        priority = _PRIORITIES.get(self.service_tier or "", Priority.STANDARD)
        return EmbeddingQuery(_embedding_inputs(self.input), priority)


def _embedding_inputs(given: Text | list[Text | TokenId | TokenIds]) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    texts = tuple(one for one in given if isinstance(one, str))
    tokens = tuple(one for one in given if isinstance(one, int))
    lists = tuple(tuple(one) for one in given if isinstance(one, list))
    if len(texts) == len(given):
        return texts
    if len(tokens) == len(given):
        return (tokens,)
    if len(lists) == len(given):
        return lists
    raise RequestError("Invalid 'input': a list holds either strings, or tokens, or lists of tokens.", param="input")


def _given(value: Absent) -> bool:
    return value is not UNSET and value is not None


def _json_format(asked: PlainFormat | JsonObjectFormat | JsonSchemaFormat | None) -> JsonFormat | None:
    match asked:
        case JsonSchemaFormat(json_schema=wanted):
            return JsonFormat(bytes(wanted.schema), wanted.name, bool(wanted.strict))
        case JsonObjectFormat():
            return JsonFormat()
        case _:
            return None
