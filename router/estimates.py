"""How much work a query will be, before it is done: by the length of its text, and by what answers took so far."""

from router.query import Conversation, EmbeddingQuery, Input, Prompt, Query, Usage
from router.rates import Mean, Work

_CHARACTERS_A_TOKEN = 4.0
"""Of English under most vocabularies, until the target's own were seen."""
_TURN_TOKENS = 8
"""What a chat template adds to a turn."""
_ANSWER_TOKENS = 256
"""Of an answer without a limit, until one was seen."""
_KINDS = 32


class Estimator:
    """Learns of one model, or of all together. Answers are told apart by the size of their `max_tokens`: those that may
    be about as long are about as long.
    """

    def __init__(self) -> None:
        self._tokens_a_character = Mean()
        self._answers = [Mean() for _ in range(_KINDS)]

    def estimate(self, query: Query | EmbeddingQuery) -> Work:
        """Of a whole request."""
        if isinstance(query, EmbeddingQuery):
            return Work(self._tokens(_embedded_length(query.inputs)), 0.0)
        most = query.parameters.max_tokens
        seen = self._answers[_kind(most)]
        answer = seen.value if seen.count else float(_ANSWER_TOKENS)
        if most is not None and most < answer:
            answer = most
        return Work(self._tokens(_length(query.prompt)), answer * _answers(query))

    def learn(self, query: Query | EmbeddingQuery, usage: Usage) -> None:
        """What it took in the end."""
        if isinstance(query, EmbeddingQuery):
            length = _embedded_length(query.inputs)
        else:
            length = _length(query.prompt)
            self._answers[_kind(query.parameters.max_tokens)].add(usage.completion_tokens / _answers(query))
        if length > 0 and usage.prompt_tokens > 0:
            self._tokens_a_character.add(usage.prompt_tokens / length)

    def _tokens(self, length: float) -> float:
        seen = self._tokens_a_character
        return max(length * (seen.value if seen.count else 1 / _CHARACTERS_A_TOKEN), 1.0)


def _kind(most: int | None) -> int:
    return 0 if most is None else min(most.bit_length(), _KINDS - 1)


def _answers(query: Query) -> int:
    prompts = 1 if isinstance(query.prompt, Conversation) else len(query.prompt.texts)
    return prompts * query.parameters.n


def _length(prompt: Prompt) -> float:
    """In characters."""
    if isinstance(prompt, Conversation):
        turn = _TURN_TOKENS * _CHARACTERS_A_TOKEN
        return sum(len(message.text) + turn for message in prompt.messages)
    return float(sum(map(len, prompt.texts)))


def _embedded_length(inputs: tuple[Input, ...]) -> float:
    """In characters; tokens count as what one has."""
    return sum(float(len(one)) if isinstance(one, str) else len(one) * _CHARACTERS_A_TOKEN for one in inputs)
