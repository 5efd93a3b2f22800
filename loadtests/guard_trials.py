"""Pairs of questions put to the semantic cache's guards, beside what an embedding says of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import numpy as np

from edge.engine.encoder import Encoder
from router.cache.guard import Guard
from router.embedder import embed_texts, open_embedding
from tests.cache.pairs import TUNED, Pair, Part, hard_pairs, paraphrases, texts

MOST_PAIRS: Final = 2000
"""Of a part that was fitted to, hard ones and paraphrases each."""

Vector = np.ndarray[Any, np.dtype[np.float32]]
Cosines = np.ndarray[Any, np.dtype[np.float64]]
Passed = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs of a part, whether the guard lets each pass, and how close an embedding puts them."""

    pairs: Sequence[Pair]
    passed: Passed
    cosines: Cosines

    def hits(self, similarity: float) -> Passed:
        """What the cache would answer."""
        return self.passed & (self.cosines >= similarity)


@dataclass(frozen=True, slots=True)
class Trial:
    """Both kinds of pairs of one part."""

    hard: Judged
    same: Judged

    def plain_threshold(self, recall: float) -> float:
        """The cosine from which on that share of the paraphrases lies."""
        return float(np.sort(self.same.cosines)[::-1][max(0, round(recall * len(self.same.cosines)) - 1)])


class Vectors:
    """Vectors of texts, each made once; kept in a folder, where one is given."""

    def __init__(self, name: str, store: Path, kept: Path | None) -> None:
        self.name = name
        self._encoder: Encoder = open_embedding(max((store / name).iterdir()))[1]
        self._file = kept / f"{name}.npz" if kept else None
        self._known: dict[str, Vector] = {}
        if self._file and self._file.is_file():
            with np.load(self._file, allow_pickle=False) as found:
                encoded = bytes(found["texts"])
                self._known = dict(zip(msgspec.json.decode(encoded, type=list[str]), found["vectors"], strict=True))

    def embed(self, wanted: Sequence[str]) -> Vector:
        """One row a text."""
        new = [text for text in dict.fromkeys(wanted) if text not in self._known]
        if new:
            click.echo(f"  {self.name}: embedding {len(new)} texts", err=True)
            self._known |= dict(zip(new, embed_texts(self._encoder, new), strict=True))
            if self._file:
                encoded = np.frombuffer(msgspec.json.encode(list(self._known)), np.uint8)
                np.savez(self._file, texts=encoded, vectors=np.stack(list(self._known.values())))
        return np.stack([self._known[text] for text in wanted])


class Trials:
    """Pairs of parts put to a guard, each once; of parts that were fitted to, some."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._passed: dict[tuple[Part, bool], tuple[list[Pair], Passed]] = {}

    def try_part(self, part: Part, vectors: Vectors) -> Trial:
        """Hard pairs and paraphrases, with what an embedding says of them."""
        return Trial(*(_compare(*self._put(part, hard=hard), vectors) for hard in (True, False)))

    def _put(self, part: Part, *, hard: bool) -> tuple[list[Pair], Passed]:
        if (part, hard) not in self._passed:
            pairs = hard_pairs(part) if hard else paraphrases(part)
            if part in TUNED and len(pairs) > MOST_PAIRS:
                pairs = random.Random(part).sample(pairs, MOST_PAIRS)
            passed = np.array([self._guard.refuse(pair.asked, pair.stored) is None for pair in pairs])
            self._passed[part, hard] = pairs, passed
        return self._passed[part, hard]


def join(trials: Sequence[Trial]) -> Trial:
    """Several parts as one."""
    return Trial(_join([trial.hard for trial in trials]), _join([trial.same for trial in trials]))


def _join(some: Sequence[Judged]) -> Judged:
    return Judged(
        [pair for one in some for pair in one.pairs],
        np.concatenate([one.passed for one in some]),
        np.concatenate([one.cosines for one in some]),
    )


def _compare(pairs: Sequence[Pair], passed: Passed, vectors: Vectors) -> Judged:
    places = {text: at for at, text in enumerate(texts(pairs))}
    found = vectors.embed(list(places))
    asked, stored = ([places[getattr(pair, side)] for pair in pairs] for side in ("asked", "stored"))
    return Judged(pairs, passed, np.einsum("ij,ij->i", found[asked], found[stored]).astype(np.float64))
