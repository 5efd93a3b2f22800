"""Answers in OpenAI's two dialects, chat and text; one object says one request's answer."""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from edge import wire
from router.cache.entry import Stamp
from router.query import Completion, Delta, TokenLogprob, Usage


class Dialect(Protocol):
    """How an endpoint says an answer."""

    def whole(self, completion: Completion) -> msgspec.Struct:
        """The body of an answer in one piece."""
        ...

    def opening(self, answers: int) -> Sequence[msgspec.Struct]:
        """The chunks before the first piece."""
        ...

    def piece(self, delta: Delta) -> msgspec.Struct:
        """The chunk of one piece."""
        ...

    def closing(self, usage: Usage) -> msgspec.Struct:
        """The chunk of token counts, without choices."""
        ...


class ChatDialect:
    """`/v1/chat/completions`."""

    def __init__(self, stamp: Stamp, *, model: str, logprobs: bool, include_usage: bool) -> None:
        self._id = f"chatcmpl-{stamp.answer_id}"
        self._created = stamp.created
        self._model = model
        self._logprobs = logprobs
        self._no_usage: UnsetType | None = None if include_usage else UNSET

    def whole(self, completion: Completion) -> wire.ChatCompletion:
        """`chat.completion`."""
        choices = [
            wire.ChatChoice(
                index, wire.AssistantMessage(choice.text), choice.finish.value, self._said_logprobs(choice.logprobs)
            )
            for index, choice in enumerate(completion.choices)
        ]
        return wire.ChatCompletion(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=usage_of(completion.usage)
        )

    def opening(self, answers: int) -> list[wire.ChatCompletionChunk]:
        """One chunk with the role for each answer."""
        role = wire.ChatDelta(role="assistant", content="")
        return [self._chunk([wire.ChatChunkChoice(index, role)]) for index in range(answers)]

    def piece(self, delta: Delta) -> wire.ChatCompletionChunk:
        """`chat.completion.chunk`; one without text ends its answer."""
        said = wire.ChatDelta(content=delta.text or None)
        finish = delta.finish.value if delta.finish else None
        return self._chunk([wire.ChatChunkChoice(delta.index, said, finish, self._said_logprobs(delta.logprobs))])

    def closing(self, usage: Usage) -> wire.ChatCompletionChunk:
        """The chunk that `stream_options.include_usage` asks for."""
        return msgspec.structs.replace(self._chunk([]), usage=usage_of(usage))

    def _chunk(self, choices: list[wire.ChatChunkChoice]) -> wire.ChatCompletionChunk:
        return wire.ChatCompletionChunk(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=self._no_usage
        )

    def _said_logprobs(self, logprobs: Sequence[TokenLogprob]) -> wire.ChatLogprobs | None:
        if not self._logprobs:
            return None
        return wire.ChatLogprobs(
            [
                wire.TokenLogprob(
                    place.token,
                    place.logprob,
                    place.bytes,
                    [wire.TopLogprob(top.token, top.logprob, top.bytes) for top in place.top],
                )
                for place in logprobs
            ]
        )


class TextDialect:
    """`/v1/completions`."""

    def __init__(self, stamp: Stamp, *, model: str, logprobs: bool, include_usage: bool) -> None:
        self._id = f"cmpl-{stamp.answer_id}"
        self._created = stamp.created
        self._model = model
        self._logprobs = logprobs
        self._no_usage: UnsetType | None = None if include_usage else UNSET
        self._offsets: dict[int, int] = {}

    def whole(self, completion: Completion) -> wire.TextCompletion:
        """`text_completion`."""
        choices = [
            wire.TextChoice(index, choice.text, choice.finish.value, self._said_logprobs(index, choice.logprobs))
            for index, choice in enumerate(completion.choices)
        ]
        return msgspec.structs.replace(self._chunk(choices), usage=usage_of(completion.usage))

    def opening(self, answers: int) -> Sequence[wire.TextCompletion]:
        """Nothing: text has no role."""
        return ()

    def piece(self, delta: Delta) -> wire.TextCompletion:
        """A part of one text."""
        finish = delta.finish.value if delta.finish else None
        logprobs = self._said_logprobs(delta.index, delta.logprobs)
        return self._chunk([wire.TextChoice(delta.index, delta.text, finish, logprobs)])

    def closing(self, usage: Usage) -> wire.TextCompletion:
        """The chunk that `stream_options.include_usage` asks for."""
        return msgspec.structs.replace(self._chunk([]), usage=usage_of(usage))

    def _chunk(self, choices: list[wire.TextChoice]) -> wire.TextCompletion:
        return wire.TextCompletion(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=self._no_usage
        )

    def _said_logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> wire.TextLogprobs | None:
        if not self._logprobs:
            return None
        offsets = []
        for place in logprobs:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(place.token)
        return wire.TextLogprobs(
            [place.token for place in logprobs],
            [place.logprob for place in logprobs],
            [{top.token: top.logprob for top in place.top} for place in logprobs],
            offsets,
        )


def usage_of(usage: Usage) -> wire.Usage:
    """Token counts with their sum."""
    return wire.Usage(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens)
