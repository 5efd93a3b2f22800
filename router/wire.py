"""
What clients send: OpenAI's request bodies (https://platform.openai.com/docs/api-reference), decoded once and strictly
typed; unknown fields are ignored, as OpenAI-compatible servers do. Each body becomes a value of `router.query` and the
set of capabilities that it needs of a target. Answers use the structs of `edge.wire`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edge import bodies
from edge.bodies import MOST_ANSWERS, TEMPLATE_ROLES, MaxTokens, Text, TokenId, TokenIds, TopLogprobs
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

ServiceTier = Literal["auto", "default", "flex", "scale", "priority"] | None
Absent = msgspec.Raw | UnsetType

_PRIORITIES = {"priority": Priority.INTERACTIVE, "scale": Priority.INTERACTIVE, "flex": Priority.BATCH}
_PART_NEEDS: dict[type, Capability] = {
    bodies.ImagePart: Capability.IMAGES,
    bodies.AudioPart: Capability.AUDIO,
    bodies.FilePart: Capability.FILES,
}


class ChatMessage(bodies.ChatMessage, frozen=True):
    """One turn of the conversation."""

    def needs(self) -> set[Capability]:
        """What a target must be able to read."""
        needs: set[Capability] = set()
        if not isinstance(self.content, str):
            needs.update(need for part in self.parts() if (need := _PART_NEEDS.get(type(part))))
        if self.tool_calls or self.role in {"tool", "function"}:
            needs.add(Capability.TOOLS)
        return needs

    def message(self) -> Message:
        """The turn as text."""
        return Message(TEMPLATE_ROLES.get(self.role, self.role), self.text(), self.name)


class GenerationRequest(bodies.GenerationBody, frozen=True, kw_only=True):
    """What chat and text completions share."""

    model: str = AUTO
    service_tier: ServiceTier = None

    @property
    def priority(self) -> Priority:
        """What `service_tier` says of urgency."""
        return _PRIORITIES.get(self.service_tier or "", Priority.STANDARD)

    def shared_needs(self) -> set[Capability]:
        """Capabilities behind parameters whose neutral value needs none."""
        needs: set[Capability] = set()
        if self.frequency_penalty:
            needs.add(Capability.FREQUENCY_PENALTY)
        if self.presence_penalty:
            needs.add(Capability.PRESENCE_PENALTY)
        if self.logit_bias:
            needs.add(Capability.LOGIT_BIAS)
        return needs

    def check_stream_options(self) -> None:
        """OpenAI refuses `stream_options` without `stream`."""
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )

    def shared_parameters(
        self,
        *,
        max_tokens: int | None,
        logprobs: bool,
        top_logprobs: int = 0,
        json_format: JsonFormat | None = None,
    ) -> Parameters:
        """The parameters that both kinds of request carry, and those that each says in its own way."""
        return Parameters(
            max_tokens=max_tokens,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            json_format=json_format,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stops(),
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
    top_logprobs: TopLogprobs = None
    response_format: bodies.AnswerFormat | None = None
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: Absent = UNSET
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Absent = UNSET

    def needs(self) -> frozenset[Capability]:
        """What a target must be able to honour."""
        needs = self.shared_needs()
        if self.tools or self.functions:
            needs.add(Capability.TOOLS)
        if (self.modalities or ["text"]) != ["text"] or _given(self.audio):
            needs.add(Capability.MODALITIES)
        if self.reasoning_effort not in {None, "none"}:
            needs.add(Capability.REASONING_EFFORT)
        if self.verbosity not in {None, "medium"}:
            needs.add(Capability.VERBOSITY)
        if _given(self.web_search_options):
            needs.add(Capability.WEB_SEARCH)
        if isinstance(self.response_format, bodies.JsonObjectFormat):
            needs.add(Capability.JSON_OBJECT)
        if isinstance(self.response_format, bodies.JsonSchemaFormat):
            needs.add(Capability.JSON_SCHEMA)
        for message in self.messages:
            needs |= message.needs()
        return frozenset(needs)

    def query(self) -> Query:
        """The request as the pipeline sees it, without what its headers say.

        Raises:
            RequestError: parameters contradict each other.
        """
        self.check_stream_options()
        if self.top_logprobs and not self.logprobs:
            raise RequestError("The 'top_logprobs' parameter needs 'logprobs' to be true.", param="top_logprobs")
        parameters = self.shared_parameters(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=bool(self.logprobs),
            top_logprobs=self.top_logprobs or 0,
            json_format=_json_format(self.response_format),
        )
        return Query(Conversation(tuple(m.message() for m in self.messages)), parameters, self.priority)


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/completions`. Token prompts are refused: ids belong to one target's tokenizer."""

    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=16)]
    logprobs: TopLogprobs = None
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
        parameters = self.shared_parameters(
            max_tokens=self.max_tokens, logprobs=self.logprobs is not None, top_logprobs=self.logprobs or 0
        )
        texts = (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)
        if len(texts) * parameters.n > MOST_ANSWERS:
            raise RequestError(f"'prompt' and 'n' ask for more than {MOST_ANSWERS} answers.", param="prompt")
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
        try:
            inputs = bodies.read_inputs(self.input)
        except ValueError as exc:
            raise RequestError(f"Invalid 'input': {exc}.", param="input") from exc
        return EmbeddingQuery(inputs, _PRIORITIES.get(self.service_tier or "", Priority.STANDARD))


def _given(value: Absent) -> bool:
    """Whether a parameter of no interest but for its presence is there."""
    return not isinstance(value, UnsetType) and bytes(value) != b"null"


def _json_format(asked: bodies.AnswerFormat | None) -> JsonFormat | None:
    match asked:
        case None:
            return None
        case bodies.JsonSchemaFormat(json_schema=wanted):
            return JsonFormat(bytes(wanted.schema), wanted.name, bool(wanted.strict))
        case bodies.JsonObjectFormat():
            return JsonFormat()
        case _:
            return None
