"""The encoder and the batches that feed it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from edge.engine.batching import MicroBatcher
from edge.engine.encoder import Encoder
from edge.engine.errors import ContextError, ExpiredError, ModelError, OverloadedError, StoppedError
from tests.edge.conftest import SESSION
from tests.edge.embedding import LONGEST, WIDTH, write_embedding_artifact


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(write_embedding_artifact(tmp_path_factory.mktemp("embedding")), SESSION)


def test_vectors_have_length_one_and_ignore_their_neighbours(encoder: Encoder) -> None:
    texts = ["the cat sleeps", "stocks fell on monday the cat", "cat"]

    together = encoder.encode(texts)

    assert together.shape == (3, WIDTH)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1)
    for text, vector in zip(texts, together, strict=True):
        assert encoder.encode([text])[0] == pytest.approx(vector, abs=1e-6)


def test_what_the_model_cannot_read_is_cut(encoder: Encoder) -> None:
    assert encoder.context == LONGEST
    assert len(encoder.tokenize(["cat " * 50])[0]) == LONGEST
    assert encoder.check([3] * 50) == [3] * LONGEST


@pytest.mark.parametrize("tokens", [[], [99], [-1]])
def test_wrong_tokens_are_refused(encoder: Encoder, tokens: list[int]) -> None:
    with pytest.raises(ContextError) as caught:
        encoder.check(tokens)

    assert caught.value.param == "input"


def test_a_decoder_is_no_encoder(model: Path) -> None:
    with pytest.raises(ModelError, match="no truncation"):
        Encoder(model, SESSION)


def test_items_gather_while_a_batch_is_worked_on() -> None:
    batches: list[list[int]] = []
    gate = threading.Event()

    def work(items: list[int]) -> list[int]:
        batches.append(items)
        gate.wait(10)
        return [item * 2 for item in items]

    with MicroBatcher[int, int](work, most=4, wait_s=0, waiting=100) as batcher:
        futures = batcher.submit([0])
        while not batches:
            time.sleep(0.001)
        for item in range(1, 7):
            futures += batcher.submit([item])
        futures[2].cancel()
        gate.set()
        results = [future.result(10) for future in futures if not future.cancelled()]

    assert results == [0, 2, 6, 8, 10, 12]
    assert batches == [[0], [1, 3, 4, 5], [6]]  # 2 left, and takes nobody's place


def test_the_first_item_waits_for_company_but_not_for_long() -> None:
    with MicroBatcher[int, int](lambda items: [len(items)] * len(items), most=3, wait_s=0.2, waiting=9) as batcher:
        started = time.monotonic()
        futures = [batcher.submit([item])[0] for item in range(3)]
        sizes = [future.result(10) for future in futures]
        quick = time.monotonic() - started
        alone = batcher.submit([0])[0].result(10)

    assert (sizes, alone) == ([3, 3, 3], 1)
    assert quick < 0.15
    assert time.monotonic() - started >= 0.2


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds a batch up; opened at the end, so that a failed test does not hang."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_the_urgent_then_the_hurried_go_first_and_the_late_never(gate: threading.Event) -> None:
    batches: list[str] = []

    def work(items: list[str]) -> list[str]:
        batches.extend(items)
        assert gate.wait(10)
        return items

    with MicroBatcher[str, str](work, most=1, wait_s=0, waiting=10) as batcher:
        [running] = batcher.submit(["running"])
        while not batches:
            time.sleep(0.001)
        now = time.monotonic()
        batcher.submit(["batch"], priority=2, deadline=now + 10)
        batcher.submit(["calm"], priority=1)
        batcher.submit(["hurried"], priority=1, deadline=now + 60)
        [late] = batcher.submit(["late"], priority=0, deadline=now + 0.02)
        [last] = batcher.submit(["interactive"], priority=0)
        time.sleep(0.03)
        gate.set()
        running.result(10)
        with pytest.raises(ExpiredError):
            late.result(10)
        last.result(10)
        batcher.submit(["end"], priority=3)[0].result(10)

    assert batches == ["running", "interactive", "hurried", "calm", "batch", "end"]


def test_a_cancelled_item_makes_room(gate: threading.Event) -> None:
    with MicroBatcher[int, bool](lambda items: [gate.wait(10)] * len(items), most=1, wait_s=0, waiting=1) as batcher:
        begun = batcher.submit([0])[0]
        while not begun.running():
            time.sleep(0.001)
        leaving = batcher.submit([1])[0]
        with pytest.raises(OverloadedError):
            batcher.submit([2])

        leaving.cancel()
        staying = batcher.submit([3])[0]

        gate.set()
        assert staying.result(10)


def test_a_failing_batch_fails_its_items_only() -> None:
    def work(items: list[int]) -> list[int]:
        if 0 in items:
            raise ValueError("zero")
        return items

    with MicroBatcher[int, int](work, most=1, wait_s=0, waiting=10) as batcher:
        bad, good = batcher.submit([0, 1])

        with pytest.raises(ValueError, match="zero"):
            bad.result(10)
        assert good.result(10) == 1


def test_room_and_end_are_respected() -> None:
    gate, begun = threading.Event(), threading.Event()

    def work(items: list[int]) -> list[int]:
        begun.set()
        gate.wait(10)
        return items

    waiting: list[Future[int]]
    with MicroBatcher[int, int](work, most=1, wait_s=0, waiting=2) as batcher:
        batcher.submit([0])
        begun.wait(10)
        waiting = batcher.submit([1, 2])
        with pytest.raises(OverloadedError):
            batcher.submit([3])
        threading.Timer(0.05, gate.set).start()

    with pytest.raises(StoppedError):
        waiting[1].result(10)
    with pytest.raises(StoppedError):
        batcher.submit([4])
