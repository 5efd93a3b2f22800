"""
Thousands of streams open at the same time, through one router on one core: each complete, its own, in bounded memory.

The upstream sends every stream a token every two seconds, so that all of them are open together; a client reads each
event as it comes. Memory is the router's resident set before the first stream, at its highest, and after the last; then
all is done once more, which must not need more.
"""

import asyncio
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, cast

import click
import msgspec
import uvloop

from edge import wire
from loadtests.bench import Row, report
from loadtests.closed_loop import post
from loadtests.cores.servers import Router, running_router, running_upstream
from loadtests.cores.traffic import URL
from loadtests.cores.upstream import Pace, tokens_of

MOST_KB: Final = 60.0
_MOST_AGAIN: Final = 1.1
_WARM: Final = 50
_SLACK_S: Final = 90.0
_OPENED_AT_ONCE: Final = 50
_DATA: Final = b"data: "
_DONE: Final = b"[DONE]"


@dataclass(slots=True)
class Streams:
    """What came of them. `open` are those that have begun and not ended."""

    exact: int = 0
    wrong: list[str] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    first_s: list[float] = field(default_factory=list)


class Reader(asyncio.Protocol):
    """Opens one stream and reads it to its end."""

    def __init__(self, number: int, tokens: int, request: bytes, streams: Streams) -> None:
        self._wanted = "".join(tokens_of(number, tokens))
        self._request = request
        self._streams = streams
        self._received = bytearray()
        self._begun = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._begun = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """An event, or some."""
        streams = self._streams
        if not self._received:
            streams.first_s.append(time.perf_counter() - self._begun)
            streams.open += 1
            streams.most_open = max(streams.most_open, streams.open)
        self._received += data
        if self._received.endswith(b"0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Compare what came with what had to."""
        streams = self._streams
        streams.open -= bool(self._received)
        if _read(bytes(self._received)) == self._wanted:
            streams.exact += 1
        else:
            streams.wrong.append(bytes(self._received[:300]).decode(errors="replace"))
        self.closed.set_result(None)


def _read(received: bytes) -> str | None:
    """The text of a whole stream."""
    if not received.startswith(b"HTTP/1.1 200") or _DATA + _DONE not in received:
        return None
    decoder = msgspec.json.Decoder(wire.ChatCompletionChunk)
    lines = (line.removeprefix(_DATA) for line in received.splitlines() if line.startswith(_DATA))
    choices = (choice for line in lines if line != _DONE for choice in decoder.decode(line).choices)
    return "".join(choice.delta.content or "" for choice in choices)


def open_streams(router: Router, numbers: range, tokens: int, limit_s: float) -> Streams:
    """All at once, and read to their ends.

    Raises:
        TimeoutError: they took longer than `limit_s`.
    """
    streams = Streams()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        readers = []
        async with asyncio.timeout(limit_s):
            for number in numbers:
                body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": f"No. {number}: go"}]}
                request = post(URL, msgspec.json.encode(body), Authorization=f"Bearer {router.keys[0]}")
                reader = Reader(number, tokens, request, streams)
                await loop.create_connection(partial(_take, reader), "127.0.0.1", router.port)
                readers.append(reader)
                if number % _OPENED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*(reader.closed for reader in readers))

    uvloop.run(run())
    return streams


def _take(reader: Reader) -> Reader:
    return reader


class Watch:
    """Looks at the router's memory ten times a second, in a thread."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.most_bytes = 0
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.most_bytes = max(self.most_bytes, self._router.resident_bytes())


@dataclass(frozen=True, slots=True)
class Wave:
    """Streams that were open together, and the router's memory before them, at most, and after them."""

    streams: Streams
    before: int
    most: int
    after: int

    def kb_each(self, count: int) -> float:
        """Of a thousand bytes."""
        return (self.most - self.before) / count / 1000


def measure(count: int, tokens: int, every_s: float, *, waves: int = 1, cores: set[int] | None = None) -> list[Wave]:
    """`count` streams at the same time, so often; and a few before, since what these need stays."""
    raise_file_limit(4 * count + 256)
    pace, limit_s = Pace(tokens, every_s=every_s), tokens * every_s + _SLACK_S
    with (
        tempfile.TemporaryDirectory() as name,
        running_upstream(Path(name), pace) as upstream,
        running_router(Path(name), upstream, cores) as router,
    ):
        open_streams(router, range(_WARM), tokens, limit_s)
        found = []
        for wave in range(waves):
            before, watch = router.resident_bytes(), Watch(router)
            first = _WARM + wave * count
            with watch.watching():
                streams = open_streams(router, range(first, first + count), tokens, limit_s)
            found.append(Wave(streams, before, watch.most_bytes, router.resident_bytes()))
        return found


def raise_file_limit(files: int) -> None:
    """For this process and those it starts.

    Raises:
        ClickException: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise click.ClickException(f"{files} open files are needed, and {hard} allowed; raise the limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))


def _rows(waves: Sequence[Wave], count: int) -> list[Row]:
    first, last = waves[0], waves[-1]
    exact, most_open = (min(getattr(wave.streams, name) for wave in waves) for name in ("exact", "most_open"))
    each, again = first.kb_each(count), last.most / first.most
    first_s = sorted(first.streams.first_s)
    memory = " / ".join(f"{size / 1e6:.0f} MB" for size in (first.before, first.most, first.after))
    for said in first.streams.wrong[:3]:
        click.echo(f"wrong: {said}", err=True)
    return [
        Row("streams complete and exact", f"{exact:,} of {count:,}", "all", exact == count),
        Row("open at the same time", f"{most_open:,}", "all", most_open == count),
        Row("memory of an open stream", f"{each:.1f} KB", f"<= {MOST_KB:.0f} KB", each <= MOST_KB),
        Row("resident before / at most / after", memory, "-", True),
        Row("at most, once more / the first time", f"{again:.3f}", f"<= {_MOST_AGAIN}", again <= _MOST_AGAIN),
        Row("to the first event, median / last", f"{first_s[len(first_s) // 2]:.2f} / {first_s[-1]:.2f} s", "-", True),
    ]


@click.command()
@click.option("--streams", default=2000, show_default=True, help="How many at the same time.")
@click.option("--tokens", default=30, show_default=True, help="Tokens of each.")
@click.option("--every-s", default=2.0, show_default=True, help="Seconds from one token to the next.")
def main(streams: int, tokens: int, every_s: float) -> None:
    """Open streams on one core."""
    core = min(os.sched_getaffinity(0))
    sys.exit(report("streams", _rows(measure(streams, tokens, every_s, waves=2, cores={core}), streams)))


if __name__ == "__main__":
    main()
