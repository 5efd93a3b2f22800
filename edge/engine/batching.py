"""Single items that arrive on their own, worked on together."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from edge.engine.errors import OverloadedError, StoppedError

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """One thread that works on up to `most` items at once: `with MicroBatcher(...) as batcher`.

    The first item waits at most `wait_s` for company; while a batch is worked on, the next one gathers by itself.
    """

    def __init__(
        self, work: Callable[[list[Item]], Sequence[Result]], *, most: int, wait_s: float, waiting: int
    ) -> None:
        """`work` returns one result an item, in order. `waiting` bounds the items that have not begun."""
        self._work = work
        self._most = most
        self._wait_s = wait_s
        self._most_waiting = waiting
        self._waiting: deque[tuple[Item, Future[Result]]] = deque()
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

    def submit(self, items: Sequence[Item]) -> list[Future[Result]]:
        """All of `items` or none; a cancelled future's item is skipped if it has not begun.

        Raises:
            OverloadedError: too many wait.
            StoppedError: the batcher does not run.
        """
        futures: list[Future[Result]] = [Future() for _ in items]
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise StoppedError("the batcher does not run")
            if len(self._waiting) + len(items) > self._most_waiting:
                raise OverloadedError(f"{len(self._waiting)} items wait already; try later or raise `waiting`")
            self._waiting.extend(zip(items, futures, strict=True))
            self._changed.notify()
        return futures

    def _run(self) -> None:
        while batch := self._gather():
            begun = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
            if begun:
                self._finish(begun)
        for _, future in self._waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(StoppedError("the batcher stopped before the work began"))

    def _gather(self) -> list[tuple[Item, Future[Result]]]:
        """The next batch; empty when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            end = time.monotonic() + self._wait_s
            while not self._stopping and len(self._waiting) < self._most and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._stopping:
                return []
            return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]

    def _finish(self, begun: list[tuple[Item, Future[Result]]]) -> None:
        try:
            results = self._work([item for item, _ in begun])
        except Exception as exc:  # noqa: BLE001 - whoever waits for the results gets it
            for _, future in begun:
                future.set_exception(exc)
            return
        for (_, future), result in zip(begun, results, strict=True):
            future.set_result(result)
