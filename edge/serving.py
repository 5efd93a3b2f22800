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
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Final

import uvicorn
from litestar.types import ASGIApp

_BACKLOG: Final = 2048
_logger = logging.getLogger(__name__)
_TICK_S = 0.02
_CUT_S = 1.0
_YOUNG_OBJECTS: Final = 20_000


class CutError(Exception):
    """The server's drain limit passed before the work was done."""


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
