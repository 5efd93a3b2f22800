"""The index on a thread of its own: searches go before changes, and neither ever runs on the event loop."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, Generic, Self, TypeVar

from router.cache.index import PartitionedIndex

__all__ = ["BusyError", "IndexThread", "LateError"]

_MOST_SEARCHES: Final = 256
_MOST_CHANGES: Final = 4096

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Change = Callable[[PartitionedIndex], None]


class BusyError(Exception):
    """Too much waits already, or the thread has ended; nothing was done."""


class LateError(Exception):
    """The search was not over in time."""


@dataclass(frozen=True, slots=True)
class _Job(Generic[Result]):
    work: Callable[[PartitionedIndex], Result]
    outcome: asyncio.Future[Result] | None


class IndexThread:
    """`async with IndexThread(index) as thread`, used from one event loop; nobody else may touch the index meanwhile.

    usearch lets other threads run while it works, so the event loop does too.
    """

    def __init__(self, index: PartitionedIndex, patience_s: float) -> None:
        """A search that takes longer than `patience_s` is given up: no answer waits for the cache."""
        self._index = index
        self._patience_s = patience_s
        self._searches: deque[_Job[Any]] = deque()
        self._changes: deque[_Job[Any]] = deque()
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="semantic-index", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in (*self._searches, *self._changes):
            if job.outcome is not None:
                _fail(job.outcome, BusyError())
        self._searches.clear()
        self._changes.clear()
        self._tokens.put(False)
        await asyncio.to_thread(self._thread.join)

    async def search(self, search: Callable[[PartitionedIndex], Result]) -> Result:
        """What it finds, before any change that waits.

        Raises:
            BusyError: too many searches wait.
            LateError: it was not over in time; it is not begun then, if it has not been.
        """
        if len(self._searches) >= _MOST_SEARCHES:
            raise BusyError
        outcome: asyncio.Future[Result] = self._loop.create_future()
        timer = self._loop.call_later(self._patience_s, _give_up, outcome)
        self._put(self._searches, _Job(search, outcome))
        try:
            return await outcome
        finally:
            timer.cancel()

    def change(self, change: Change) -> None:
        """Have it done, some time.

        Raises:
            BusyError: too many changes wait.
        """
        if len(self._changes) >= _MOST_CHANGES:
            raise BusyError
        self._put(self._changes, _Job(change, None))

    async def finish(self, work: Callable[[PartitionedIndex], Result]) -> Result:
        """What it gives, after every change given before; for those that give one work at a time.

        Raises:
            BusyError: the thread ended.
        """
        outcome: asyncio.Future[Result] = self._loop.create_future()
        self._put(self._changes, _Job(work, outcome))
        return await outcome

    def _put(self, queue: deque[_Job[Any]], job: _Job[Any]) -> None:
        queue.append(job)
        self._tokens.put(True)

    def _run(self) -> None:
        while self._tokens.get():
            try:
                job = (self._searches or self._changes).popleft()
            except IndexError:  # cleared for the end; else there is a job for every token
                continue
            if job.outcome is None:
                self._make(job)
            elif not job.outcome.done():  # whoever asked may be gone
                self._finish(job, job.outcome)

    def _make(self, change: _Job[Any]) -> None:
        try:
            change.work(self._index)
        except Exception as exc:  # noqa: BLE001 - the thread must outlive it; not its message, which may quote a text
            _logger.error("A change of the semantic index failed with %s.", type(exc).__name__)  # noqa: TRY400

    def _finish(self, job: _Job[Result], outcome: asyncio.Future[Result]) -> None:
        try:
            result = job.work(self._index)
        except Exception as exc:  # noqa: BLE001 - who asked for it gets it
            self._loop.call_soon_threadsafe(_fail, outcome, exc)
        else:
            self._loop.call_soon_threadsafe(_deliver, outcome, result)


def _deliver(outcome: asyncio.Future[Result], result: Result) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: asyncio.Future[Any], exc: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(exc)


def _give_up(outcome: asyncio.Future[Any]) -> None:
    _fail(outcome, LateError())
