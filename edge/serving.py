"""
The HTTP shell that the edge and the router share: a server that drains, work that ends with its client, event streams.

A stop goes: SIGTERM → not ready, new work refused → running work may finish for `drain_s` → what still runs is cut
with an error its client can read → exit 0.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import uvicorn
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import ASGIApp, Receive, Send

T = TypeVar("T")
_logger = logging.getLogger(__name__)
_TICK_S = 0.02
_CUT_S = 1.0


class CutError(Exception):
    """The server's drain limit passed before the work was done."""


class HangUpError(Exception):
    """The client left before its answer was ready."""


class Drain:
    """One server's stop, as its handlers see it."""

    def __init__(self) -> None:
        self.begun = False
        self.expired = False
        self.crashed = False
        self._running: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def holding(self) -> Generator[None, None, None]:
        """The current task's work; cut by `expire()`.

        Raises:
            CutError: in place of the cancellation, when the drain limit passed.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("holding() belongs inside a task")
        self._running.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.expired:
                raise
            task.uncancel()
            raise CutError from None
        finally:
            self._running.discard(task)

    def busy(self) -> bool:
        """Whether some work still runs."""
        return bool(self._running)

    def expire(self) -> None:
        """Cut what still runs."""
        self.expired = True
        for task in self._running:
            task.cancel()


class DrainingServer(uvicorn.Server):
    """uvicorn, with a drain before its shutdown, and signals that end in exit status 0."""

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Unlike uvicorn's, the signal is not raised again at the end: a stop on request is a success."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Drain while still listening, so that a load balancer can see `not ready`."""
        self._drain.begun = True
        await self._wait_idle(self._drain_s)
        if self._drain.busy():
            _logger.warning("Cutting the work that still runs after %.1f s of draining.", self._drain_s)
            self._drain.expire()
            await self._wait_idle(_CUT_S)
        await super().shutdown(sockets)

    async def _wait_idle(self, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        # a second Ctrl-C sets force_exit, a plain attribute of uvicorn's: nothing to wait on but the clock
        while self._drain.busy() and time.monotonic() < end and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)


def serve(app: ASGIApp, drain: Drain, *, host: str, port: int, drain_s: float) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit status, 1 if it could not start or a job crashed."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = DrainingServer(config, drain, drain_s)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=config.backlog)
    except OSError as exc:
        _logger.error("Cannot listen on %s:%d (%s); stop its owner, or set listen.port.", host, port, exc.strerror)  # noqa: TRY400
        return 1
    with listener:
        server.run([listener])
    return 0 if server.started and not drain.crashed else 1


@contextlib.asynccontextmanager
async def running(drain: Drain, *jobs: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `jobs` beside the body; cancel them when it ends; stop the server, as a failure, if one crashes."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except* Exception:
        _logger.exception("A background job crashed; stopping.")
        drain.crashed = True
        signal.raise_signal(signal.SIGTERM)


async def until_hang_up(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled as soon as the client closes its connection.

    Raises:
        HangUpError: the client left.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_wait_hang_up(receive))
            try:
                return await work
            finally:
                watcher.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__


async def _wait_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise HangUpError


class EventStream(ASGIStreamingResponse):
    """Server-sent events. `release` runs once however the stream ends, also when it never began."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: dict[str, str],
        release: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(
            iterator=events,
            headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"},
            media_type="text/event-stream; charset=utf-8",
            status_code=200,
        )
        self._events = events
        self._release = release

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Pump the events until they or the client end."""
        try:
            async with contextlib.aclosing(self._events):
                with contextlib.suppress(HangUpError):
                    await until_hang_up(receive, self._stream(send))
        finally:
            await self._release()
