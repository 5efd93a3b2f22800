"""The thread that talks to `chat`'s clients: it sends what was generated and notices who has left."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self

from numpy.typing import NDArray

from cloud.chat_reply import Reply
from cloud.wire import ChatOutput, FinishReason
from edge.engine.errors import EngineError
from edge.engine.events import Delta, Event, Failure, Finish
from edge.engine.generation import Generation

_logger = logging.getLogger(__name__)
_MOST_AT_ONCE: Final = 256
_POLL_S: Final = 0.02
_ASKING_S: Final = 0.005
"""Part of `_POLL_S` that may go into asking clients whether they have left: a round trip to tritonserver each."""
_FAREWELLS_AT_ONCE: Final = 16
_MOST_UNWANTED: Final = 4096
"""Ids to remember of requests that were cancelled before they came, ..."""
_UNWANTED_S: Final = 10.0
"""... for how long, ..."""
_LONGEST_UNWANTED: Final = 64
"""... and how many characters of one."""


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

    request_id: str
    sender: Sender
    reply: Reply
    generations: Sequence[Generation]
    """One for each choice."""
    stream: bool
    asked_as: str
    arrived: float
    """On `time.monotonic()`'s clock."""
    error: EngineError | None = None
    closed: bool = False
    over: bool = False

    def take(self, index: int, event: Event) -> None:
        """Collect what happened to choice `index`."""
        match event:
            case Delta():
                self.reply.add(index, event.text, event.tokens, self.generations[index].answer.tokens)
            case Finish():
                self.reply.finish(index, FinishReason(event.reason.value), event.completion_tokens)
            case Failure():
                self.error = event.error

    def respond(self) -> None:
        """Send what was collected, as far as the client may have it."""
        if self.closed:
            return
        if self.error is not None:
            self._fail(self.error)
            return
        self.closed = self.reply.complete
        if self.closed or (self.stream and self.reply.fresh):
            self.sender.send(self.reply.take(), final=self.closed)

    def check(self) -> None:
        """End the work of a client that has left."""
        if not self.closed and self.sender.cancelled():
            self.leave()

    def leave(self) -> None:
        self._fail(LeftError("the request was cancelled"))

    def cancel(self) -> None:
        self.closed = True
        for generation in self.generations:
            generation.cancel()

    def _fail(self, error: EngineError) -> None:
        self.error = error
        self.cancel()
        self.sender.fail(error)


class Responder:
    """Owns the thread: `with Responder(...) as responder`. The other methods may be called from any thread."""

    def __init__(self, on_poll: Callable[[], bool], on_end: Callable[[Exchange], None]) -> None:
        """Both run on the thread: `on_poll` every 20 ms or so, until it says False and no request is open; `on_end` as
        each one ends.
        """
        self._on_poll = on_poll
        self._on_end = on_end
        self._posted: queue.SimpleQueue[tuple[Exchange | None, Callable[[], None]] | None] = queue.SimpleQueue()
        self._open: dict[Exchange, None] = {}  # in the order in which they are asked whether they have left
        self._left: deque[Exchange] = deque()  # who have not been told so yet
        self._unwanted: dict[str, float] = {}  # since when, the oldest first
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="responder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answer what was posted so far, then end."""
        self._posted.put(None)
        self._thread.join()

    def post(self, exchange: Exchange, index: int, event: Event) -> None:
        """Pass on what happened to a request's choice `index`."""
        self._posted.put((exchange, partial(exchange.take, index, event)))

    def watch(self, exchange: Exchange) -> None:
        """From now on, the request's work ends when its client leaves."""
        self._posted.put((exchange, partial(self._watch, exchange)))

    def cancel(self, request_ids: frozenset[str]) -> None:
        """End every request of these ids, also those that have not come yet."""
        self._posted.put((None, partial(self._cancel, request_ids)))

    def _watch(self, exchange: Exchange) -> None:
        self._open[exchange] = None
        since = self._unwanted.pop(exchange.request_id, None)
        if since is not None and time.monotonic() - since < _UNWANTED_S:
            exchange.leave()

    def _cancel(self, request_ids: frozenset[str]) -> None:
        leaving = [each for each in self._open if each.request_id in request_ids]
        for exchange in leaving:
            exchange.cancel()
            del self._open[exchange]
        self._left += leaving  # telling them takes longer than ending their work, and nobody waits for it
        unknown = request_ids.difference(each.request_id for each in leaving)
        self._unwanted |= dict.fromkeys((each for each in unknown if len(each) <= _LONGEST_UNWANTED), time.monotonic())
        while len(self._unwanted) > _MOST_UNWANTED:
            del self._unwanted[next(iter(self._unwanted))]

    def _work(self) -> None:
        busy, due = True, time.monotonic()
        while not self._stopping:
            limit_s = 0.0 if self._left else max(0.0, due - time.monotonic()) if busy else None
            changed = self._collect(limit_s)
            for exchange in changed:
                self._act(exchange, exchange.respond)
            self._say_farewell(_FAREWELLS_AT_ONCE)
            busy = busy or bool(changed)
            if time.monotonic() >= due:
                self._ask_open()
                busy = self._on_poll() or bool(self._open)
                due = time.monotonic() + _POLL_S
        self._say_farewell(len(self._left))

    def _say_farewell(self, most: int) -> None:
        for _ in range(min(most, len(self._left))):
            exchange = self._left.popleft()
            self._act(exchange, exchange.leave)

    def _ask_open(self) -> None:
        """Ask clients whether they have left; who is not asked now is asked first next time."""
        end = time.monotonic() + _ASKING_S
        for exchange in list(self._open):
            self._open[exchange] = self._open.pop(exchange)
            self._act(exchange, exchange.check)
            if time.monotonic() >= end:
                break

    def _collect(self, timeout_s: float | None) -> Collection[Exchange]:
        """
        Wait for something posted, and take all that is there.

        So a stream whose sending is slower than its tokens gets several tokens in one response, not a growing queue.
        """
        try:
            posted = [self._posted.get(timeout=timeout_s)]
        except queue.Empty:
            return ()
        while len(posted) < _MOST_AT_ONCE and not self._posted.empty():
            posted.append(self._posted.get_nowait())
        changed: dict[Exchange, None] = {}
        for each in posted:
            match each:
                case None:
                    self._stopping = True
                case None, action:
                    action()
                case exchange, action:
                    self._act(exchange, action)
                    changed[exchange] = None
        return changed

    def _act(self, exchange: Exchange, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            # One client's failure is not the others'.
            _logger.exception("A response could not be sent; its request ends.")
            exchange.cancel()
        if exchange.closed:
            self._open.pop(exchange, None)
            if not exchange.over:
                exchange.over = True
                self._on_end(exchange)
