"""Single items that arrive on their own, worked on together."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from edge.engine.errors import ExpiredError, OverloadedError, StoppedError
from edge.engine.waiting import WaitingList

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    future: Future[Result]


class MicroBatcher(Generic[Item, Result]):
    """One thread that works on up to `most` items at once: `with MicroBatcher(...) as batcher`.

    The first item waits at most `wait_s` for company; while a batch is worked on, the next one gathers by itself. Late
    items do not begin.
    """

    def __init__(
        self, work: Callable[[list[Item]], Sequence[Result]], *, most: int, wait_s: float, waiting: int
    ) -> None:
        """`work` returns one result an item, in order. `waiting` bounds the items that have not begun."""
        self._work = work
        self._most = most
        self._wait_s = wait_s
        self._most_waiting = waiting
        self._waiting = WaitingList[_Job[Item, Result]]()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Items that have not begun fail with `StoppedError`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(
        self, items: Sequence[Item], *, priority: int = 0, deadline: float | None = None
    ) -> list[Future[Result]]:
        """All of `items` or none; a cancelled future's item leaves if it has not begun.

        Args:
            items: What to work on.
            priority: Smaller goes first among those that wait; equals go by deadline, then by arrival.
            deadline: On `time.monotonic()`'s clock; what has not begun by then fails with `ExpiredError`.

        Raises:
            OverloadedError: too many wait.
            StoppedError: the batcher does not run.
        """
        jobs: list[_Job[Item, Result]] = [_Job(item, Future()) for item in items]
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise StoppedError("the batcher does not run")
            if len(self._waiting) + len(jobs) > self._most_waiting:
                raise OverloadedError(f"{len(self._waiting)} items wait already; try later or raise `waiting`")
            for job in jobs:
                self._waiting.push(job, priority, math.inf if deadline is None else deadline)
            self._changed.notify()
        for job in jobs:
            job.future.add_done_callback(partial(self._leave, job))
        return [job.future for job in jobs]

    def _leave(self, job: _Job[Item, Result], future: Future[Result]) -> None:
        if future.cancelled():
            with self._changed:
                self._waiting.discard(job)

    def _run(self) -> None:
        while self._gather():
            begun, late = self._take()
            _fail(late, ExpiredError("the deadline passed before the work began"))
            if begun:
                self._finish(begun)
        with self._changed:
            left = self._waiting.clear()
        _fail(left, StoppedError("the batcher stopped before the work began"))

    def _gather(self) -> bool:
        """Wait for the next batch; False when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._waiting))
            end = time.monotonic() + self._wait_s
            while not self._stopping and len(self._waiting) < self._most and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._stopping

    def _take(self) -> tuple[list[_Job[Item, Result]], list[_Job[Item, Result]]]:
        """The next batch, and who is too late for it."""
        with self._changed:
            late = self._waiting.expire(time.monotonic())
            batch = [self._waiting.pop() for _ in range(min(self._most, len(self._waiting)))]
        return [job for job in batch if job.future.set_running_or_notify_cancel()], late

    def _finish(self, begun: Sequence[_Job[Item, Result]]) -> None:
        try:
            results = self._work([job.item for job in begun])
        except Exception as exc:  # noqa: BLE001 - whoever waits for the results gets it
            for job in begun:
                job.future.set_exception(exc)
            return
        for job, result in zip(begun, results, strict=True):
            job.future.set_result(result)


def _fail(jobs: Sequence[_Job[Item, Result]], error: Exception) -> None:
    for job in jobs:
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)
