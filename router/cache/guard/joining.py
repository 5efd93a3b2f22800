"""
Two questions as one sequence of tokens for the judge: `[CLS] asked [SEP] stored [SEP]`.

The type of a token says which question it is of and whether its word has a counterpart in the other one; the stored
question's positions begin anew, so that equal questions look alike.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.cache.guard.lexicon import Lexicon
from router.cache.guard.reading import normalise
from router.cache.guard.words import NUMBER_WORDS, ORDINALS, UNITS

Ids = NDArray[np.int64]

REMEMBERED: Final = 512
MOST_TOKENS: Final = 96
"""Of each question; the judge is not asked about longer ones."""
_SHORTEST_UNIT: Final = 3


class Counterpart(IntEnum):
    """What the other question has for a word."""

    SAME = 0
    LIKE = 1
    NONE = 2
    OPPOSITE = 3


TYPES: Final = 2 * len(Counterpart)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One question: token ids, the word that each token is of, the words in lower case, and their lemmas."""

    ids: list[int]
    words: list[int]
    surface: list[str]
    lemmas: list[str]


@dataclass(frozen=True, slots=True)
class Joined:
    """One sequence [seq]: token ids, their types (question + 2 * counterpart), their positions."""

    ids: Ids
    types: Ids
    positions: Ids


class Joiner:
    """Reads nothing after it is made; may be used by many threads."""

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon) -> None:
        self._tokenizer, self._lexicon = tokenizer, lexicon
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.separators = vocabulary["[CLS]"], vocabulary["[SEP]"]
        self.read = lru_cache(REMEMBERED)(self._read)

    @classmethod
    def load(cls, path: Path, lexicon: Lexicon) -> Self:
        """With a BERT tokenizer's `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)), lexicon)

    def join(self, asked: str, stored: str) -> Joined | None:
        """None: one of them is too long."""
        one, other = self.read(asked), self.read(stored)
        if max(len(one.ids), len(other.ids)) > MOST_TOKENS:
            return None
        here, there = self._compare(one, other), self._compare(other, one)
        same = int(Counterpart.SAME)
        types = [same, *(2 * mark for mark in here), same, *(2 * mark + 1 for mark in there), 2 * same + 1]
        positions = [*range(len(one.ids) + 2), *range(1, len(other.ids) + 2)]
        first, last = self.separators
        ids = [first, *one.ids, last, *other.ids, last]
        return Joined(np.array(ids, np.int64), np.array(types, np.int64), np.array(positions, np.int64))

    def vocabulary(self) -> dict[str, int]:
        """Every token's id."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=False))

    def _read(self, text: str) -> Tokens:
        text = normalise(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        surface: list[str] = []
        words: list[int] = []
        last = None
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            if word != last:
                surface.append("")
            last = word
            surface[-1] += text[start:end].lower()
            words.append(len(surface) - 1)
        return Tokens(encoding.ids, words, surface, [self._lemma(word) for word in surface])

    def _lemma(self, word: str) -> str:
        if word in NUMBER_WORDS:
            return str(NUMBER_WORDS[word])
        if word in ORDINALS:
            return ORDINALS[word]
        lemma = self._lexicon.lemma(word)
        return UNITS.get(lemma, lemma) if len(lemma) >= _SHORTEST_UNIT else lemma

    def _compare(self, one: Tokens, other: Tokens) -> list[int]:
        """What `other` has for each token of `one`."""
        there = set(other.lemmas)
        rest = [lemma for lemma in there.difference(one.lemmas) if lemma.isalpha()]
        marks = [self._find(lemma, there, rest) for lemma in one.lemmas]
        return [marks[word] for word in one.words]

    def _find(self, lemma: str, there: set[str], rest: list[str]) -> int:
        if lemma in there:
            return Counterpart.SAME
        if any(self._lexicon.opposite(lemma, other) for other in rest):
            return Counterpart.OPPOSITE
        if any(self._lexicon.synonymous(lemma, other) or self._lexicon.derived(lemma, other) for other in rest):
            return Counterpart.LIKE
        return Counterpart.NONE
