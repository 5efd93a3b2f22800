"""
OpenAI's request bodies (https://platform.openai.com/docs/api-reference), as far as every server of ours reads them
alike: bounds of single values, content parts, answer formats, and what chat and text completions share. Unknown fields
are ignored.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

MOST_ANSWERS = 16

Text = Annotated[str, Meta(max_length=1_048_576)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TokenIds = Annotated[list[TokenId], Meta(min_length=1, max_length=131_072)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)] | None
TopLogprobs = Annotated[int, Meta(ge=0, le=20)] | None
Penalty = Annotated[float, Meta(ge=-2, le=2)] | None
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Inputs = tuple[str, ...] | tuple[tuple[int, ...], ...]

TEMPLATE_ROLES = {"developer": "system", "function": "tool"}
"""Newer and older names of roles that chat templates know."""


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """A piece of text."""

    text: Text


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    """An assistant's refusal, given back as history."""

    refusal: Text


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image."""


class AudioPart(Struct, frozen=True, tag_field="type", tag="input_audio"):
    """Sound."""


class FilePart(Struct, frozen=True, tag_field="type", tag="file"):
    """A file."""


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class ChatMessage(Struct, frozen=True):
    """One turn of the conversation."""

    role: Role
    content: Text | Annotated[list[Part], Meta(max_length=256)] | None = None
    name: str | None = None
    tool_calls: list[msgspec.Raw] | None = None

    def parts(self) -> list[Part]:
        """The content, in pieces."""
        if isinstance(self.content, str):
            return [TextPart(self.content)]
        return self.content or []

    def text(self) -> str:
        """What the parts say in words."""
        if isinstance(self.content, str):
            return self.content
        return "".join(
            part.text if isinstance(part, TextPart) else part.refusal
            for part in self.content or []
            if isinstance(part, TextPart | RefusalPart)
        )


class StreamOptions(Struct, frozen=True):
    """How to stream."""

    include_usage: bool = False


class PlainFormat(Struct, frozen=True, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class NamedSchema(Struct, frozen=True):
    """A named JSON Schema."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema: msgspec.Raw
    strict: bool | None = None


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that satisfies a schema."""

    json_schema: NamedSchema


AnswerFormat = PlainFormat | JsonObjectFormat | JsonSchemaFormat


class GenerationBody(Struct, frozen=True, kw_only=True):
    """What chat and text completions share."""

    max_tokens: MaxTokens = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_ANSWERS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def read_inputs(given: Text | list[Text | TokenId | TokenIds]) -> Inputs:
    """One or several texts, or lists of token ids.

    Raises:
        ValueError: the list mixes them.
    """
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
    raise ValueError("a list holds either strings, or tokens, or lists of tokens")
