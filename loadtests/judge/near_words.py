"""Words of a sort: what makes another question when it is put in the place of a word."""

import random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.cache.guard.lexicon import Lexicon

_NEAREST: Final = slice(1, 60)
_KEPT: Final = slice(3, 20)
_ENDINGS: Final = ("ing", "ed", "s")


class NearWords:
    """Words that an embedding's table has near each other, but that do not mean the same."""

    def __init__(self, vocabulary: dict[str, int], table: NDArray[np.float32], lexicon: Lexicon) -> None:
        self._names = [word for word in vocabulary if word.isalpha() and len(word) > 2 and word in lexicon]
        self._places = {word: at for at, word in enumerate(self._names)}
        rows = table[[vocabulary[word] for word in self._names]]
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._lexicon = lexicon
        self._known: dict[str, list[str]] = {}

    def __call__(self, word: str, draw: random.Random) -> str | None:
        """One of the nearest of the same part of speech and ending; None: there is none."""
        if word not in self._places:
            return None
        if word not in self._known:
            self._known[word] = self._find(word)
        found = self._known[word]
        return draw.choice(found) if found else None

    def _find(self, word: str) -> list[str]:
        near = np.argsort(-(self._rows @ self._rows[self._places[word]]))[_NEAREST]
        return [name for name in (self._names[at] for at in near) if self._is_other(word, name)][_KEPT]

    def _is_other(self, word: str, name: str) -> bool:
        one, other = self._lexicon.lemma(word), self._lexicon.lemma(name)
        if one[:4] == other[:4] or self._lexicon.synonymous(one, other) or self._lexicon.derived(one, other):
            return False
        return self._lexicon.pos(one)[:1] == self._lexicon.pos(other)[:1] and _ending(word) == _ending(name)


def _ending(word: str) -> str:
    return next((ending for ending in _ENDINGS if word.endswith(ending)), "")
