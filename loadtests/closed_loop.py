"""As many requests as a server takes, over connections that each send the next one when the last is answered.

It reads no more of an answer than its length, so that the server is what is measured: one core of it asks several times
faster than a Python server answers.
"""

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


@dataclass(slots=True)
class Load:
    """What came of it: seconds each answer took, and the load's own duration."""

    took_s: list[float] = field(default_factory=list)
    all_s: float = 0.0
    refused: int = 0

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.took_s) / self.all_s

    def took_ms(self, percentile: float) -> float:
        """A percentile of the answers' times."""
        return float(np.percentile(self.took_s, percentile)) * 1e3


class Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, load: Load, until: float) -> None:
        self._request = request
        self._load = load
        self._until = until
        self._received = b""
        self._sent = 0.0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again once the answer is whole."""
        self._received += data
        head = self._received.find(_END)
        if head < 0:
            return
        length = _LENGTH.search(self._received, 0, head + 2)
        if length is None or len(self._received) < head + len(_END) + int(length[1]):
            return
        now = time.perf_counter()
        self._load.took_s.append(now - self._sent)
        self._load.refused += not self._received.startswith(b"HTTP/1.1 200")
        self._received = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The load is over, or the server gave up."""
        if not self.closed.done():
            self.closed.set_result(exc)

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _END + body


def ask_in_a_loop(port: int, request: bytes, *, connections: int, for_s: float) -> Load:
    """Load a server on loopback for a while.

    Raises:
        OSError: nobody listens.
        RuntimeError: an answer was not 200.
    """
    load = Load()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        askers = []
        for _ in range(connections):
            _, asker = await loop.create_connection(lambda: Asker(request, load, begun + for_s), "127.0.0.1", port)
            askers.append(asker)
        async with asyncio.timeout(for_s + 30):
            await asyncio.gather(*(asker.closed for asker in askers))
        load.all_s = time.perf_counter() - begun

    uvloop.run(run())
    if load.refused:
        raise RuntimeError(f"{load.refused} of {len(load.took_s)} answers were not 200")
    return load
