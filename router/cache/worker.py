"""A thread for calls that may block for long or for ever, such as those to a disk."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from router.cache import CacheTierError

Result = TypeVar("Result")
_STOP_S: Final = 2.0


class Worker:
    """Runs one call after the other. The thread is a daemon: a call that never returns cannot keep the process."""

    def __init__(self, name: str, *, most_waiting: int) -> None:
        self._name = name
        self._most_waiting = most_waiting
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    async def run(self, call: Callable[[], Result]) -> Result:
        """The call's result; if nobody waits any more when its turn comes, it is not made.

        Raises:
            CacheTierError: too many calls wait, which those that were given up do until the thread sees them.
        """
        return await asyncio.wrap_future(self.post(call))

    def post(self, call: Callable[[], Result]) -> Future[Result]:
        """Have the call made; see `run`."""
        if self._calls.qsize() >= self._most_waiting:
            raise CacheTierError(f"{self._name}: {self._most_waiting} calls wait already")
        future: Future[Result] = Future()
        self._calls.put((future, call))
        return future

    async def stop(self) -> None:
        """After what waits; a thread that hangs is left behind."""
        self._calls.put(None)
        await asyncio.wait({asyncio.wrap_future(self._ended)}, timeout=_STOP_S)

    def _work(self) -> None:
        while (job := self._calls.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as exc:  # noqa: BLE001 - whoever waits for the result gets it
                    future.set_exception(exc)
            del job, future, call  # or the last result would live until the next call
        self._ended.set_result(None)
