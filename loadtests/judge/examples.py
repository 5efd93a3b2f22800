"""Examples that the judge of the semantic cache's guards is fitted to: pairs of questions drawn from families."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Final

from router.cache.guard.lexicon import Lexicon
from router.cache.guard.words import AUXILIARIES, MODALS, RELATIONS
from tests.cache.pairs import Edit, Family

SAME_SHARE, FOREIGN_SHARE, TURNED_SHARE, NARROWED_SHARE = 0.42, 0.06, 0.5, 0.08
ORDER_WEIGHT: Final = 2.5
_SEEN_BY_RULES: Final = frozenset({"number", "date", "unit"})
_WORD: Final = re.compile(r"[A-Za-z][a-z]+")
_LEAST_SHARED: Final = 0.6
_LONG: Final = re.compile(r"[a-z]{4,}")
_COMMON, _NEIGHBOURS = 60, 8
_BEFORE: Final = (
    "hi, ", "hello, ", "hey, ", "please ", "quick question: ", "could you tell me: ", "ok so ", "hello! ", "question: ",
    "hey there, ", "hi there! ", "good morning, ", "excuse me, ", "sorry, ", "hi! ",
)  # fmt: skip
_AFTER: Final = (
    " please", " thanks", ", thanks!", " Thank you.", ", please?", " thx", " Thanks in advance.",
    " please and thank you", " Cheers.", ", can you help?", " I'd like to know.", " Just curious.",
)  # fmt: skip

_CONDITIONS: Final = (
    "in Canada", "for children", "in winter", "on a budget", "for free", "at night", "for beginners",
    "as an employee", "without electricity", "in the 1990s", "for a truck", "twice a day", "before breakfast",
    "on my phone", "for two people", "in German", "when it rains", "without a car", "for a beginner", "abroad",
    "as a student", "online", "in the US", "for seniors", "while pregnant", "after work", "by hand", "in bulk",
    "without internet", "at home", "on Linux", "for my boss", "in a hurry", "under water", "at high altitude",
    "in one sentence", "with an example", "as a table", "during the holidays", "for a school project", "in Europe",
    "with a discount", "if I am not a member", "on average", "per person", "today", "next year", "the second time",
    "again", "in advance", "for the first time", "by law",
)  # fmt: skip

Near = Callable[[str, random.Random], str | None]


@dataclass(frozen=True, slots=True)
class Example:
    """`same`: whether they ask the same; `changed`: words of each that make the difference, None: not known."""

    asked: str
    stored: str
    same: bool
    kind: str
    changed: tuple[frozenset[str], frozenset[str]] | None = None

    def turned(self) -> "Example":
        """The other one asked first."""
        changed = None if self.changed is None else (self.changed[1], self.changed[0])
        return Example(self.stored, self.asked, self.same, self.kind, changed)


class FamilyExamples:
    """Draws examples of one family."""

    def __init__(self, family: Family, near: Near, lexicon: Lexicon) -> None:
        self.family, self._near = family, near
        self._core = self._core_words(lexicon)
        self._edits: list[tuple[Edit, list[int]]] = []
        fill = {slot: values[0] for slot, values in family.values.items()}
        for edit in family.edits:
            own = edit.fill(fill)
            fits = [at for at, one in enumerate(family.phrasings) if own.apply(one.format(**fill)) is not None]
            if fits:
                self._edits.append((edit, fits))
        self._weights = [ORDER_WEIGHT if turns(edit) else 1.0 for edit, _ in self._edits]
        self._soft = [slot for slot in family.values if family.kinds[slot] not in _SEEN_BY_RULES]
        self._firm = [slot for slot in family.values if slot not in self._soft]

    def fill(self, draw: random.Random) -> dict[str, str]:
        """Values of all slots, different ones."""
        for _ in range(20):
            fill = {slot: draw.choice(values) for slot, values in self.family.values.items()}
            if len(set(fill.values())) == len(fill):
                break
        return fill

    def draw(self, draw: random.Random) -> Example | None:
        """One example, or None where this family has none of the kind that was drawn."""
        fill = self.fill(draw)
        if draw.random() < SAME_SHARE:
            return self._same(fill, draw)
        kinds: list[tuple[float, Callable[[dict[str, str], random.Random], Example | None]]] = [
            (0.60, self._edited), (0.08, self._edited_twice), (0.11, self._refilled), (0.15, self._replaced),
            (0.06, self._narrowed),
        ]  # fmt: skip
        (make,) = draw.choices([one for _, one in kinds], [weight for weight, _ in kinds])
        return make(fill, draw)

    def _same(self, fill: dict[str, str], draw: random.Random) -> Example | None:
        if len(self.family.phrasings) < 2:
            return None
        one, other = (phrasing.format(**fill) for phrasing in draw.sample(self.family.phrasings, 2))
        if self._edits and draw.random() < 0.3:  # what is edited alike asks the same again
            edit = draw.choice(self._edits)[0].fill(fill)
            edited = edit.apply(one), edit.apply(other)
            if edited[0] and edited[1]:
                one, other = edited[0], edited[1]
        elif draw.random() < NARROWED_SHARE:
            condition = draw.choice(_CONDITIONS)
            one, other = _narrow(one, condition), _narrow(other, condition)
        return Example(one, other, True, "same", (frozenset(), frozenset()))

    def _beside(self, at: int, fill: dict[str, str], draw: random.Random) -> str:
        phrasing = self.family.phrasings[at] if draw.random() < 0.4 else draw.choice(self.family.phrasings)
        return phrasing.format(**fill)

    def _edited(self, fill: dict[str, str], draw: random.Random) -> Example | None:
        if not self._edits:
            return None
        (chosen,) = draw.choices(self._edits, self._weights)
        edit, fits = chosen
        own, at = edit.fill(fill), draw.choice(fits)
        text = own.apply(self.family.phrasings[at].format(**fill))
        if text is None:
            return None
        # what is swapped within one wording is seen by the guard's rules
        beside = draw.choice(self.family.phrasings).format(**fill) if turns(edit) else self._beside(at, fill, draw)
        there = own.apply(beside) is not None
        old, new = _words(own.old), _words(own.new)
        changed = (old | new, old | new) if edit.swap else (new - old or new, old - new or old)
        return Example(text, beside, False, edit.kind, changed if there else None)

    def _edited_twice(self, fill: dict[str, str], draw: random.Random) -> Example | None:
        if len(self._edits) < 2:
            return None
        (one, fits), (other, suits) = draw.sample(self._edits, 2)
        if one.kind == other.kind or one.old == other.old:
            return None
        text, beside = (
            edit.fill(fill).apply(self.family.phrasings[draw.choice(at)].format(**fill))
            for edit, at in ((one, fits), (other, suits))
        )
        return Example(text, beside, False, "twice") if text and beside and text != beside else None

    def _refilled(self, fill: dict[str, str], draw: random.Random) -> Example | None:
        slots = self._soft if self._soft and draw.random() < 0.8 else self._firm or self._soft
        if not slots:
            return None
        slot, at = draw.choice(slots), draw.randrange(len(self.family.phrasings))
        others = [value for value in self.family.values[slot] if value not in fill.values()]
        if not others:
            return None
        other = draw.choice(others)
        text = self.family.phrasings[at].format(**fill | {slot: other})
        old, new = _words(fill[slot]), _words(other)
        return Example(text, self._beside(at, fill, draw), False, self.family.kinds[slot], (new - old, old - new))

    def _narrowed(self, fill: dict[str, str], draw: random.Random) -> Example | None:
        """Asked under a condition that the other wording does not have, or has another of."""
        one, other = (draw.choice(self.family.phrasings).format(**fill) for _ in range(2))
        here, there = draw.sample(_CONDITIONS, 2)
        if draw.random() < 0.3:
            return Example(_narrow(one, here), _narrow(other, there), same=False, kind="narrowed")
        changed = _words(here) - _words(other), frozenset[str]()
        return Example(_narrow(one, here), other, same=False, kind="narrowed", changed=changed)

    def _replaced(self, fill: dict[str, str], draw: random.Random) -> Example | None:
        """Another word of its sort in the place of one that most phrasings have."""
        if not self._core:
            return None
        word = draw.choice(self._core)
        other = self._near(word, draw)
        place = re.compile(rf"(?<![\w{{]){word}(?![\w}}])")
        fits = [at for at, one in enumerate(self.family.phrasings) if place.search(one)]
        if other is None or not fits:
            return None
        at = draw.choice(fits)
        text = place.sub(other, self.family.phrasings[at]).format(**fill)
        beside = self._beside(at, fill, draw)
        known = place.search(beside) is not None
        return Example(text, beside, False, "replaced", (frozenset([other]), frozenset([word])) if known else None)

    def _core_words(self, lexicon: Lexicon) -> list[str]:
        """Nouns, verbs and adjectives that most phrasings have."""
        counts: dict[str, int] = defaultdict(int)
        for phrasing in self.family.phrasings:
            for word in set(_WORD.findall(re.sub(r"\{\w+\}", " ", phrasing))):
                counts[word] += 1
        least = max(2, _LEAST_SHARED * len(self.family.phrasings))
        closed = AUXILIARIES | frozenset(MODALS) | frozenset(RELATIONS)
        return [
            word
            for word, count in counts.items()
            if count >= least and word.islower() and len(word) > 3 and word not in closed
            and lexicon.pos(lexicon.lemma(word))[:1] in {"n", "v", "a"}
        ]  # fmt: skip


def turns(edit: Edit) -> bool:
    """Whether an edit makes two things change places."""
    return edit.swap or edit.kind == "order"


def _narrow(text: str, condition: str) -> str:
    bare = text.rstrip(" ?.!")
    return f"{bare} {condition}{text[len(bare) :]}"


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def blur(text: str, draw: random.Random) -> str:
    """The same question as another hand types it."""
    chance = draw.random()
    if chance < 0.10:
        text = text.lower().rstrip(" ?.!")
    elif chance < 0.16:
        text = text.lower()
    elif chance < 0.22:
        text = text.rstrip(" ?.!")
    if draw.random() < 0.08:
        before = draw.choice(_BEFORE)
        text = (before if draw.random() < 0.5 else before.capitalize()) + (
            text[0].lower() + text[1:] if text[:2].istitle() and not text.startswith("I") else text
        )
    if draw.random() < 0.06:
        text = text.rstrip(" ") + draw.choice(_AFTER)
    if draw.random() < 0.03:
        text = _misspell(text, draw)
    return text


def _misspell(text: str, draw: random.Random) -> str:
    """Two letters inside of a long word change places."""
    words = list(re.finditer(r"[a-z]{6,}", text))
    if not words:
        return text
    at = draw.choice(words).start() + draw.randrange(1, 4)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


class Foreign:
    """Draws questions of two families that share rare words."""

    def __init__(self, families: Sequence[FamilyExamples]) -> None:
        self._families = families
        words = [set(_LONG.findall(" ".join(one.family.phrasings).lower())) for one in families]
        places: dict[str, list[int]] = defaultdict(list)
        for at, some in enumerate(words):
            for word in some:
                places[word].append(at)
        self._near: list[list[int]] = []
        for at, some in enumerate(words):
            shared: Counter[int] = Counter()
            for word in some:
                if len(places[word]) < _COMMON:
                    shared.update(dict.fromkeys(places[word], _rarity(len(families), len(places[word]))))
            del shared[at]
            self._near.append([other for other, _ in shared.most_common(_NEIGHBOURS)])

    def draw(self, draw: random.Random) -> Example | None:
        """One example of different questions, or None where the family that was drawn has no neighbour."""
        at = draw.randrange(len(self._families))
        if not self._near[at]:
            return None
        both = self._families[at], self._families[draw.choice(self._near[at])]
        asked, stored = (draw.choice(one.family.phrasings).format(**one.fill(draw)) for one in both)
        return Example(asked, stored, same=False, kind="foreign")


def _rarity(total: int, count: int) -> int:
    return round(10 * log(total / count))


def draw_examples(
    families: Sequence[FamilyExamples], foreign: Foreign, count: int, draw: random.Random
) -> list[Example]:
    """That many, each family about as often as another, in both orders and as different hands type them."""
    found: list[Example] = []
    while len(found) < count:
        example = foreign.draw(draw) if draw.random() < FOREIGN_SHARE else draw.choice(families).draw(draw)
        if example is None or example.asked == example.stored:
            continue
        example = example if draw.random() < TURNED_SHARE else example.turned()
        asked, stored = blur(example.asked, draw), blur(example.stored, draw)
        found.append(replace(example, asked=asked, stored=stored))
    return found
