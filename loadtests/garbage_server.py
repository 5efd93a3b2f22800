"""A server that answers every request with nonsense, some of which is proper RESP for another question."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

ANSWERS: Final = (
    b"HTTP/1.1 200 OK\r\n\r\n<html>hello</html>",
    b"+OK\r\n",
    b":42\r\n",
    b"$5\r\nhello\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:7\r\n",
    b"*-1\r\n",
    b"$-1\r\n",
    b"-LOADING not yet\r\n",
    b"$999999999\r\nshort\r\n",
    b"\x00\xff\xfe\r\n\r\n\r\n",
    b"%1\r\n+a\r\n+b\r\n",
)


@contextlib.asynccontextmanager
async def serving_garbage(port: int, *answers: bytes) -> AsyncIterator[None]:
    """On this port, each of the answers in turn, whatever was asked."""
    given = 0
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        writers.add(writer)
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                writer.write((answers or ANSWERS)[given % len(answers or ANSWERS)])
                given += 1
                await writer.drain()
        writer.close()
        writers.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in list(writers):  # who is connected is not to get more of it
            writer.close()
