"""
Cheap signals of a prompt, in tens of microseconds: a few named numbers, and hashed word n-grams in which a number
stands for its length, so that "34 plus 8" and "71 plus 5" look alike and "341 plus 86" does not.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b")
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Features:
    """Named numbers, and counts by n-gram hash in [0, 2**bits)."""

    named: Mapping[str, float]
    grams: Mapping[int, float]


def extract_features(text: str, *, bits: int) -> Features:
    """The signals of one prompt; n-grams are counted over its first `MAX_TOKENS` words, numbers and marks."""
    tokens = [match[0] for match in _TOKEN.finditer(text, 0, MAX_TOKENS * 16)][:MAX_TOKENS]
    return Features(_named(text, tokens), _grams(tokens, bits))


def _named(text: str, tokens: list[str]) -> dict[str, float]:
    numbers = sorted((len(token) for token in tokens if token.isdigit()), reverse=True)
    capitals = [len(run) for run in _CAPITALS.findall(text[: MAX_TOKENS * 16])]
    return {
        "log_characters": math.log1p(len(text)),
        "log_tokens": math.log1p(len(tokens)),
        "numbers": math.log1p(len(numbers)),
        "digits": math.log1p(sum(numbers)),
        "longest_number": float(min(numbers[0], 12)) if numbers else 0.0,
        "second_number": float(min(numbers[1], 12)) if len(numbers) > 1 else 0.0,
        "longest_capitals": float(min(max(capitals, default=0), 24)),
        "commas": math.log1p(tokens.count(",")),
        "lines": math.log1p(text.count("\n")),
    }


def _grams(tokens: list[str], bits: int) -> dict[int, float]:
    words = [_shape(token) for token in tokens]
    mask = (1 << bits) - 1
    counts: dict[int, float] = {}
    for previous, word in zip(["^", *words], words, strict=False):
        for gram in (word, f"{previous} {word}"):
            key = crc32(gram.encode()) & mask
            counts[key] = counts.get(key, 0.0) + 1.0
    norm = math.sqrt(sum(count * count for count in counts.values())) or 1.0
    return {key: count / norm for key, count in counts.items()}


def _shape(token: str) -> str:
    if token.isdigit():
        return f"<{len(token)} digits>"
    if len(token) > 1 and token.isupper():
        return f"<{len(token)} capitals>"
    return token.lower()
