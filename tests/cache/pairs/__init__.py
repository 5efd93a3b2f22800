"""
Pairs of questions for the semantic cache's guards: minimal edits that change the answer, paraphrases that do not.

Each part is a file of families of questions, none in two. All are for tuning but the last two: whoever wrote those had
read neither the guards nor the other parts, and nothing was tuned on them.

A family is a name, its slots with their values, phrasings (`=`) that all ask the same,
and edits (`!`) that make another question of any phrasing that has the words:

    [name]
    {slot:kind} value | value
    = A phrasing with {slot}?
    ! kind: old words > new words
    ! order: one <> other
"""

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

FILLS, MOST_HARD, SAME_PHRASING = 8, 48, 0.75


class Part(StrEnum):
    """The files, oldest first. Once something was learned from a part, it is for tuning, whatever its name says."""

    TUNING = "tuning"
    FIRST = "first"
    TEST = "test"
    BLIND = "blind"
    FURTHER = "further"
    EARLY = "early"
    PROOF = "proof"

    @property
    def path(self) -> Path:
        """Where its families are."""
        return Path(__file__).parent / f"{self}.txt"


TUNED = (Part.TUNING, Part.FIRST, Part.TEST, Part.BLIND, Part.FURTHER)
"""What guards, similarity and judge are fitted to. `EARLY` was measured once, and nothing was fitted to it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions; `kind` says what makes them differ, None: they ask the same."""

    family: str
    kind: str | None
    asked: str
    stored: str


@dataclass(frozen=True, slots=True)
class Edit:
    """Words that make another question; `swap`: both ways at once."""

    kind: str
    old: str
    new: str
    swap: bool

    def fill(self, values: dict[str, str]) -> Self:
        """The edit with the values of a filling in its slots."""
        return replace(self, old=self.old.format(**values), new=self.new.format(**values))

    def apply(self, text: str) -> str | None:
        """The other question, or None where the words are not there."""
        if not self.swap:
            edited = _words(self.old).sub(lambda _: self.new, text)
            return edited if edited != text else None
        if not (_words(self.old).search(text) and _words(self.new).search(text)):
            return None
        both = re.compile(f"{_words(self.old).pattern}|{_words(self.new).pattern}")
        return both.sub(lambda found: self.new if found.group() == self.old else self.old, text)


@dataclass(slots=True)
class Family:
    """One question in several phrasings, and what makes others of it."""

    name: str
    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    phrasings: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    def fills(self) -> list[dict[str, str]]:
        """Some of the ways to fill the slots, always the same ones."""
        every = [dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*self.values.values())]
        return random.Random(self.name).sample(every, min(FILLS, len(every)))

    def paraphrases(self) -> Iterator[Pair]:
        """Every two phrasings, in each filling."""
        draw = random.Random(self.name)
        for fill in self.fills():
            for two in itertools.combinations(self.phrasings, 2):
                asked, stored = draw.sample(two, 2)
                yield Pair(self.name, None, asked.format(**fill), stored.format(**fill))

    def hard(self) -> list[Pair]:
        """Some of the edits, the same number of each as far as there are any."""
        draw, groups = random.Random(self.name), []
        for fill in self.fills():
            for edit in self.edits:
                groups += [list(self._edited(edit, fill, draw))]
            for slot in self.values:
                groups += [list(self._refilled(slot, fill, draw))]
        draw.shuffle(groups)
        turns = itertools.chain.from_iterable(itertools.zip_longest(*groups))
        return list(dict.fromkeys(pair for pair in turns if pair is not None))[:MOST_HARD]

    def _edited(self, edit: Edit, fill: dict[str, str], draw: random.Random) -> Iterator[Pair]:
        own = edit.fill(fill)
        for phrasing in draw.sample(self.phrasings, len(self.phrasings)):
            text = phrasing.format(**fill)
            edited = own.apply(text)
            if edited is not None:
                yield Pair(self.name, edit.kind, self._beside(phrasing, draw).format(**fill), edited)

    def _refilled(self, slot: str, fill: dict[str, str], draw: random.Random) -> Iterator[Pair]:
        others = [value for value in self.values[slot] if value not in fill.values()]
        for phrasing in draw.sample(self.phrasings, len(self.phrasings)):
            other = fill | {slot: draw.choice(others)}
            yield Pair(
                self.name, self.kinds[slot], self._beside(phrasing, draw).format(**fill), phrasing.format(**other)
            )

    def _beside(self, phrasing: str, draw: random.Random) -> str:
        """Mostly the same phrasing: a minimal edit is what an embedding tells apart worst."""
        return phrasing if draw.random() < SAME_PHRASING else draw.choice(self.phrasings)


def _words(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def read_families(part: Part) -> list[Family]:
    """The families of a part, as its file has them."""
    families: list[Family] = []
    for line in part.path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if found := re.fullmatch(r"\[(.+)\]", line):
            families.append(Family(found[1]))
        elif found := re.fullmatch(r"\{(\w+):(\w+)\} (.+)", line):
            families[-1].kinds[found[1]] = found[2]
            families[-1].values[found[1]] = found[3].split(" | ")
        elif found := re.fullmatch(r"! (\w+): (.+?) (<?>) (.+)", line):
            families[-1].edits.append(Edit(found[1], found[2], found[4], found[3] == "<>"))
        elif found := re.fullmatch(r"= (.+)", line):
            families[-1].phrasings.append(found[1])
        else:
            raise ValueError(f"{part}.txt: {line!r} is no line of a family")
    return families


def paraphrases(part: Part) -> list[Pair]:
    """Pairs that ask the same."""
    return [pair for family in read_families(part) for pair in family.paraphrases()]


def hard_pairs(part: Part) -> list[Pair]:
    """Pairs that do not."""
    return [pair for family in read_families(part) for pair in family.hard()]


def texts(pairs: Sequence[Pair]) -> list[str]:
    """Every text once."""
    return list(dict.fromkeys(text for pair in pairs for text in (pair.asked, pair.stored)))
