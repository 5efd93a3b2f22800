"""Work that ends when its client leaves: whole answers and streams."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from functools import partial
from types import coroutine
from typing import Any, Final, TypeVar

from litestar.types import Receive, Scope, Send

T = TypeVar("T")
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class HangUpError(Exception):
    """The client left before its answer was ready."""


async def until_hang_up(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled as soon as the client closes its connection.

    Raises:
        HangUpError: the client left.
    """
    steps = work.__await__()
    try:
        waited_for = next(steps)
    except StopIteration as done:  # it waited for nothing, so nobody need watch the client meanwhile
        result: T = done.value
        return result
    watcher = _Watcher(receive)
    try:
        result = await _go_on(steps, waited_for)
    except asyncio.CancelledError:
        if watcher.close():
            raise HangUpError from None
        raise
    except BaseException:
        watcher.close()
        raise
    if watcher.close():
        raise HangUpError
    return result


class _Watcher:
    """Cancels the current task when the client leaves. It takes `receive`'s steps itself: a task for them, which most
    requests start and cancel in vain, costs several times as much.
    """

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("until_hang_up() belongs inside a task")
        self._task = task
        self._cancelled_before = task.cancelling()
        self._hung_up = False
        self._over = False
        self._receive = receive
        self._steps = receive().__await__()
        self._step()

    def close(self) -> bool:
        """Watch no more; whether the client's leaving, and nothing else, cancelled the task."""
        self._over = True
        self._steps.close()
        return self._hung_up and self._task.uncancel() <= self._cancelled_before

    def _step(self, _: object = None) -> None:
        """Go on until there is something to wait for; what comes meanwhile is no business of the work's."""
        while not self._over:  # what was waited for may come just before the end
            try:
                waited_for = next(self._steps)
            except StopIteration as done:
                if done.value["type"] == "http.disconnect":
                    self._hung_up = self._task.cancel()
                    return
                self._steps = self._receive().__await__()
                continue
            if waited_for is None:  # only to let others run
                asyncio.get_running_loop().call_soon(self._step)
            else:
                waited_for._asyncio_future_blocking = False  # as a task does with what it waits for
                waited_for.add_done_callback(self._step)
            return


@coroutine
def _go_on(steps: Generator[Any, Any, T], waited_for: Any) -> Generator[Any, Any, T]:
    """Await the rest of what was driven, by this same task, until it waits for something; `await` from its middle."""
    while True:
        try:
            yield waited_for
        except BaseException as exc:  # noqa: BLE001 - the work's to handle, a cancellation above all
            resume = partial(steps.throw, exc)
        else:
            resume = partial(next, steps)
        try:
            waited_for = resume()
        except StopIteration as done:
            result: T = done.value
            return result


class EventStream:
    """Server-sent events. `release` runs once however the stream ends, also when it never began.

    Litestar's own streaming response would watch for a hang-up beside `until_hang_up`, with two tasks a stream.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        release: Callable[[], Awaitable[None]],
    ) -> None:
        self._events = events
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()] + _STREAM_HEADERS
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pump the events until they or the client end."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            async with contextlib.aclosing(self._events):
                with contextlib.suppress(HangUpError):
                    await until_hang_up(receive, self._pump(send))
        finally:
            await self._release()

    async def _pump(self, send: Send) -> None:
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
