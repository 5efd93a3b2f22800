"""The auditor: when it works, what it tells the budget, and what it never tells."""

import asyncio
import logging
from collections.abc import Callable

import numpy as np
import pytest

from router.cache.auditor import Audit, Auditor, Verdict
from router.cache.segment import Floats
from router.telemetry import Telemetry

ONE = b"1" * 32
VECTORS = {"Paris": [1.0, 0.0], "The French capital": [0.95, 0.3122], "London": [0.6, 0.8]}


class Desk:
    """An auditor whose surroundings a test sets, and what it was told."""

    def __init__(self, answers: dict[str, str], *, busy: bool = False) -> None:
        self.answers = answers
        self.busy = busy
        self.asked: list[str] = []
        self.judged: list[tuple[bytes, float, bool]] = []
        self.telemetry = Telemetry()
        self.auditor: Auditor[str] = Auditor(
            self.answer, self.embed, lambda: not self.busy, self.judge, self.telemetry, most_per_s=1000
        )

    async def answer(self, question: str) -> str:
        self.asked.append(question)
        await asyncio.sleep(0)
        return self.answers[question]

    async def embed(self, text: str) -> Floats | None:
        vector = VECTORS.get(text)
        return None if vector is None else np.asarray(vector, np.float32)

    def judge(self, partition: bytes, similarity: float, *, right: bool) -> None:
        self.judged.append((partition, similarity, right))

    def count(self, verdict: Verdict) -> float:
        return self.telemetry.registry.get_sample_value("hybrid_semantic_audits_total", {"verdict": verdict}) or 0.0

    async def run_until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            task = group.create_task(self.auditor.run())
            while not done():  # noqa: ASYNC110 - an audit without a verdict wakes nobody
                await asyncio.sleep(0.001)
            task.cancel()


@pytest.mark.parametrize(
    ("served", "fresh", "verdict"),
    [
        ("4", "4", Verdict.RIGHT),
        ("4", "5", Verdict.WRONG),
        ("Paris", "The French capital", Verdict.RIGHT),
        ("Paris", "London", Verdict.WRONG),
        ("Paris", "somewhere unknown", Verdict.UNCLEAR),
    ],
)
async def test_a_fresh_answer_judges_the_served_one(served: str, fresh: str, verdict: Verdict) -> None:
    desk = Desk({"question": fresh})

    desk.auditor.submit(Audit(ONE, 0.9, "question", served))
    await desk.run_until(lambda: desk.count(verdict) == 1)

    right = {Verdict.RIGHT: [(ONE, 0.9, True)], Verdict.WRONG: [(ONE, 0.9, False)]}
    assert desk.judged == right.get(verdict, [])


async def test_a_failing_answer_is_no_verdict_and_the_next_audit_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk({"good": "4"})

    with caplog.at_level(logging.DEBUG):
        desk.auditor.submit(Audit(ONE, 0.9, "good", "4"))
        desk.auditor.submit(Audit(ONE, 0.9, "secret question", "4"))
        await desk.run_until(lambda: len(desk.judged) == 1)

    assert desk.asked == ["secret question", "good"]
    assert desk.count(Verdict.FAILED) == 1
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_it_waits_for_idle_time() -> None:
    desk = Desk({"question": "4"}, busy=True)
    desk.auditor.submit(Audit(ONE, 0.9, "question", "4"))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(desk.auditor.run())
        await asyncio.sleep(0.05)
        assert desk.asked == []
        desk.busy = False
        await asyncio.sleep(0.4)
        task.cancel()

    assert desk.judged == [(ONE, 0.9, True)]


async def test_the_oldest_hits_give_way() -> None:
    desk = Desk({str(number): "4" for number in range(300)})

    for number in range(300):
        desk.auditor.submit(Audit(ONE, 0.9, str(number), "4"))
    await desk.run_until(lambda: len(desk.judged) == 256)

    assert desk.count(Verdict.DROPPED) == 44
    assert min(map(int, desk.asked)) == 44


async def test_it_can_be_stopped_amid_an_answer() -> None:
    desk = Desk({"question": "4"})
    begun = asyncio.Event()

    async def never(question: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        return question

    auditor: Auditor[str] = Auditor(never, desk.embed, lambda: True, desk.judge, Telemetry())
    auditor.submit(Audit(ONE, 0.9, "question", "4"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(auditor.run())
        await begun.wait()
        task.cancel()

    assert task.cancelled()
    assert desk.judged == []
