"""Requests that are all different, and answers that are read and compared with what their question must get."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, cast

import msgspec
import uvloop

from loadtests.closed_loop import post
from loadtests.cores.upstream import tokens_of

URL: Final = "/v1/chat/completions"
_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Question:
    """A request as bytes, and the last token that its answer must have."""

    number: int
    request: bytes
    last: bytes


def questions(numbers: range, *, tokens: int, keys: list[str], stream_every: int = 0) -> Iterator[Question]:
    """One for each number; every `stream_every`th is a stream; keys in turn."""
    turn = cycle(keys)
    for number in numbers:
        text = f"No. {number}: what is {number % 97} plus {number % 89}, and why?"
        content: dict[str, object] = {"model": "auto", "temperature": 0, "max_tokens": 64}
        content["messages"] = [{"role": "user", "content": text}]
        if stream_every and number % stream_every == 0:
            content["stream"] = True
        request = post(URL, _encode(content), Authorization=f"Bearer {next(turn)}")
        yield Question(number, request, tokens_of(number, tokens)[-1].strip().encode())


@dataclass(slots=True)
class Outcome:
    """What came of the questions."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    """The beginnings of answers that are not what they must be."""
    took_s: float = 0.0
    broken: int = 0
    """Connections that the server closed."""


class Asker(asyncio.Protocol):
    """One connection: the next question once the last one is answered."""

    def __init__(self, source: Iterator[Question], outcome: Outcome) -> None:
        self._source = source
        self._outcome = outcome
        self._received = b""
        self._question: Question | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again once the answer is whole."""
        self._received += data
        head = self._received.find(_END)
        if head < 0 or self._question is None:
            return
        at = self._received.find(b"content-length: ", 0, head)
        if at >= 0:
            end = self._received.index(b"\r\n", at)
            whole = len(self._received) >= head + len(_END) + int(self._received[at + 16 : end])
        else:
            whole = self._received.endswith(_LAST_CHUNK)
        if whole:
            self._check(self._question)
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """By us when all is asked; else by a server that gave up."""
        self._outcome.broken += self._question is not None
        if not self.closed.done():
            self.closed.set_result(None)

    def _check(self, question: Question) -> None:
        self._outcome.answered += 1
        if not self._received.startswith(b"HTTP/1.1 200") or question.last not in self._received:
            self._outcome.wrong.append(self._received[:300].decode(errors="replace"))
        self._received = b""

    def _ask(self) -> None:
        self._question = next(self._source, None)
        if self._question is None:
            self._transport.close()
        else:
            self._transport.write(self._question.request)


def ask(port: int, source: Iterator[Question], *, connections: int, limit_s: float) -> Outcome:
    """Ask a server on loopback all of it.

    Raises:
        OSError: nobody listens.
        TimeoutError: it took longer than `limit_s`.
    """
    outcome = Outcome()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        make: Callable[[], Asker] = lambda: Asker(source, outcome)  # noqa: E731 - typed
        async with asyncio.timeout(limit_s):
            askers = [(await loop.create_connection(make, "127.0.0.1", port))[1] for _ in range(connections)]
            await asyncio.gather(*(asker.closed for asker in askers))
        outcome.took_s = time.perf_counter() - begun

    uvloop.run(run())
    return outcome


def complain(outcome: Outcome, expected: int) -> str | None:
    """What is wrong with an outcome, if anything is."""
    if outcome.wrong:
        return f"{len(outcome.wrong)} wrong answers, the first: {outcome.wrong[0]}"
    if outcome.broken or outcome.answered != expected:
        return f"{outcome.answered} of {expected} answered, {outcome.broken} connections broken"
    return None
