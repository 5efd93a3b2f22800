"""
Prices and amounts, exactly: whole picos (1e-12 of the currency that prices and limits are written in).

A price a million tokens with up to six decimals is a whole number of picos a token; beyond that prices are rounded up
and limits down, so that rounding never spends more.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Self

from msgspec.structs import replace

from router.config import Price
from router.query import Conversation, Query, Usage

PICOS = 10**12
_TOKENS_A_MTOK = 10**6
_PROMPT_TOKENS = 256
"""What a chat template may add once: begin of text, a default system turn with the date, the call for an answer."""
_MESSAGE_TOKENS = 16
"""What it may add to each turn: marks of begin, role and end. Llama, ChatML, Gemma and Mistral need 3 to 6."""


def picos(amount: float) -> int:
    """An amount as it is written, rounded down."""
    return int(Decimal(str(amount)) * PICOS)


def amount(picos: int) -> Decimal:
    """Picos as an amount of the currency."""
    return Decimal(picos).scaleb(-12)


@dataclass(frozen=True, slots=True)
class Tariff:
    """A target's price, in picos a token."""

    prompt: int
    completion: int
    most_completion_tokens: int

    @classmethod
    def of(cls, price: Price) -> Self:
        """The tariff that a configured price means."""
        return cls(_a_token(price.prompt_per_mtok), _a_token(price.completion_per_mtok), price.most_completion_tokens)

    def cost(self, usage: Usage) -> int:
        """Picos for tokens used."""
        return self.prompt * usage.prompt_tokens + self.completion * usage.completion_tokens

    def limit(self, query: Query) -> Query:
        """The query with an end: what the client left open is `most_completion_tokens`."""
        if query.parameters.max_tokens is not None:
            return query
        return replace(query, parameters=replace(query.parameters, max_tokens=self.most_completion_tokens))

    def bound(self, query: Query) -> int:
        """Picos that a call costs at most, its answers ended by `max_tokens`."""
        longest = query.parameters.max_tokens or self.most_completion_tokens
        texts = 1 if isinstance(query.prompt, Conversation) else len(query.prompt.texts)
        return self.cost(Usage(most_prompt_tokens(query), longest * query.parameters.n * texts))


def most_prompt_tokens(query: Query) -> int:
    """A count that no tokenizer exceeds, without asking one.

    Byte-level tokenizers start from one token a byte and only merge; those over characters fall back to one token a
    byte. So a text never has more tokens than UTF-8 bytes; what a chat template adds is bounded by two constants.
    (A normalizer that writes some rare characters out longer can break this: then the overrun is paid all the same, see
    `Ledger.settle`.)
    """
    if not isinstance(query.prompt, Conversation):
        return sum(_size(text) + _MESSAGE_TOKENS for text in query.prompt.texts)
    wanted = query.parameters.json_format
    schema = _PROMPT_TOKENS + _size(wanted.name) + len(wanted.schema or b"") if wanted else 0
    turns = sum(_size(m.role) + _size(m.text) + _size(m.name or "") + _MESSAGE_TOKENS for m in query.prompt.messages)
    return _PROMPT_TOKENS + schema + turns


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _a_token(per_mtok: float) -> int:
    return int((Decimal(str(per_mtok)) * (PICOS // _TOKENS_A_MTOK)).to_integral_value(ROUND_CEILING))
