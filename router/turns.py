"""Work so small that the event loop does it itself: handing it to a thread and back costs more than doing it."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeVar

from router.threads import Job, Work, deliver, fail

Item = TypeVar("Item")
Result = TypeVar("Result")


class TurnBatches:
    """`result = await batches.run(work, item)`, from one event loop; as `router.threads.BatchThreads`, without threads.

    What comes in one turn of the loop is worked on in the next, up to `most` items together: most of the time that a
    single one takes is numpy's calls. So `most` bounds how long everybody else waits.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: list[Job[Any, Any]] = []

    async def run(self, work: Work[Item, Result], item: Item) -> Result:
        """The item's result; `work` gives one an item, in order. What `work` raises is raised to every item's owner."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Result] = loop.create_future()
        if not self._jobs:
            loop.call_soon(self._take)
        self._jobs.append(Job(work, item, outcome))
        return await outcome

    def _take(self) -> None:
        batch, self._jobs = self._jobs[: self._most], self._jobs[self._most :]
        if self._jobs:  # after whatever else is ready
            asyncio.get_running_loop().call_soon(self._take)
        for work, jobs in groupby(batch, key=lambda job: job.work):
            _finish(work, [job for job in jobs if not job.outcome.done()])


def _finish(work: Work[Any, Any], jobs: Sequence[Job[Any, Any]]) -> None:
    if not jobs:
        return
    try:
        results = list(zip(jobs, work([job.item for job in jobs]), strict=True))
    except Exception as exc:  # noqa: BLE001 - whoever waits for the results gets it
        fail(jobs, exc)
    else:
        deliver(results)
