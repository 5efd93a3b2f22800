"""The partitioned index: isolation against a model that keeps everything apart, bounds, and recall over turnovers."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from router.cache import Selector
from router.cache.index import Entry, PartitionedIndex
from router.cache.segment import BLOCK, Vector

WIDTH = 8
MOST_ENTRIES = 150
MOST_PARTITIONS = 4
FOREVER = 1e12


def unit(rng: np.random.Generator, count: int, width: int = WIDTH) -> Vector:
    """Random directions."""
    rows: NDArray[np.float64] = rng.standard_normal((count, width))
    vectors: Vector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return vectors


def entry(key: bytes, *, tenant: str = "tenant", expires_at: float = FOREVER) -> Entry:
    return Entry(key, f"text of {key.hex()}", tenant, "model", (), expires_at)


TEXTS = unit(np.random.default_rng(1), 400)
PARTITIONS = st.sampled_from([bytes([number]) * 32 for number in range(7)])
NUMBERS = st.integers(0, len(TEXTS) - 1)


class Isolation(RuleBasedStateMachine):
    """The same texts everywhere, so that only the partition can tell entries apart."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PartitionedIndex(most_entries=MOST_ENTRIES, most_partitions=MOST_PARTITIONS, width=WIDTH)
        self.owner: dict[bytes, bytes] = {}
        self.gone: set[bytes] = set()
        self.now = 0.0

    def key(self, partition: bytes, number: int) -> bytes:
        return partition[:1] + number.to_bytes(4, "big")

    def add_one(self, partition: bytes, number: int, lasts: float) -> None:
        key = self.key(partition, number)
        self.index.add(partition, entry(key, expires_at=self.now + lasts), TEXTS[number])
        self.owner[key] = partition
        self.gone.discard(key)
        found = self.index.search(partition, TEXTS[number], 4, self.now)
        assert key in {match.entry.key for match in found}, "what was just added is found"

    @rule(partition=PARTITIONS, number=NUMBERS, lasts=st.sampled_from([1.0, 100.0]))
    def add(self, partition: bytes, number: int, lasts: float) -> None:
        self.add_one(partition, number, lasts)

    @rule(partition=PARTITIONS, first=NUMBERS, count=st.integers(1, 2 * BLOCK))
    def add_many(self, partition: bytes, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.add_one(partition, number % len(TEXTS), 100.0)

    @rule(partition=PARTITIONS, first=NUMBERS, count=st.integers(1, 2 * BLOCK))
    def forget(self, partition: bytes, first: int, count: int) -> None:
        for number in range(first, first + count):
            key = self.key(partition, number % len(TEXTS))
            self.index.forget(partition, key)
            self.gone.add(key)

    @rule(partition=PARTITIONS)
    def flush(self, partition: bytes) -> None:
        self.index.flush(partition, Selector(tenant="tenant"))
        self.gone |= {key for key, owner in self.owner.items() if owner == partition}

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(partition=PARTITIONS, number=NUMBERS)
    def search(self, partition: bytes, number: int) -> None:
        found = self.index.search(partition, TEXTS[number], 6, self.now)

        assert all(self.owner[match.entry.key] == partition for match in found)
        assert not {match.entry.key for match in found} & self.gone
        assert all(match.entry.expires_at > self.now for match in found)
        assert [match.similarity for match in found] == sorted((m.similarity for m in found), reverse=True)
        assert len({match.entry.key for match in found}) == len(found)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.index.entries <= MOST_ENTRIES
        assert self.index.partitions <= MOST_PARTITIONS


Isolation.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestIsolation = Isolation.TestCase


def filled(count: int, *, most_entries: int, width: int = 32) -> tuple[PartitionedIndex, Vector]:
    """One partition to which so many were added, one after another."""
    index = PartitionedIndex(most_entries=most_entries, most_partitions=2, width=width)
    vectors = unit(np.random.default_rng(2), count, width)
    for number, vector in enumerate(vectors):
        index.add(b"one", entry(number.to_bytes(4, "big")), vector)
    return index, vectors


def test_the_oldest_go_and_recall_stays_over_many_turnovers() -> None:
    index, vectors = filled(6000, most_entries=1000)

    kept = vectors[-1000:].astype(np.float32)
    asked = unit(np.random.default_rng(3), 300, 32)
    nearest = (kept @ asked.T.astype(np.float32)).argmax(axis=0) + 5000
    found = [index.search(b"one", vector, 1, 0.0)[0].entry.key for vector in asked]
    recall = np.mean([key == int(number).to_bytes(4, "big") for key, number in zip(found, nearest, strict=True)])

    assert index.entries == 1000
    assert recall >= 0.98
    everything = {match.entry.key for vector in vectors[::7] for match in index.search(b"one", vector, 4, 0.0)}
    assert min(everything) >= (5000).to_bytes(4, "big")


def test_similarity_is_the_cosine() -> None:
    for count in (5, 3 * BLOCK):
        index, vectors = filled(count, most_entries=1000)

        match = index.search(b"one", vectors[2], 2, 0.0)[1]

        number = int.from_bytes(match.entry.key, "big")
        cosine = float(vectors[2].astype(np.float32) @ vectors[number].astype(np.float32))
        assert abs(match.similarity - cosine) < 2e-3


def test_forgotten_entries_do_not_pile_up() -> None:
    index = PartitionedIndex(most_entries=1000, most_partitions=2, width=32)
    index.add(b"one", entry(b"stays"), unit(np.random.default_rng(4), 1, 32)[0])

    for number, vector in enumerate(unit(np.random.default_rng(5), 20 * BLOCK, 32)):
        index.add(b"one", entry(number.to_bytes(4, "big")), vector)
        index.forget(b"one", number.to_bytes(4, "big"))

    (kept,) = index._partitions.values()
    assert index.entries == 1
    assert sum(len(segment.owners) for segment in kept._segments) <= 4 * BLOCK
    assert len(kept._places) <= 4 * BLOCK


def test_a_question_answered_again_takes_no_new_vector() -> None:
    index = PartitionedIndex(most_entries=1000, most_partitions=2, width=32)
    vectors = unit(np.random.default_rng(6), 2, 32)
    index.add(b"one", entry(b"other"), vectors[1])

    for _ in range(10 * BLOCK):
        index.add(b"one", entry(b"again"), vectors[0])
        index.forget(b"one", b"again")
    index.add(b"one", entry(b"again"), vectors[0])

    (kept,) = index._partitions.values()
    assert index.search(b"one", vectors[0], 1, 0.0)[0].entry.key == b"again"
    assert sum(len(segment.owners) for segment in kept._segments) == 2


def test_the_least_recently_used_partition_goes_first() -> None:
    index = PartitionedIndex(most_entries=1000, most_partitions=2, width=32)
    vectors = unit(np.random.default_rng(7), 3, 32)
    for name, vector in zip((b"a", b"b"), vectors[:2], strict=True):
        index.add(name, entry(name), vector)
    index.search(b"a", vectors[0], 1, 0.0)

    index.add(b"c", entry(b"c"), vectors[2])

    assert index.names() == [b"a", b"c"]
    assert index.search(b"b", vectors[1], 1, 0.0) == []


def test_dropped_partitions_are_freed() -> None:
    index, vectors = filled(1000, most_entries=5000)

    for name in (b"two", b"three"):
        index.add(name, entry(name), vectors[0])
    assert index.names() == [b"two", b"three"]
    for _ in range(40):
        index.forget(b"two", b"nothing")

    assert not index._dropped
    assert index.entries == 2
