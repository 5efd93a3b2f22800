"""Threads that the event loop gives single items to, which they work on together."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Self, TypeVar

from router.telemetry import Telemetry

_logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Sequence[Result]]
_MEMORY: Final = 0.2
"""What the last batch weighs in the pace."""
_WORTH: Final = 0.5
"""The part of the patience up to which an item may expect to wait."""
_LOOK_S: Final = 0.02
_FULL: Final = 0.65
"""The part of the time from which on an event loop has none to spare: the threads have some of the rest."""
_SELDOM_S: Final = 0.25
"""While it has none, threads that give way to it get an item so often."""


class BusyError(Exception):
    """Too much waits already."""


class LateError(Exception):
    """The result did not come in time."""


class Miss(StrEnum):
    """Why a result was not had."""

    BUSY = "busy"
    LATE = "late"
    FAILED = "failed"


class Misses:
    """Results that were not had, counted: for work that a request can do without."""

    def __init__(self, name: str, text: str, telemetry: Telemetry) -> None:
        """The metric is `hybrid_NAME_misses_total`, and `text` says what it counts."""
        self._name = name
        counter = telemetry.counter(f"{name}_misses", text, "why")
        self._counts = {miss: counter.labels(miss) for miss in Miss}

    async def watch(self, run: Awaitable[Result]) -> Result | None:
        """The result, or None when it cannot be had: a request is answered whatever becomes of it."""
        try:
            return await run
        except BusyError:
            miss = Miss.BUSY
        except LateError:
            miss = Miss.LATE
        except Exception as exc:  # noqa: BLE001 - a broken model must not break the requests
            miss = Miss.FAILED
            # without the message, which may quote the prompt
            _logger.error("%s failed with %s in %s.", self._name.title(), type(exc).__name__, _place(exc))  # noqa: TRY400
        self.count(miss)
        return None

    def count(self, miss: Miss) -> None:
        """One more."""
        self._counts[miss].inc()


class Occupancy:
    """How much of the time the thread that asks has computed of late, looked at every `_LOOK_S`."""

    def __init__(self) -> None:
        self._part, self._at, self._used_s = 0.0, 0.0, 0.0

    def part(self) -> float:
        """From 0 to 1."""
        now = time.monotonic()
        if now - self._at >= _LOOK_S:
            used_s = time.thread_time()
            self._part = (used_s - self._used_s) / (now - self._at)
            self._at, self._used_s = now, used_s
        return self._part


@dataclass(frozen=True, slots=True)
class Job(Generic[Item, Result]):
    """An item, what is to be done with it, and who waits for the outcome."""

    work: Work[Item, Result]
    item: Item
    outcome: asyncio.Future[Result]


class BatchThreads:
    """`async with BatchThreads(...) as threads: result = await threads.run(work, item)`, from one event loop.

    No item waits for company: what gathered while a thread was busy is its next batch. Each batch is told to the event
    loop in one call, since waking it costs more than most results. An item that would come too late by the pace of the
    last ones is refused at once: its owner would have waited, and the threads have worked, for nothing. So is most of
    what is for threads that give way (`nice`) while the event loop itself has no time to spare.
    """

    def __init__(self, name: str, *, threads: int, most: int, waiting: int, patience_s: float, nice: int = 0) -> None:
        """
        Args:
            name: Of the threads.
            threads: How many.
            most: Items a batch, which bounds how long a thread keeps the interpreter.
            waiting: Unfinished items.
            patience_s: How long the result of one is awaited.
            nice: By how much the threads give way to the rest of the process, the event loop above all.
        """
        self._nice = nice
        self._most = most
        self._patience_s = patience_s
        self._most_waiting = waiting
        self._waiting = 0
        self._pace_s = 0.0
        self._occupancy = Occupancy()
        self._taken_at = 0.0
        self._jobs: SimpleQueue[Job[Any, Any] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def run(self, work: Work[Item, Result], item: Item) -> Result:
        """The item's result; `work` gives one an item, in order. What `work` raises is raised to every item's owner.

        Raises:
            BusyError: too many items wait for this one to come in time; nothing was done.
            LateError: no result within `patience_s`.
        """
        if self.is_busy():
            raise BusyError
        self._taken_at = self._loop.time()
        outcome: asyncio.Future[Result] = self._loop.create_future()
        # a timer of our own: asyncio.timeout costs several times as much
        timer = self._loop.call_later(self._patience_s, _give_up, outcome)
        self._waiting += 1
        self._jobs.put(Job(work, item, outcome))
        try:
            return await outcome
        finally:
            timer.cancel()
            self._waiting -= 1

    def is_busy(self) -> bool:
        """Whether an item that came now would be refused."""
        if self._waiting >= self._most_waiting:
            return True
        if self._nice and self._occupancy.part() > _FULL:
            return self._loop.time() < self._taken_at + _SELDOM_S
        # one alone is always tried, or a slow moment would never end
        expected_s = (self._waiting + 1) * self._pace_s / len(self._threads)
        return self._waiting > 0 and expected_s > _WORTH * self._patience_s

    def _run(self) -> None:
        if self._nice and sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self._nice)
        while (first := self._jobs.get()) is not None:
            batch = [first, *self._gather()]
            # equal works share a batch, as one object's bound methods are; after a swap of models a batch can hold two
            for work, jobs in groupby(batch, key=lambda job: job.work):
                self._finish(work, [job for job in jobs if not job.outcome.done()])

    def _gather(self) -> list[Job[Any, Any]]:
        """What else waits already."""
        more: list[Job[Any, Any]] = []
        while len(more) < self._most - 1:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:  # the sign to stop comes after this batch
                self._jobs.put(None)
                break
            more.append(job)
        return more

    def _finish(self, work: Work[Any, Any], jobs: list[Job[Any, Any]]) -> None:
        if not jobs:
            return
        began = time.monotonic()
        try:
            results = list(zip(jobs, work([job.item for job in jobs]), strict=True))
        except Exception as exc:  # noqa: BLE001 - whoever waits for the results gets it
            self._loop.call_soon_threadsafe(fail, jobs, exc)
        else:
            self._loop.call_soon_threadsafe(deliver, results)
        # by the clock and not by the processor: a thread that gives way is slower
        took_s = (time.monotonic() - began) / len(jobs)
        self._pace_s += (_MEMORY if self._pace_s else 1.0) * (took_s - self._pace_s)


def deliver(results: list[tuple[Job[Any, Any], Any]]) -> None:
    """Each result to its owner, if that still waits."""
    for job, result in results:
        if not job.outcome.done():
            job.outcome.set_result(result)


def _give_up(outcome: asyncio.Future[Any]) -> None:
    if not outcome.done():
        outcome.set_exception(LateError())


def fail(jobs: Sequence[Job[Any, Any]], exc: Exception) -> None:
    """The same failure to every owner."""
    for job in jobs:
        if not job.outcome.done():
            job.outcome.set_exception(exc)


def _place(exc: BaseException) -> str:
    """File and line where it was raised."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
