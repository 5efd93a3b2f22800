"""What no likeness makes up for: numbers, dates, units, names, quotes, opposites, and words in each other's places.

Asked before the judge. Of 900 families' pairs, each of these refusals met 9 to 80 times as many hard pairs as
paraphrases; what tells less (tense, modality, person, negation, what is asked) is left to the judge.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from router.cache.guard.comparison import KINDS, content
from router.cache.guard.forms import Form, is_swapped
from router.cache.guard.lexicon import Lexicon
from router.cache.guard.reading import Reading, Token
from router.cache.guard.refusal import Refusal

_EITHER: Final = frozenset({Refusal.NUMBER, Refusal.LANGUAGE, Refusal.QUOTE})
"""What refuses where only one side has one more."""
_BOTH: Final = frozenset({Refusal.DATE, Refusal.UNIT, Refusal.FORMAT})
"""What refuses where each side has one that the other has not."""
_DIRECTED: Final = frozenset({"than", "to", "before", "after", "since", "until", "insteadof"})
"""Relations that tell which of two is which."""
_UNSAID: Final = frozenset({"#1", "#2"})
"""Numbers that one side may leave out: one of, the two."""


class Facts:
    """Compares with a lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def refuse(self, asked: Reading, stored: Reading, forms: tuple[Form, Form]) -> Refusal | None:
        """The first fact in which they differ."""
        if not (asked.english and stored.english):
            return Refusal.LANGUAGE
        one, other = forms
        if one.codes != other.codes and one.codes and other.codes:
            return Refusal.NUMBER
        if is_swapped(one.words, other.words):
            return Refusal.ORDER
        here, there = content(asked), content(stored)
        left, over = _subtract(here, there), _subtract(there, here)
        return self._compare_kinds(left, over) or self._compare_names(left, over) or _compare_parts(here, there)

    def _compare_kinds(self, left: list[Token], over: list[Token]) -> Refusal | None:
        for is_kind, refusal in KINDS:
            here, there = _pick(left, is_kind), _pick(over, is_kind)
            if here and there and refusal in _BOTH | _EITHER:
                return refusal
            if refusal in _EITHER and any(token.lemma not in _UNSAID for token in (*here, *there)):
                return refusal
        return None

    def _compare_names(self, left: list[Token], over: list[Token]) -> Refusal | None:
        if any(self._lexicon.opposite(one.lemma, other.lemma) for one in left for other in over):
            return Refusal.POLARITY
        named = any(token.proper for token in left) and any(token.proper for token in over)
        return Refusal.ENTITY if named else None


def _compare_parts(asked: list[Token], stored: list[Token]) -> Refusal | None:
    """Whether two words have each other's part: more A than B, from A to B, 2 A and 3 B."""
    here, there = ({token.lemma for token in tokens} for tokens in (asked, stored))
    for relation in _DIRECTED:
        one, other = _related(asked, relation), _related(stored, relation)
        if (one - other) & there and (other - one) & here:
            return Refusal.ORDER
    one_count, other_count = _counted(asked), _counted(stored)
    numbers = one_count.keys() & other_count.keys()
    moved = [number for number in numbers if one_count[number] != other_count[number]]
    swapped = any(one_count[a] == other_count[b] and one_count[b] == other_count[a] for a in moved for b in moved)
    return Refusal.NUMBER if swapped else None


def _related(tokens: list[Token], relation: str) -> set[str]:
    return {token.lemma for token in tokens if token.relation == relation}


def _counted(tokens: list[Token]) -> dict[str, str]:
    """Each number with the word behind it."""
    return {one.lemma: behind.lemma for one, behind in pairwise(tokens) if one.lemma[0] == "#"}


def _pick(tokens: list[Token], is_kind: Callable[[Token], bool]) -> list[Token]:
    return [token for token in tokens if is_kind(token)]


def _subtract(some: list[Token], others: list[Token]) -> list[Token]:
    """Those whose lemma the others do not have."""
    there = {token.lemma for token in others}
    return [token for token in some if token.lemma not in there]
