"""Labelled rows of one or several files, with the edge's answers where there are any, and where all came from."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from edge.engine.artifact import digest_file
from edge.engine.settings import ConfigError
from router.evaluation.metrics import Sample
from router.scoring import EdgeAnswer
from router.scoring.dataset import Row, read_answers, read_rows

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that rows or answers came from."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Labels:
    """Rows in the order of their files; `answers` has one place a row, None where the edge's answer is not known."""

    rows: list[Row]
    answers: list[EdgeAnswer | None]
    data_files: list[Source]
    answer_files: list[Source]

    @property
    def sample(self) -> Sample:
        """The qualities."""
        return Sample.of([row.weak_correct for row in self.rows], [row.strong_correct for row in self.rows])

    @property
    def answered(self) -> list[int]:
        """Places of the rows whose answer is known."""
        return [place for place, answer in enumerate(self.answers) if answer is not None]

    def take(self, places: "Sequence[int] | np.ndarray[tuple[int], np.dtype[np.intp]]") -> "Labels":
        """Some of the rows."""
        rows, answers = [self.rows[at] for at in places], [self.answers[at] for at in places]
        return Labels(rows, answers, self.data_files, self.answer_files)


def read_labels(data: Sequence[Path], answers: Sequence[Path] = ()) -> Labels:
    """Read all files.

    Raises:
        ConfigError: one line naming the file and what is wrong with it.
    """
    rows: dict[str, Row] = {}
    data_files, answer_files = [], []
    for path in data:
        found = read_rows(path)
        for row in found:
            if row.id in rows:
                raise ConfigError(f"{path}: the id {row.id!r} occurs in an earlier file too; ids must be unique")
            rows[row.id] = row
        data_files.append(Source(path.name, digest_file(path).sha256, len(found)))
    known: dict[str, EdgeAnswer] = {}
    for path in answers:
        known |= (new := _read_answers(path, rows))
        answer_files.append(Source(path.name, digest_file(path).sha256, len(new)))
    return Labels(list(rows.values()), [known.get(key) for key in rows], data_files, answer_files)


def split_folds(rows: Sequence[Row], folds: int, *, seed: int = 0) -> list[list[int]]:
    """Places of the rows in each fold: gains spread evenly, and the same prompt never in two folds."""
    keys = [msgspec.json.encode((row.prompt, row.messages)) for row in rows]
    gained = {key: row.gain > 0 for key, row in zip(keys, rows, strict=True)}
    return _deal(keys, sorted(_shuffle(gained, seed), key=gained.__getitem__), folds)


def split_domains(rows: Sequence[Row], folds: int, *, seed: int = 0) -> list[list[int]]:
    """Places of the rows in each fold, a domain never in two of them: what a score is worth on topics it never saw."""
    domains = [row.domain for row in rows]
    return _deal(domains, _shuffle(dict.fromkeys(domains), seed), folds)


def _shuffle(keys: Iterable[Key], seed: int) -> list[Key]:
    known = list(keys)
    return [known[at] for at in np.random.default_rng(seed).permutation(len(known))]


def _deal(keys: Sequence[Key], order: Sequence[Key], folds: int) -> list[list[int]]:
    fold = {key: place % folds for place, key in enumerate(order)}
    return [[at for at, key in enumerate(keys) if fold[key] == one] for one in range(min(folds, len(order)))]


def _read_answers(path: Path, rows: dict[str, Row]) -> dict[str, EdgeAnswer]:
    """Answers of the rows that the file knows; files of answers may cover some of the data only."""
    covered = {key: answer for key, answer in read_answers(path).items() if key in rows}
    if not covered:
        raise ConfigError(f"{path}: has no answer to any row of the data; its ids must be the rows' ids")
    return covered
