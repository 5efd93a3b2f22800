"""The thesaurus: which words may stand for each other, from WordNet (see `WORDNET_LICENSE`)."""

import gzip
from functools import lru_cache
from importlib.resources import files
from typing import Final, Self

from msgspec import Struct

from router.cache.guard.words import CALENDAR, GRADES, IRREGULAR

_VOWELS: Final = "aeiou"
_REMEMBERED: Final = 4096


class Word(Struct, frozen=True, gc=False):
    """Parts of speech that it is mostly used in (n, v, a, r), and its groups; words that share one are related so."""

    pos: str
    synonyms: tuple[int, ...]
    derivations: tuple[int, ...]
    antonyms: tuple[int, ...]


class Lexicon:
    """Reads its file once, when it is made; about 30,000 words."""

    def __init__(self, words: dict[str, Word]) -> None:
        self._words = words
        self.lemma = lru_cache(_REMEMBERED)(self._lemma)
        self.grade = lru_cache(_REMEMBERED)(self._grade)

    @classmethod
    def load(cls) -> Self:
        """The one that ships with the package."""
        text = gzip.decompress(files("router.cache.guard").joinpath("lexicon.txt.gz").read_bytes()).decode()
        groups: dict[str, tuple[int, ...]] = {"": ()}
        words = {}
        for line in text.split("\n"):
            word, pos, *columns = line.split("\t")
            words[word] = Word(pos, *(groups.setdefault(one, _numbers(one)) for one in columns))
        return cls(words)

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def pos(self, word: str) -> str:
        """Letters of its parts of speech; empty, if it is not known."""
        found = self._words.get(word)
        return found.pos if found else ""

    def synonymous(self, one: str, other: str) -> bool:
        """Whether they share a frequent sense."""
        return self._share(one, other, "synonyms")

    def derived(self, one: str, other: str) -> bool:
        """Whether one is made of the other: to invent, inventor."""
        return self._share(one, other, "derivations")

    def opposite(self, one: str, other: str) -> bool:
        """Whether they are antonyms, or one is the other with a prefix or suffix that turns it around."""
        short, long = sorted((one, other), key=len)
        affixed = any(long == prefix + short for prefix in ("un", "in", "im", "ir", "il", "dis", "non", "mis", "de"))
        return affixed or long == short + "less" or self._share(one, other, "antonyms")

    def _share(self, one: str, other: str, relation: str) -> bool:
        a, b = self._words.get(one), self._words.get(other)
        return bool(a and b and not set(getattr(a, relation)).isdisjoint(getattr(b, relation)))

    def _grade(self, word: str) -> tuple[str, str]:
        """Adjective or adverb, and `er`, `est` or nothing."""
        if word in GRADES:
            return GRADES[word]
        for ending in ("est", "er"):
            if word.endswith(ending) and len(word) > len(ending) + 2:
                for stem in _stems(word.removesuffix(ending)):
                    if set(self.pos(stem)) & {"a", "r"} and (ending == "est" or "n" not in self.pos(word)):
                        return stem, ending
        return word, ""

    def _lemma(self, word: str) -> str:
        """The dictionary's form of an inflected word; the word itself, where it is none."""
        if word in IRREGULAR:
            return IRREGULAR[word]
        if word in CALENDAR or (word.endswith("eed") and word in self._words):
            return word
        base = self._base(word)
        american = f"{base.removesuffix('ise')}ize"
        return american if base.endswith("ise") and american in self._words else base

    def _base(self, word: str) -> str:
        if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
            return self._singular(word)
        for ending in ("ing", "ed"):
            if word.endswith(ending) and len(word) > len(ending) + 1:
                stems = _stems(word.removesuffix(ending))
                stems += [f"{stem.removesuffix('ise')}ize" for stem in stems if stem.endswith("ise")]
                return next((stem for stem in stems if "v" in self.pos(stem)), word)
        return word

    def _singular(self, word: str) -> str:
        candidates = [word[:-1]]
        if word.endswith("ies"):
            candidates.insert(0, word[:-3] + "y")
        elif word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
            candidates.insert(0, word[:-2])
        return next(
            (one for one in candidates if one in self._words), candidates[0] if word not in self._words else word
        )


def _stems(stem: str) -> list[str]:
    """What a suffix may have been put on: hop(p)-ing, hop(e)-ing, tri(y)-ed."""
    stems = [stem + "e", stem]
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in _VOWELS:
        stems.insert(0, stem[:-1])
    if stem.endswith("i"):
        stems.insert(0, stem[:-1] + "y")
    if stem.endswith(("w", "x", "y")) or (len(stem) > 2 and stem[-1] not in _VOWELS and stem[-2] not in _VOWELS):
        stems.reverse()
    return stems


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(one, 36) for one in text.split())
