"""Answers in OpenAI's two dialects, chat and text; one object says one request's answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from edge import wire
from edge.answering import Piece
from edge.engine.answer import Candidate, TokenLogprobs
from edge.engine.events import Finish

_LOWEST = -9999.0  # OpenAI's stand-in for minus infinity, which JSON cannot say


@dataclass(slots=True)
class Whole:
    """One answer, collected."""

    text: str = ""
    tokens: list[TokenLogprobs] = field(default_factory=list)
    finish: str | None = None


class Tally:
    """Collects a request's answers and counts their tokens; `n` answers share a prompt."""

    def __init__(self, n: int) -> None:
        self.answers: dict[int, Whole] = {}
        self._n = n
        self._prompts: dict[int, int] = {}
        self._completion = 0

    def add(self, piece: Piece) -> None:
        """Take the next piece."""
        index, event = piece
        answer = self.answers.setdefault(index, Whole())
        if isinstance(event, Finish):
            answer.finish = event.reason.value
            self._prompts[index // self._n] = event.prompt_tokens
            self._completion += event.completion_tokens
        else:
            answer.text += event.text
            answer.tokens += event.tokens

    def usage(self) -> wire.Usage:
        """Token counts of what has finished; a prompt counts once."""
        prompt = sum(self._prompts.values())
        return wire.Usage(prompt, self._completion, prompt + self._completion)


class Dialect(Protocol):
    """How an endpoint says its answers."""

    def whole(self, tally: Tally) -> Struct:
        """The body of answers in one piece."""
        ...

    def opening(self, answers: int) -> Sequence[Struct]:
        """The chunks before the first piece."""
        ...

    def piece(self, piece: Piece) -> Struct:
        """The chunk of one piece."""
        ...

    def closing(self, usage: wire.Usage) -> Struct:
        """The chunk of token counts, without choices."""
        ...


class ChatDialect:
    """`/v1/chat/completions`."""

    def __init__(self, answer_id: str, created: int, model: str, *, logprobs: bool, include_usage: bool) -> None:
        self._id = answer_id
        self._created = created
        self._model = model
        self._logprobs = logprobs
        self._no_usage: UnsetType | None = None if include_usage else UNSET

    def whole(self, tally: Tally) -> wire.ChatCompletion:
        """`chat.completion`."""
        choices = [
            wire.ChatChoice(index, wire.AssistantMessage(one.text), one.finish, self._said(one.tokens))
            for index, one in sorted(tally.answers.items())
        ]
        return wire.ChatCompletion(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=tally.usage()
        )

    def opening(self, answers: int) -> list[wire.ChatCompletionChunk]:
        """One chunk with the role for each answer."""
        role = wire.ChatDelta(role="assistant", content="")
        return [self._chunk([wire.ChatChunkChoice(index, role)]) for index in range(answers)]

    def piece(self, piece: Piece) -> wire.ChatCompletionChunk:
        """`chat.completion.chunk`; the one with a finish reason ends its answer."""
        index, event = piece
        if isinstance(event, Finish):
            return self._chunk([wire.ChatChunkChoice(index, wire.ChatDelta(), event.reason.value)])
        said = wire.ChatDelta(content=event.text)
        return self._chunk([wire.ChatChunkChoice(index, said, None, self._said(event.tokens))])

    def closing(self, usage: wire.Usage) -> wire.ChatCompletionChunk:
        """The chunk that `stream_options.include_usage` asks for."""
        return msgspec.structs.replace(self._chunk([]), usage=usage)

    def _chunk(self, choices: list[wire.ChatChunkChoice]) -> wire.ChatCompletionChunk:
        return wire.ChatCompletionChunk(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=self._no_usage
        )

    def _said(self, tokens: Sequence[TokenLogprobs]) -> wire.ChatLogprobs | None:
        if not self._logprobs:
            return None
        return wire.ChatLogprobs([_token_logprob(token) for token in tokens])


class TextDialect:
    """`/v1/completions`."""

    def __init__(self, answer_id: str, created: int, model: str, *, logprobs: bool, include_usage: bool) -> None:
        self._id = answer_id
        self._created = created
        self._model = model
        self._logprobs = logprobs
        self._no_usage: UnsetType | None = None if include_usage else UNSET
        self._offsets: dict[int, int] = {}

    def whole(self, tally: Tally) -> wire.TextCompletion:
        """`text_completion`."""
        choices = [
            wire.TextChoice(index, one.text, one.finish, self._said(index, one.tokens))
            for index, one in sorted(tally.answers.items())
        ]
        return msgspec.structs.replace(self._chunk(choices), usage=tally.usage())

    def opening(self, answers: int) -> Sequence[wire.TextCompletion]:
        """Nothing: text has no role."""
        return ()

    def piece(self, piece: Piece) -> wire.TextCompletion:
        """A part of one text; the one with a finish reason ends it."""
        index, event = piece
        if isinstance(event, Finish):
            return self._chunk([wire.TextChoice(index, "", event.reason.value)])
        return self._chunk([wire.TextChoice(index, event.text, None, self._said(index, event.tokens))])

    def closing(self, usage: wire.Usage) -> wire.TextCompletion:
        """The chunk that `stream_options.include_usage` asks for."""
        return msgspec.structs.replace(self._chunk([]), usage=usage)

    def _chunk(self, choices: list[wire.TextChoice]) -> wire.TextCompletion:
        return wire.TextCompletion(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=self._no_usage
        )

    def _said(self, index: int, tokens: Sequence[TokenLogprobs]) -> wire.TextLogprobs | None:
        if not self._logprobs:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(token.chosen.text)
        return wire.TextLogprobs(
            [token.chosen.text for token in tokens],
            [_finite(token.chosen) for token in tokens],
            [{top.text: _finite(top) for top in token.top} for token in tokens],
            offsets,
        )


def _token_logprob(token: TokenLogprobs) -> wire.TokenLogprob:
    chosen = token.chosen
    top = [wire.TopLogprob(one.text, _finite(one), list(one.raw)) for one in token.top]
    return wire.TokenLogprob(chosen.text, _finite(chosen), list(chosen.raw), top)


def _finite(candidate: Candidate) -> float:
    return max(candidate.logprob, _LOWEST)
