"""Single-flight: equal requests that are here together share one generation, whole or streamed.

A generation runs in a task of its own, so it belongs to nobody: whoever asked first may leave like anyone else, and
only when nobody waits for it any more is it cancelled.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from copy import copy
from typing import Final, Self

from router.cache.entry import Entry, Stamp, assemble, make_entry, replay
from router.decision import Decision
from router.errors import BackendError, DeadlineError
from router.query import Completion, Delta

_MOST_REFRESHING: Final = 8


class Flight:
    """One generation under way: its pieces so far, and its end. Its task writes, its passengers read."""

    def __init__(self) -> None:
        self.stamp = Stamp()
        self.decision: Decision | None = None
        self.deltas: list[Delta] = []
        self.entry: Entry | None = None
        self.ended = False
        self.error: Exception | None = None
        self.passengers = 0
        self.task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def begin(self, decision: Decision) -> None:
        """It is settled who answers, and the first pieces are about to come."""
        self.decision = decision
        self._tell()

    def add(self, delta: Delta) -> None:
        """Another piece."""
        self.deltas.append(delta)
        self._tell()

    def land(self, completion: Completion | None = None) -> None:
        """The answer is here, as a whole or with its last piece."""
        completion = completion or assemble(self.deltas)
        if completion is None or self.decision is None:
            self.fail(BackendError("The stream ended before the answer did."))
            return
        self.entry = make_entry(completion, self.decision, self.stamp)
        self._end()

    def fail(self, error: Exception) -> None:
        """There is no answer, or no more of it."""
        self.error = error
        self._end()

    def expect_news(self) -> asyncio.Future[None]:
        """Done when whatever comes next is here."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(news)
        return news

    def _end(self) -> None:
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(None)


class Seat:
    """One request's place in a flight; to be left, once, however the request ends."""

    def __init__(self, flight: Flight, deadline: float | None, *, leads: bool) -> None:
        self.flight = flight
        self.leads = leads
        self._deadline = deadline
        self._taken = True
        self._late = False
        self._told = 0
        self._news: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        flight.passengers += 1

    @property
    def delayed(self) -> bool:
        """Whether another's deadline ended the flight while this request still has time."""
        failed = isinstance(self.flight.error, DeadlineError) and not self.leads
        return failed and (self._deadline is None or time.monotonic() < self._deadline)

    async def wait_begin(self) -> Decision:
        """Who answers.

        Raises:
            RouterError: the flight failed, or this request's deadline passed.
        """
        while self.flight.decision is None:
            await self._wait()
        return self.flight.decision

    async def wait_entry(self) -> Entry:
        """The whole answer.

        Raises:
            RouterError: as `wait_begin`.
        """
        while self.flight.entry is None:
            await self._wait()
        return self.flight.entry

    async def for_client(self) -> AsyncGenerator[Delta, None]:
        """All pieces from the first on, each as soon as it is there."""
        flight = self.flight
        while True:
            while self._told < len(flight.deltas):
                self._told += 1
                yield flight.deltas[self._told - 1]
            if flight.entry is not None:
                break
            await self._wait()
        if not flight.deltas:  # it was asked for as a whole
            for delta in replay(flight.entry.completion):
                yield delta

    def has_more(self) -> bool:
        """Whether the next piece is here already."""
        return self._told < len(self.flight.deltas)

    async def aclose(self) -> None:
        """Leave; when the last one has left, the work has ended."""
        if not self._taken:
            return
        self._taken = False
        if self._timer is not None:
            self._timer.cancel()
        flight = self.flight
        flight.passengers -= 1
        if not flight.passengers and not flight.ended and flight.task is not None:
            flight.task.cancel()
            await asyncio.wait({flight.task})

    async def _wait(self) -> None:
        if self.flight.error is not None:
            # each passenger gets its own, for its own traceback
            raise copy(self.flight.error) from self.flight.error
        if self._timer is None and self._deadline is not None:  # one for all waits: a timeout for each costs more
            after_s = self._deadline - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(after_s, self._expire)
        if not self._late:
            self._news = self.flight.expect_news()
            await self._news
        if self._late:
            raise DeadlineError("The answer was not there within the request's deadline.")

    def _expire(self) -> None:
        self._late = True
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


Fly = Callable[[Flight], Awaitable[None]]


class Flights:
    """`async with Flights() as flights`: owns the generations that run."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._known: dict[Hashable, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshing = 0

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def has(self, key: Hashable) -> bool:
        """Whether a generation under this key is under way."""
        known = self._known.get(key)
        return known is not None and known.passengers > 0

    def board(self, key: Hashable, fly: Fly, deadline: float | None) -> Seat:
        """A seat in the flight under this key; in a new one, if there is none or `key` is None."""
        if key is not None and (known := self._known.get(key)) is not None and known.passengers:
            return Seat(known, deadline, leads=False)  # one that its last passenger left is about to end
        flight = Flight()
        seat = Seat(flight, deadline, leads=True)
        if key is not None:
            self._known[key] = flight
        flight.task = task = self._group.create_task(self._fly(key, flight, fly))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return seat

    def refresh(self, key: Hashable, fly: Fly) -> None:
        """Fly for nobody in particular, unless that is under way already or too much of it is."""
        if self.has(key) or self._refreshing >= _MOST_REFRESHING:
            return
        task = self.board(key, fly, None).flight.task
        if task is not None:
            self._refreshing += 1
            task.add_done_callback(self._count_refreshed)

    def _count_refreshed(self, _: asyncio.Task[None]) -> None:
        self._refreshing -= 1

    async def _fly(self, key: Hashable, flight: Flight, fly: Fly) -> None:
        try:
            await fly(flight)
        except asyncio.CancelledError:
            flight.fail(BackendError("The generation was stopped."))
            raise
        except Exception as exc:  # noqa: BLE001 - handed to the passengers; the group must not end for it
            flight.fail(exc)
        finally:
            if key is not None and self._known.get(key) is flight:
                del self._known[key]
