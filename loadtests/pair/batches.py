"""Training batches, drawn without end in a process of their own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Full

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from loadtests.pair.conversation import Tier, draw_conversation, encode_conversation

# Rows are padded to one of these lengths, so that few shapes need compiling.
LENGTHS = (32, 48, 64, 80, 96, 128, 192, 288)
POOL = 4096
PATIENCE_SECONDS = 5.0
# The largest share of a batch's tokens that is learnt; a few in excess of it are dropped.
LEARNT_SHARE = {Tier.EDGE: 0.3, Tier.CLOUD: 0.7}


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` int64 [rows, length]; `targets` int64 [n] belong to the `places` int64 [n].

    Places count through `ids` row by row; n depends on the shape of `ids` only; places to spare have the target -100.
    """

    ids: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


def draw_batches(tokenizer: Tokenizer, tier: Tier, seed: str, tokens: int) -> Iterator[Batch]:
    """Batches of about `tokens` tokens, each of rows of similar length."""
    rng = random.Random(f"batches/{tier}/{seed}")
    waiting: dict[int, list[tuple[list[int], list[bool]]]] = {length: [] for length in LENGTHS}
    while True:
        ready = []
        for _ in range(POOL):
            ids, learnt = encode_conversation(tokenizer, draw_conversation(rng, tier))
            length = next((length for length in LENGTHS if length >= len(ids) - 1), None)
            if length is None:
                continue
            row = waiting[length]
            row.append((ids, learnt))
            if len(row) == max(1, tokens // length):
                ready.append(_stack(row, length, LEARNT_SHARE[tier]))
                waiting[length] = []
        rng.shuffle(ready)
        yield from ready


@contextmanager
def stream_batches(tokenizer: Path, tier: Tier, seed: str, tokens: int) -> Iterator["Queue[Batch]"]:
    """`draw_batches` from another process, a few batches ahead."""
    context = get_context("spawn")
    queue: Queue[Batch] = context.Queue(maxsize=64)
    worker = context.Process(target=_fill, args=(queue, str(tokenizer), tier, seed, tokens), daemon=True)
    worker.start()
    try:
        yield queue
    finally:
        worker.terminate()
        worker.join()


def _fill(queue: "Queue[Batch]", tokenizer: str, tier: Tier, seed: str, tokens: int) -> None:
    parent = parent_process()
    for batch in draw_batches(Tokenizer.from_file(tokenizer), tier, seed, tokens):
        while parent is not None and parent.is_alive():
            with suppress(Full):
                queue.put(batch, timeout=PATIENCE_SECONDS)
                break
        else:
            queue.cancel_join_thread()
            return


def _stack(rows: list[tuple[list[int], list[bool]]], length: int, share: float) -> Batch:
    ids = np.zeros((len(rows), length), np.int64)
    following = np.zeros_like(ids)
    learnt = np.zeros(ids.shape, np.bool_)
    for place, (row, marks) in enumerate(rows):
        ids[place, : len(row) - 1] = row[:-1]
        following[place, : len(row) - 1] = row[1:]
        learnt[place, : len(row) - 1] = marks[1:]
    room = int(ids.size * share)
    found = np.flatnonzero(learnt)[:room]
    places, targets = np.zeros(room, np.int64), np.full(room, -100, np.int64)
    places[: len(found)] = found
    targets[: len(found)] = following.flat[found]
    return Batch(ids, places, targets)
