"""Holding a stream back until there is enough of it to judge."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from router.config import Check
from router.errors import BackendError
from router.query import Delta
from router.telemetry import Telemetry

Deltas = AsyncGenerator[Delta, None]


class NotYetError(Exception):
    """The next piece did not come within the limit."""


class Holder:
    """`async with Holder(check) as holder`: owns what still waits for a piece when a hold is over."""

    def __init__(self, check: Check, telemetry: Telemetry) -> None:
        self._check = check
        self._seconds = telemetry.seconds("hold", "From a held stream's first piece to its verdict's begin")
        self._group = asyncio.TaskGroup()
        self._reading: set[asyncio.Task[Delta | Exception | None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._reading:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def hold(self, deltas: Deltas) -> "Held":
        """Wait for the first piece as long as it takes, then for more until the window is full, over, or the answer
        ends.

        Raises:
            BackendError: the stream failed, or ended before its first piece. It is closed.
        """
        held = Held(ReadAhead(deltas, self))
        try:
            await held.begin()
            begun = time.monotonic()
            end = begun + self._check.hold_ms / 1e3
            with suppress(NotYetError):
                while not held.complete and (held.finished or held.tokens < self._check.hold_tokens):
                    held.add(await held.ahead.next_within(end - time.monotonic()))
        except BaseException:
            await held.ahead.aclose()
            raise
        self._seconds.observe(time.monotonic() - begun)
        return held

    def read(self, deltas: Deltas) -> asyncio.Task[Delta | Exception | None]:
        """Wait for the next piece in a task."""
        task = self._group.create_task(_read(deltas))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return task


class ReadAhead:
    """A stream whose next piece can be waited for with a limit; what the limit cuts short is not lost.

    A generator cannot be left while it runs, so a task waits for the piece in the reader's place.
    """

    def __init__(self, deltas: Deltas, holder: Holder) -> None:
        self._deltas = deltas
        self._holder = holder
        self._reading: asyncio.Task[Delta | Exception | None] | None = None

    async def next_within(self, limit_s: float | None) -> Delta | None:
        """The next piece, None after the last.

        Raises:
            NotYetError: the next call gets it.
            BackendError: the stream failed.
        """
        reading = self._reading = self._reading or self._holder.read(self._deltas)
        done, _ = await asyncio.wait({reading}, timeout=limit_s)
        if not done:
            raise NotYetError
        self._reading = None
        outcome = reading.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if self._reading is None:
            return await anext(self._deltas)
        if (piece := await self.next_within(None)) is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Cancel the work at the stream's source."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            self._reading = None
        await self._deltas.aclose()


@dataclass(slots=True)
class Held:
    """The beginning of a stream; `finished` is the answer, `complete` the stream, whose last piece is the usage."""

    ahead: ReadAhead
    pieces: list[Delta] = field(default_factory=list)
    tokens: int = 0
    finished: bool = False
    complete: bool = False

    async def begin(self) -> None:
        """Wait for the first piece.

        Raises:
            BackendError: there is none.
        """
        self.add(await self.ahead.next_within(None))
        if not self.pieces:
            raise BackendError("The stream ended before its first piece.")

    def add(self, piece: Delta | None) -> None:
        """Take the next piece; None is the end."""
        if piece is None:
            self.complete = True
            return
        self.pieces.append(piece)
        self.tokens += count_tokens(piece)
        self.finished = self.finished or piece.finish is not None


def count_tokens(piece: Delta) -> int:
    """How many tokens a piece has; one without log-probabilities does not say, and counts as one."""
    return len(piece.logprobs) or int(bool(piece.text))


async def _read(deltas: Deltas) -> Delta | Exception | None:
    try:
        return await anext(deltas, None)
    except Exception as exc:  # noqa: BLE001 - handed over whole; the group must not end for it
        return exc
