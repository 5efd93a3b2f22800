"""Answers that follow a JSON Schema, by masking tokens that would leave it (llguidance)."""

from typing import Final

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from edge.engine.errors import GrammarError
from edge.engine.tokens import Tokenizer

ANY_OBJECT: Final = '{"type": "object"}'
"""The schema behind OpenAI's `json_object`."""

_LONGEST_SCHEMA: Final = 256 * 1024
# A weak model that may write any white space writes nothing else: one blank at most.
_WHITE_SPACE: Final = " ?"


class Grammar:
    """One answer's position in its schema."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens [vocabulary] may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.zeros(self._vocabulary, np.bool_)
        found = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(np.bool_)
        mask[: found.size] = found
        return mask

    def advance(self, token: int) -> bool:
        """Take a token; returns whether the answer is complete.

        Raises:
            GrammarError: the token was not allowed.
        """
        if not self._matcher.consume_token(token):
            raise GrammarError(f"the answer left its schema: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())


class Grammars:
    """Makes grammars for one model."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end_tokens: frozenset[int]) -> None:
        """`vocabulary` is the width of the logits, which may be padded beyond the tokenizer."""
        self._vocabulary = vocabulary
        count = max(vocabulary, len(tokenizer))
        self._tokenizer = LLTokenizer(tokenizer.source, n_vocab=count, eos_token=sorted(end_tokens))

    def compile(self, schema: str) -> Grammar:
        """
        Raises:
            GrammarError: not a JSON Schema, or more than the grammar engine can do.
        """
        if len(schema) > _LONGEST_SCHEMA:
            raise GrammarError(f"the JSON Schema is over {_LONGEST_SCHEMA} characters")
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _WHITE_SPACE})
        except ValueError as exc:
            raise GrammarError(f"not a JSON Schema: {exc}") from exc
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError(f"cannot follow this JSON Schema: {' '.join(matcher.get_error().split())}")
        return Grammar(matcher, self._vocabulary)
