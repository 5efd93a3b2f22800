"""What `chat` answers: the tensors of one request's responses."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.chat_request import ChatRequest
from cloud.wire import ChatOutput, FinishReason, TokenLogprob, encode_logprobs
from edge.engine.answer import Candidate, TokenLogprobs


@dataclass(slots=True)
class _Choice:
    """One of a request's `n` answers: what came since the last response, and the sums so far."""

    texts: list[str] = field(default_factory=list)
    places: list[TokenLogprobs] = field(default_factory=list)
    new_tokens: int = 0
    tokens: int = 0
    cumulative_logprob: float = 0.0
    finish: FinishReason = FinishReason.UNFINISHED


class Reply:
    """Collects what a request's sequences generate and hands it out as tensors, all of it or the new part."""

    def __init__(self, request: ChatRequest, prompt_tokens: int) -> None:
        self._outputs = request.outputs
        self._scored = request.sampling.logprobs is not None
        self.prompt_tokens = prompt_tokens
        self.fresh = False
        """Whether anything was added since the last `take`."""
        self._choices = [_Choice() for _ in range(request.sampling.n)]
        if request.repeats_prompt:
            for choice in self._choices:
                choice.texts.append(request.prompt)

    @property
    def complete(self) -> bool:
        return all(choice.finish is not FinishReason.UNFINISHED for choice in self._choices)

    @property
    def completion_tokens(self) -> int:
        return sum(choice.tokens for choice in self._choices)

    @property
    def first_finish(self) -> FinishReason:
        return self._choices[0].finish

    def add(self, index: int, text: str, places: tuple[TokenLogprobs, ...], tokens: int) -> None:
        """Add to choice `index`, which has `tokens` tokens in all now."""
        self.fresh = True
        choice = self._choices[index]
        choice.texts.append(text)
        choice.places.extend(places)
        choice.cumulative_logprob += sum(place.chosen.logprob for place in places)
        choice.new_tokens += tokens - choice.tokens
        choice.tokens = tokens

    def finish(self, index: int, reason: FinishReason, tokens: int) -> None:
        self.add(index, "", (), tokens)
        self._choices[index].finish = reason

    def take(self) -> dict[ChatOutput, NDArray[Any]]:
        """Return the wanted tensors, one element a choice, for what was added since the last call."""
        self.fresh = False
        choices = self._choices
        tensors: dict[ChatOutput, NDArray[Any]] = {
            ChatOutput.TEXT_OUTPUT: _bytes(["".join(choice.texts).encode() for choice in choices]),
            ChatOutput.FINISH_REASON: _bytes([choice.finish.encode() for choice in choices]),
            ChatOutput.CUMULATIVE_LOGPROB: np.array([choice.cumulative_logprob for choice in choices], np.float32),
            ChatOutput.NUM_INPUT_TOKENS: np.array([self.prompt_tokens], np.uint32),
            ChatOutput.NUM_OUTPUT_TOKENS: np.array([choice.new_tokens for choice in choices], np.uint32),
        }
        if ChatOutput.LOGPROBS in self._outputs:
            tensors[ChatOutput.LOGPROBS] = _bytes([self._logprobs(choice.places) for choice in choices])
        for choice in choices:
            choice.texts, choice.places, choice.new_tokens = [], [], 0
        return {name: tensor for name, tensor in tensors.items() if name in {ChatOutput.TEXT_OUTPUT, *self._outputs}}

    def _logprobs(self, places: list[TokenLogprobs]) -> bytes:
        if not self._scored:
            return b"null"
        return encode_logprobs([_entries(place) for place in places])


def _entries(place: TokenLogprobs) -> dict[int, TokenLogprob]:
    # A dictionary keeps the place of a key's first value: the chosen token stays first when it is among the top ones.
    return {candidate.token: _entry(candidate) for candidate in (place.chosen, *place.top)}


def _entry(candidate: Candidate) -> TokenLogprob:
    return TokenLogprob(candidate.text, candidate.logprob, candidate.rank)


def _bytes(values: list[bytes]) -> NDArray[Any]:
    return np.array(values, dtype=np.object_)
