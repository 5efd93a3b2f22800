"""
Guards of the semantic cache: whether two questions that an embedding takes for one may share an answer.

An embedding puts questions close that differ in one number, name or `not`. The guard therefore asks for an explanation
of every word: it must have its like on the other side, and hang on the rest in the same way. What rules cannot explain,
though no fact differs, is for the judge, a small network that reads both questions; without one it is refused: a miss
costs one generation, a false hit a wrong answer.
"""

from functools import lru_cache
from pathlib import Path
from typing import Self

from router.cache.guard.comparison import Comparison
from router.cache.guard.facts import Facts
from router.cache.guard.forms import read_form, refuse_form
from router.cache.guard.judge import Judge
from router.cache.guard.lexicon import Lexicon
from router.cache.guard.reading import Reader, normalise
from router.cache.guard.refusal import Refusal

__all__ = ["Guard", "Refusal"]

MOST_CHARACTERS = 4096
"""Of each text; a longer one is refused: the time to compare grows with the square of the words that moved."""
REMEMBERED = 256
_FINAL = frozenset({Refusal.LANGUAGE, Refusal.POLARITY, Refusal.DATE, Refusal.ENTITY})
"""What no judge is asked about: of 190 families that none was fitted to, 26 paraphrases and 259 hard pairs."""
_FINAL_ALONE = frozenset({Refusal.TENSE, Refusal.MODALITY})
"""The same where it is the only difference: 104 and 113."""


class Guard:
    """Compares questions. Reads its files when it is made; then it needs no I/O and may be used by many threads."""

    def __init__(self, lexicon: Lexicon | None = None, judge: Judge | None = None) -> None:
        lexicon = lexicon or Lexicon.load()
        self._read_form = lru_cache(REMEMBERED)(read_form)
        self._read = lru_cache(REMEMBERED)(Reader(lexicon).read)
        self._comparison = Comparison(lexicon)
        self._facts = Facts(lexicon)
        self._judge = judge

    @classmethod
    def open(cls, judge: Path) -> Self:
        """With a judge, the artifact in that folder.

        Raises:
            EngineError: there is none, or it is damaged.
        """
        lexicon = Lexicon.load()
        return cls(lexicon, Judge.open(judge, lexicon))

    def refuse(self, asked: str, stored: str) -> Refusal | None:
        """Why the stored question's answer does not answer the one asked; None: it does."""
        if len(asked) > MOST_CHARACTERS or len(stored) > MOST_CHARACTERS:
            return Refusal.LENGTH
        if asked == stored or normalise(asked) == normalise(stored):
            return None
        refusal = self._explain(asked, stored)
        return refusal if self._judge is None else self._judge_rest(self._judge, asked, stored, refusal)

    def _explain(self, asked: str, stored: str) -> Refusal | None:
        """Why rules do not explain the difference."""
        refusal = refuse_form(self._read_form(asked), self._read_form(stored))
        return refusal or self._comparison.refuse(self._read(asked), self._read(stored))

    def _judge_rest(self, judge: Judge, asked: str, stored: str, refusal: Refusal | None) -> Refusal | None:
        if refusal is None:
            return Refusal.CONTENT if judge.oppose(asked, stored) else None
        return self.find_fact(asked, stored, refusal) or (None if judge.accept(asked, stored) else refusal)

    def find_fact(self, asked: str, stored: str, refusal: Refusal) -> Refusal | None:
        """In which fact two questions differ that rules refuse, so that no judge is asked."""
        one, other = self._read(asked), self._read(stored)
        if refusal in _FINAL or (refusal in _FINAL_ALONE and self._comparison.matches_all(one, other)):
            return refusal
        return self._facts.refuse(one, other, (self._read_form(asked), self._read_form(stored)))
