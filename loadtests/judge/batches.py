"""Examples as tensors."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loadtests.judge.examples import Example
from router.cache.guard.joining import Joined, Joiner

BATCH: Final = 64
UNKNOWN: Final = -1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of questions [batch, seq]; `worded`: where a token is of a question, neither padding nor separator."""

    ids: Tensor
    types: Tensor
    positions: Tensor
    mask: Tensor
    worded: Tensor


@dataclass(frozen=True, slots=True)
class Lesson:
    """A batch with what is right: `same` [batch], `differs` [batch, seq] where known."""

    batch: Batch
    same: Tensor
    differs: Tensor


def pad(rows: Sequence[Joined], separators: tuple[int, int]) -> Batch:
    """Several sequences as one batch."""
    length = max(len(row.ids) for row in rows)
    ids, types, positions = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3))
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for at, row in enumerate(rows):
        width = len(row.ids)
        ids[at, :width] = torch.from_numpy(row.ids)
        types[at, :width] = torch.from_numpy(row.types)
        positions[at, :width] = torch.from_numpy(row.positions)
        mask[at, :width] = True
    first, last = separators
    return Batch(ids, types, positions, mask, mask & (ids != first) & (ids != last))


def make_lessons(examples: Sequence[Example], joiner: Joiner, draw: random.Random) -> Iterator[Lesson]:
    """Batches of examples of about the same length, in any order."""
    rows = []
    for example in examples:
        joined = joiner.join(example.asked, example.stored)
        if joined is not None:
            rows.append((joined, float(example.same), _label(example, joiner, len(joined.ids))))
    rows.sort(key=lambda row: len(row[0].ids) + draw.random())
    cuts = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    draw.shuffle(cuts)
    for cut in cuts:
        batch = pad([joined for joined, _, _ in cut], joiner.separators)
        differs = torch.full(batch.ids.shape, UNKNOWN)
        for at, (_, _, labels) in enumerate(cut):
            differs[at, : len(labels)] = torch.tensor(labels)
        yield Lesson(batch, torch.tensor([same for _, same, _ in cut]), differs)


def _label(example: Example, joiner: Joiner, length: int) -> list[float]:
    """1 where a token makes the difference, 0 where not."""
    if example.changed is None:
        return [UNKNOWN] * length
    sides = []
    for text, changed in zip((example.asked, example.stored), example.changed, strict=True):
        read = joiner.read(text)
        sides.append([float(read.surface[word] in changed) for word in read.words])
    return [UNKNOWN, *sides[0], UNKNOWN, *sides[1], UNKNOWN]
