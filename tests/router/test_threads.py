"""Threads that take single items: what cannot come in time is refused at once, and what is taken comes."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from router.threads import BatchThreads, BusyError, LateError

pytestmark = pytest.mark.anyio
ITEM_S = 0.05


def dawdle(items: Sequence[int]) -> list[int]:
    time.sleep(ITEM_S * len(items))
    return [item + 1 for item in items]


async def ask(threads: BatchThreads, item: int, tally: Counter[str]) -> None:
    try:
        assert await threads.run(dawdle, item) == item + 1
        tally["had"] += 1
    except BusyError:
        tally["busy"] += 1
    except LateError:
        tally["late"] += 1


async def test_an_item_that_would_come_too_late_is_refused_at_once() -> None:
    tally: Counter[str] = Counter()
    async with BatchThreads("slow", threads=1, most=1, waiting=64, patience_s=20 * ITEM_S) as threads:
        for item in range(10):  # alone: the pace is learnt
            await ask(threads, item, tally)
        assert tally == {"had": 10}

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for item in range(40):
                group.create_task(ask(threads, item, tally))
        took_s = time.monotonic() - began

        # half of the patience is room for ten
        assert tally["late"] == 0
        assert 5 <= tally["had"] - 10 <= 10
        assert took_s < 20 * ITEM_S
        await ask(threads, 1, tally)
        assert tally["had"] + tally["busy"] == 51


async def test_no_more_than_so_many_wait_whatever_the_pace() -> None:
    tally: Counter[str] = Counter()
    async with (
        BatchThreads("slow", threads=1, most=4, waiting=3, patience_s=60) as threads,
        asyncio.TaskGroup() as group,
    ):
        for item in range(8):
            group.create_task(ask(threads, item, tally))

    assert tally == {"had": 3, "busy": 5}


async def test_a_loop_without_time_to_spare_seldom_gives_threads_that_give_way_anything() -> None:
    tally: Counter[str] = Counter()
    async with (
        BatchThreads("nice", threads=1, most=1, waiting=64, patience_s=5, nice=10) as threads,
        asyncio.TaskGroup() as group,
    ):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:  # the loop computes all the time
            group.create_task(ask(threads, 1, tally))
            busy_until = time.monotonic() + 0.01
            while time.monotonic() < busy_until:
                pass
            await asyncio.sleep(0)
    asked = tally.total()
    async with BatchThreads("nice", threads=1, most=1, waiting=64, patience_s=5, nice=10) as threads:
        for _ in range(5):
            await ask(threads, 1, tally)

    assert tally["late"] == 0
    assert tally["had"] - 5 < asked / 5
    assert tally["had"] > 5
