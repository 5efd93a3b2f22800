"""The thread that talks to `chat`'s clients: it sends what was generated and notices who has left."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self

from numpy.typing import NDArray

from cloud.chat_reply import Reply
from cloud.wire import ChatOutput, FinishReason
from edge.engine.errors import EngineError, ExpiredError
from edge.engine.generation import Delta, Event, Failure, Finish, Generation

_logger = logging.getLogger(__name__)
_POLL_S: Final = 0.02
"""How often those are asked whether they have left to whom nothing is being sent."""


class LeftError(EngineError):
    """The client cancelled the request."""


class Sender(Protocol):
    """The client's end of one request."""

    def send(self, tensors: dict[ChatOutput, NDArray[Any]], *, final: bool) -> None: ...

    def fail(self, error: EngineError) -> None:
        """Send the error as the last response."""
        ...

    def cancelled(self) -> bool: ...


@dataclass(eq=False, slots=True)
class Exchange:
    """One request, from its arrival to its last response. Only the responder's thread changes it."""

    sender: Sender
    reply: Reply
    stream: bool
    deadline: float | None
    """On `time.monotonic()`'s clock."""
    generations: Sequence[Generation] = field(default=())
    closed: bool = False

    def take(self, index: int, event: Event) -> None:
        """Take what happened to choice `index`, and pass on what the client may have of it."""
        if self.closed:
            return
        match event:
            case Delta():
                self.reply.add(index, event.text, event.tokens, self._count(index))
            case Finish():
                self.reply.finish(index, FinishReason(event.reason.value), event.completion_tokens)
            case Failure():
                self.fail(event.error)
                return
        self.closed = self.reply.complete
        if self.stream or self.closed:
            self.sender.send(self.reply.take(), final=self.closed)
        self.check()

    def check(self) -> None:
        """End the work of a client that has left or may wait no longer."""
        if self.closed:
            return
        if self.sender.cancelled():
            self.fail(LeftError("the request was cancelled"))
        elif self.deadline is not None and time.monotonic() > self.deadline:
            self.fail(ExpiredError("its answer is not complete"))

    def fail(self, error: EngineError) -> None:
        self.closed = True
        self.cancel()
        self.sender.fail(error)

    def cancel(self) -> None:
        for generation in self.generations:
            generation.cancel()

    def _count(self, index: int) -> int:
        # An event may be quicker than `submit` is to return; its tokens then count with the next one.
        return self.generations[index].answer.tokens if self.generations else 0


class Responder:
    """Owns the thread: `with Responder(...) as responder`. The other methods may be called from any thread."""

    def __init__(self, on_poll: Callable[[], bool]) -> None:
        """`on_poll` runs on the thread about every 20 ms, until it says False and no request is open."""
        self._on_poll = on_poll
        self._posted: queue.SimpleQueue[tuple[Exchange, Callable[[], None]] | None] = queue.SimpleQueue()
        self._open: set[Exchange] = set()
        self._thread = threading.Thread(target=self._work, name="responder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do what was posted so far, then end."""
        self._posted.put(None)
        self._thread.join()

    def post(self, exchange: Exchange, index: int, event: Event) -> None:
        """Pass on what happened to a request's choice `index`."""
        self._posted.put((exchange, partial(exchange.take, index, event)))

    def watch(self, exchange: Exchange, generations: Sequence[Generation]) -> None:
        """From now on, `generations` end when the client leaves. Events may have been posted before."""
        self._posted.put((exchange, partial(self._watch, exchange, generations)))

    def fail(self, exchange: Exchange, error: EngineError) -> None:
        """End a request."""
        self._posted.put((exchange, partial(exchange.fail, error)))

    def _watch(self, exchange: Exchange, generations: Sequence[Generation]) -> None:
        exchange.generations = generations
        if exchange.closed:
            exchange.cancel()
        else:
            self._open.add(exchange)

    def _work(self) -> None:
        busy, due = True, time.monotonic()
        while True:
            try:
                posted = self._posted.get(timeout=max(0.0, due - time.monotonic()) if busy else None)
                if posted is None:
                    return
                self._act(*posted)
                busy = True
            except queue.Empty:
                pass
            if time.monotonic() >= due:
                busy = self._poll()
                due = time.monotonic() + _POLL_S

    def _poll(self) -> bool:
        for exchange in list(self._open):
            self._act(exchange, exchange.check)
        return self._on_poll() or bool(self._open)

    def _act(self, exchange: Exchange, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            # One client's failure is not the others'.
            _logger.exception("A response could not be sent; its request ends.")
            exchange.closed = True
            exchange.cancel()
        if exchange.closed:
            self._open.discard(exchange)
