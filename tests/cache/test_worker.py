"""The thread that a hung disk hangs."""

import asyncio
import threading
import time

import pytest

from router.cache import CacheTierError
from router.cache.worker import Worker


async def test_a_call_that_hangs_is_left_behind() -> None:
    worker, release = Worker("hangs", most_waiting=2), threading.Event()
    worker.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await worker.run(release.wait)
    given_up = [worker.post(lambda: "never made") for _ in range(2)]
    for call in given_up:
        call.cancel()

    with pytest.raises(CacheTierError, match="2 calls wait already"):
        await worker.run(lambda: None)
    begun = time.monotonic()
    await worker.stop()
    assert time.monotonic() - begun < 3
    release.set()


async def test_what_a_call_raises_reaches_who_waits() -> None:
    worker = Worker("raises", most_waiting=2)
    worker.start()

    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 / 0)
    assert await worker.run(lambda: 7) == 7
    await worker.stop()
