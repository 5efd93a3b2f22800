"""
Guards of the semantic cache: whether two questions that an embedding takes for one may share an answer.

An embedding puts questions close that differ in one number, name or `not`. The guard therefore asks for an explanation
of every word: it must have its like on the other side, and hang on the rest in the same way. What cannot be explained
is refused: a miss costs one generation, a false hit a wrong answer.
"""

from functools import lru_cache

from router.cache.guard.comparison import Comparison
from router.cache.guard.forms import read_form, refuse_form
from router.cache.guard.lexicon import Lexicon
from router.cache.guard.reading import Reader, normalise
from router.cache.guard.refusal import Refusal

__all__ = ["Guard", "Refusal"]

MOST_CHARACTERS = 4096
"""Of each text; a longer one is refused: the time to compare grows with the square of the words that moved."""
REMEMBERED = 256


class Guard:
    """Compares questions. Reads its lexicon when it is made; then it needs no I/O and may be used by many threads."""

    def __init__(self) -> None:
        lexicon = Lexicon.load()
        self._read_form = lru_cache(REMEMBERED)(read_form)
        self._read = lru_cache(REMEMBERED)(Reader(lexicon).read)
        self._comparison = Comparison(lexicon)

    def refuse(self, asked: str, stored: str) -> Refusal | None:
        """Why the stored question's answer does not answer the one asked; None: it does."""
        if len(asked) > MOST_CHARACTERS or len(stored) > MOST_CHARACTERS:
            return Refusal.LENGTH
        if asked == stored or normalise(asked) == normalise(stored):
            return None
        refusal = refuse_form(self._read_form(asked), self._read_form(stored))
        return refusal or self._comparison.refuse(self._read(asked), self._read(stored))
