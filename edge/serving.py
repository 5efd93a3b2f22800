"""
The HTTP shell that the edge and the router share: a server that drains, work that ends with its client, event streams.

A stop goes: SIGTERM → not ready, but new work is done for `lead_s`, so that balancers can look away first → new work
refused → running work may finish for `drain_s` → what still runs is cut with an error its client can read → exit 0.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from functools import partial
from types import TracebackType, coroutine
from typing import Any, Final, TypeVar

import uvicorn
from litestar.types import ASGIApp, Receive, Scope, Send

T = TypeVar("T")
_BACKLOG: Final = 2048
_logger = logging.getLogger(__name__)
_TICK_S = 0.02
_CUT_S = 1.0
_YOUNG_OBJECTS: Final = 20_000
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class CutError(Exception):
    """The server's drain limit passed before the work was done."""


class HangUpError(Exception):
    """The client left before its answer was ready."""


class Drain:
    """One server's stop, as its handlers see it: `leaving` is no longer ready, `begun` also refuses new work."""

    def __init__(self) -> None:
        self.leaving = False
        self.begun = False
        self.expired = False
        self.crashed = False
        self._running: set[asyncio.Task[Any]] = set()

    def holding(self) -> "Held":
        """A context for the current task's work; cut by `expire()`.

        Raises:
            CutError: in place of the cancellation, when the drain limit passed.
        """
        return Held(self, self._running)

    def busy(self) -> bool:
        """Whether some work still runs."""
        return bool(self._running)

    def expire(self) -> None:
        """Cut what still runs."""
        self.expired = True
        for task in self._running:
            task.cancel()


class Held:
    """See `Drain.holding`; a class, since a generator costs a request several times as much."""

    __slots__ = ("_drain", "_running", "_task")

    def __init__(self, drain: Drain, running: set[asyncio.Task[Any]]) -> None:
        self._drain = drain
        self._running = running

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("holding() belongs inside a task")
        self._task = task
        self._running.add(task)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self._running.discard(self._task)
        if self._drain.expired and isinstance(exc, asyncio.CancelledError):
            self._task.uncancel()
            raise CutError from None


class DrainingServer(uvicorn.Server):
    """uvicorn, with a drain before its shutdown, and signals that end in exit status 0."""

    def __init__(self, config: uvicorn.Config, drain: Drain, *, lead_s: float, drain_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._lead_s = lead_s
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

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start, and from then on look for garbage among what requests leave behind only."""
        await super().startup(sockets)
        calm_collector()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Lead and drain while still listening, so that a load balancer can see `not ready`."""
        self._drain.leaving = True
        # who keeps connections must not send its next request over one that is about to close
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await self._wait(self._lead_s, lambda: False)
        self._drain.begun = True
        await self._wait_idle(self._drain_s)
        if self._drain.busy():
            _logger.warning("Cutting the work that still runs after %.1f s of draining.", self._drain_s)
            self._drain.expire()
            await self._wait_idle(_CUT_S)
        await super().shutdown(sockets)

    async def _wait_idle(self, limit_s: float) -> None:
        # the server's own tasks too: a stream that is about to begin is in nobody's hands for a moment
        await self._wait(limit_s, lambda: not self._drain.busy() and not self.server_state.tasks)

    async def _wait(self, limit_s: float, over: Callable[[], bool]) -> None:
        end = time.monotonic() + limit_s
        # a second Ctrl-C sets force_exit, a plain attribute of uvicorn's: nothing to wait on but the clock
        while not over() and time.monotonic() < end and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)


def serve(app: ASGIApp, drain: Drain, *, host: str, port: int, lead_s: float = 0.0, drain_s: float) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit status, 1 if it could not start or a job crashed.

    `lead_s` is how long new work is still done when `/health/ready` already says no, `drain_s` how long what runs then
    may take.
    """
    listener = listen(host, port)
    return 1 if listener is None else serve_from(listener, app, drain, lead_s=lead_s, drain_s=drain_s)


def listen(host: str, port: int) -> socket.socket | None:
    """A socket that listens; None, and a line in the log that says why, where that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        _logger.error("Cannot listen on %s:%d (%s); stop its owner, or set listen.port.", host, port, exc.strerror)  # noqa: TRY400
        return None


def serve_from(listener: socket.socket, app: ASGIApp, drain: Drain, *, lead_s: float = 0.0, drain_s: float) -> int:
    """As `serve`, from a socket that may be shared with other processes; it is closed at the end."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks for the client's address
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = DrainingServer(config, drain, lead_s=lead_s, drain_s=drain_s)
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


def calm_collector() -> None:
    """Set Python's cyclic garbage collector up for a server that has started.

    What is there now (modules, configuration, routes) stays until the end: frozen, it is not visited again and again.
    A request frees nearly all of its objects by itself, so a look at the young ones can wait until there are many.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


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
