"""
What clients send: OpenAI's request bodies (https://platform.openai.com/docs/api-reference), strictly typed. Unknown
fields are ignored; known ones that this server cannot honour are refused unless their value changes nothing.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edge import bodies
from edge.bodies import MOST_ANSWERS, TEMPLATE_ROLES, Inputs, MaxTokens, Text, TokenId, TokenIds, TopLogprobs
from edge.engine.grammar import ANY_OBJECT
from edge.engine.sampling import Sampling
from edge.failures import ApiError, refuse

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")


class Message(bodies.ChatMessage, frozen=True):
    """One turn of the conversation."""

    def turn(self) -> dict[str, str]:
        """As chat templates want it.

        Raises:
            ApiError: a part is no text.
        """
        for part in self.parts():
            if not isinstance(part, bodies.TextPart | bodies.RefusalPart):
                raise _unreadable(part)
        turn = {"role": TEMPLATE_ROLES.get(self.role, self.role), "content": self.text()}
        return turn | ({"name": self.name} if self.name else {})


class GenerationRequest(bodies.GenerationBody, frozen=True, kw_only=True):
    """What chat and text completions share."""

    model: str | None = None

    def check(self) -> None:
        """
        Raises:
            ApiError: a parameter asks for what this server cannot do.
        """
        if self.stream_options is not None and not self.stream:
            raise refuse("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        for name, asked in self.unsupported().items():
            if asked:
                raise refuse(f"This server cannot honour '{name}'.", param=name, code="unsupported_parameter")

    def unsupported(self) -> Mapping[str, Any]:
        """Parameters that cannot be honoured; a true value asks for one."""
        return {
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "logit_bias": self.logit_bias,
        }

    def sampling(self, temperature: float) -> Sampling:
        """How to choose tokens; `temperature` is for requests that give none."""
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=self.stops(),
            seed=self.seed,
        )


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=2048)]
    max_completion_tokens: MaxTokens = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs = None
    response_format: bodies.AnswerFormat | None = None
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None

    def unsupported(self) -> Mapping[str, Any]:
        """Parameters that cannot be honoured; a true value asks for one."""
        return {**super().unsupported(), "tools": self.tools, "functions": self.functions}

    def check(self) -> None:
        """
        Raises:
            ApiError: a parameter asks for what this server cannot do.
        """
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise refuse("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")

    def sampling(self, temperature: float) -> Sampling:
        """How to choose tokens; `temperature` is for requests that give none."""
        return msgspec.structs.replace(
            super().sampling(temperature),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            json_schema=_schema(self.response_format),
        )


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/completions`; the prompt is text or token ids of this model, one or several."""

    prompt: Text | Annotated[list[Text | TokenId | TokenIds], Meta(min_length=1)]
    logprobs: TopLogprobs = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None

    def unsupported(self) -> Mapping[str, Any]:
        """Parameters that cannot be honoured; a true value asks for one."""
        best_of = (self.best_of or 1) > (self.n or 1)
        mine = {"echo": self.echo, "suffix": self.suffix, "best_of": best_of}
        return {**super().unsupported(), **mine}

    def sampling(self, temperature: float) -> Sampling:
        """How to choose tokens; `temperature` is for requests that give none."""
        return msgspec.structs.replace(super().sampling(temperature), logprobs=self.logprobs)

    def prompts(self) -> Inputs:
        """
        Raises:
            ApiError: a mixed list, or too many answers.
        """
        found = read_texts(self.prompt, "prompt")
        if len(found) * (self.n or 1) > MOST_ANSWERS:
            raise refuse(f"'prompt' and 'n' ask for more than {MOST_ANSWERS} answers.", param="prompt")
        return found


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    input: Text | Annotated[list[Text | TokenId | TokenIds], Meta(min_length=1, max_length=2048)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None


def read_texts(given: Text | list[Text | TokenId | TokenIds], param: str) -> Inputs:
    """Texts, or lists of token ids.

    Raises:
        ApiError: the list mixes them.
    """
    try:
        return bodies.read_inputs(given)
    except ValueError as exc:
        raise refuse(f"Invalid '{param}': {exc}.", param=param) from exc


def read_priority(given: str | None) -> int:
    """`x-priority` as a rank, 0 the most urgent.

    Raises:
        ApiError: another word.
    """
    ranks = {"interactive": 0, "standard": 1, "batch": 2}
    if given is None:
        return ranks["standard"]
    if given not in ranks:
        raise refuse(f"Invalid 'x-priority': use one of {', '.join(ranks)}.", param="x-priority")
    return ranks[given]


def read_deadline_ms(given: str | None) -> int | None:
    """`x-deadline-ms`, the time left.

    Raises:
        ApiError: no number of milliseconds.
    """
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 12):
        raise refuse("Invalid 'x-deadline-ms': give the milliseconds that are left.", param="x-deadline-ms")
    return int(given)


def read_trace_id(given: str | None) -> str:
    """The trace in a `traceparent` (https://www.w3.org/TR/trace-context/); empty if there is none."""
    match = _TRACEPARENT.match(given) if given else None
    return match[1] if match else ""


def _unreadable(part: Struct) -> ApiError:
    kind = part.__struct_config__.tag
    return refuse(f"This model reads text only, no '{kind}'.", param="messages", code="unsupported_parameter")


def _schema(asked: bodies.AnswerFormat | None) -> str | None:
    match asked:
        case bodies.JsonSchemaFormat():
            return bytes(asked.json_schema.schema).decode()
        case bodies.JsonObjectFormat():
            return ANY_OBJECT
        case _:
            return None
