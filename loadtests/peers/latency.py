"""
Open load: requests sent when a schedule drawn beforehand says so, however long the answers take. Times count from
the scheduled moment, so what the load itself is late is in them, and is told besides.

The same schedule goes straight to the upstream and through a contestant, in turns: the difference is what that adds.
"""

import asyncio
import gc
import random
import selectors
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np

from loadtests.peers.bodies import Body, request_head
from loadtests.peers.upstream import WORD

_OPEN_AT_ONCE: Final = 16
_LEAD_S: Final = 0.05
_PATIENCE_S: Final = 30.0
_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_FIRST: Final = WORD.encode()


@dataclass(slots=True)
class Timings:
    """Milliseconds of every request, from when it was due: to its first token, to its end, and to when it was sent."""

    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    failed: int = 0


def draw_arrivals(rate: float, for_s: float, seed: int) -> list[float]:
    """Seconds from the start, a Poisson process."""
    rng = random.Random(seed)
    arrivals, at_s = [], rng.expovariate(rate)
    while at_s < for_s:
        arrivals.append(at_s)
        at_s += rng.expovariate(rate)
    return arrivals


def percentile_ms(values: Sequence[float], percentile: float) -> float:
    """Of milliseconds."""
    return float(np.percentile(values, percentile))


def ask_on_schedule(
    port: int,
    *,
    bodies: Sequence[Body],
    arrivals: Sequence[float],
    first: int,
    headers: Mapping[str, str],
    warm_up_s: float = 0.0,
) -> Timings:
    """Ask a server on loopback; the bodies are those from number `first` on. What is due earlier than `warm_up_s` does
    not count: a server that nothing was asked of for minutes needs some requests to be itself again.

    Raises:
        OSError: nobody listens.
        TimeoutError: an answer took over half a minute.
    """
    requests = []
    for number in range(len(arrivals)):
        body = bodies[number % len(bodies)]
        requests.append(request_head(body.length, headers) + body.fill(first + number))
    # epoll and uvloop round waits up to milliseconds, select() to microseconds
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=_precise_loop) as runner:
            return runner.run(_ask(port, requests, arrivals, warm_up_s))
    finally:
        gc.enable()


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _ask(port: int, requests: Sequence[bytes], arrivals: Sequence[float], warm_up_s: float) -> Timings:
    loop = asyncio.get_running_loop()
    timings, pool = Timings(), _Pool(port)
    await pool.open(_OPEN_AT_ONCE)
    begun = loop.time() + _LEAD_S

    async def ask(request: bytes, due: float) -> None:
        connection = await pool.take()
        sent = loop.time()
        status = await connection.ask(request)
        timings.failed += status != b"200"
        pool.give(connection)
        if due < begun + warm_up_s:
            return
        timings.late_ms.append((sent - due) * 1e3)
        timings.first_ms.append((connection.first - due) * 1e3)
        timings.whole_ms.append((connection.ended - due) * 1e3)

    async with asyncio.timeout(arrivals[-1] + _PATIENCE_S), asyncio.TaskGroup() as group:
        for request, arrival in zip(requests, arrivals, strict=True):
            await asyncio.sleep(begun + arrival - loop.time())
            group.create_task(ask(request, begun + arrival))
    pool.close()
    return timings


class _Pool:
    """Open connections; another is opened when all are in use."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[_Connection] = []

    async def open(self, count: int) -> None:
        for _ in range(count):
            self._free.append(await self._connect())

    async def take(self) -> "_Connection":
        return self._free.pop() if self._free else await self._connect()

    def give(self, connection: "_Connection") -> None:
        self._free.append(connection)

    def close(self) -> None:
        for connection in self._free:
            connection.close()

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Connection, "127.0.0.1", self._port))[1]


class _Connection(asyncio.Protocol):
    """One request after the other; `first` and `ended` are the loop's times of the last one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._answered: asyncio.Future[bytes] | None = None
        self.first = self.ended = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> "asyncio.Future[bytes]":
        """Its status, once the answer is over."""
        self._received.clear()
        self.first = self.ended = 0.0
        self._answered = self._loop.create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.first and _FIRST in self._received:
            self.first = self._loop.time()
        if self._answered is not None and not self._answered.done() and is_whole(self._received):
            self.ended = self._loop.time()
            self.first = self.first or self.ended
            self._answered.set_result(bytes(self._received[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()


def is_whole(answer: bytes | bytearray) -> bool:
    """Whether an answer has come to its end, by its length or its last chunk."""
    head = answer.find(_END)
    if head < 0:
        return False
    fields = bytes(answer[:head]).lower()
    if b"\r\ntransfer-encoding: chunked" in fields:
        return answer.endswith(_LAST_CHUNK)
    length = fields.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return len(answer) >= head + len(_END) + int(length)
