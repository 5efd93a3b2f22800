"""
How the processes of one router ask each other: a Unix socket each, in a folder of their parent's that only
their user may enter.

One question a connection, a JSON line; the answer is all that comes until its end.
"""

import asyncio
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from router.cache import Selector
from router.errors import UnavailableError

Reply = TypeVar("Reply")
_PATIENCE_S: Final = 2.0
_FLUSH_S: Final = 30.0
_QUESTION_BYTES: Final = 65_536
_MOST_BYTES: Final = 67_108_864


class Question(Struct, frozen=True, tag_field="ask"):
    """What one process wants to know of another."""


class AskMetrics(Question, frozen=True, tag="metrics"):
    """Its metrics, as Prometheus's text."""


class AskLanes(Question, frozen=True, tag="lanes"):
    """What `GET /v1/lanes` would say of it alone."""


class AskCaches(Question, frozen=True, tag="caches"):
    """What `GET /v1/cache` would say of it alone."""


class AskCanaries(Question, frozen=True, tag="canaries"):
    """What `GET /v1/canaries` would say of it alone."""


class AskFlush(Question, frozen=True, tag="flush"):
    """Flush its caches."""

    selector: Selector
    dry_run: bool


AnyQuestion = AskMetrics | AskLanes | AskCaches | AskCanaries | AskFlush
Answer = Callable[[AnyQuestion], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes one is.

    `folder` has the sockets; `lifeline` is the reading end of a pipe that closes when their parent is gone.
    """

    index: int
    count: int
    folder: Path
    lifeline: int

    def socket(self, index: int) -> str:
        """A process's."""
        return str(self.folder / f"{index}.sock")


class SiblingError(UnavailableError):
    """Another process did not answer."""


class Siblings:
    """A router's other processes; none where it is one process."""

    def __init__(self, place: Place | None = None) -> None:
        self._place = place

    @property
    def index(self) -> int:
        """Which process this is."""
        return self._place.index if self._place else 0

    @property
    def others(self) -> Sequence[int]:
        """Which there are besides."""
        return [i for i in range(self._place.count) if i != self._place.index] if self._place else []

    async def ask(self, question: AnyQuestion, kind: type[Reply]) -> list[Reply]:
        """What all others say.

        Raises:
            SiblingError: one does not answer.
        """
        replies = await self.ask_each(question)
        silent = next((index for index, reply in replies.items() if reply is None), None)
        if silent is not None:
            raise SiblingError(f"Process {silent} of this router did not answer, and may be starting; ask again.")
        return [msgspec.json.decode(reply, type=kind) for reply in replies.values() if reply is not None]

    async def ask_each(self, question: AnyQuestion) -> dict[int, bytes | None]:
        """What each other one says; None: nothing."""
        others = self.others
        replies = await asyncio.gather(*(self._ask(index, question) for index in others))
        return dict(zip(others, replies, strict=True))

    @asynccontextmanager
    async def answering(self, answer: Answer) -> AsyncIterator[None]:
        """Answer the others while the context is open."""
        if self._place is None:
            yield
            return
        path = self._place.socket(self._place.index)
        server = await asyncio.start_unix_server(partial(_serve, answer), path, limit=_QUESTION_BYTES)
        async with server:
            yield

    async def watch_parent(self) -> None:
        """Stop this process when the parent that restarts it is gone; a job, where there are several."""
        if self._place is None:
            return
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._place.lifeline, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self._place.lifeline)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()  # a job that ends would be taken for one that is done

    async def _ask(self, index: int, question: AnyQuestion) -> bytes | None:
        if self._place is None:
            return None
        try:
            async with asyncio.timeout(_FLUSH_S if isinstance(question, AskFlush) else _PATIENCE_S):
                reader, writer = await asyncio.open_unix_connection(self._place.socket(index), limit=_MOST_BYTES)
                with closing(writer):
                    writer.write(msgspec.json.encode(question) + b"\n")
                    return await reader.read(-1) or None
        except (OSError, TimeoutError):
            return None


async def _serve(answer: Answer, reader: StreamReader, writer: StreamWriter) -> None:
    """One question; who asks wrongly, or leaves, gets nothing."""
    with closing(writer):
        try:
            question = msgspec.json.decode(await reader.readuntil(b"\n"), type=AnyQuestion)
            writer.write(await answer(question))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.MsgspecError):
            return
