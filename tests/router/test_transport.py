"""The transport to a target, over real connections to servers that answer byte for byte as they are told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import cast

import httpx
import pytest

from router.backends.transport import PooledTransport

pytestmark = pytest.mark.anyio
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


class Server:
    """Answers each request on a connection with the next of `answers`, the last again and again."""

    def __init__(self, *answers: bytes, ends: bool = False) -> None:
        self._answers = answers
        self._ends = ends
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await self.go_on.wait()
                writer.write(self._answers[min(len(self.requests), len(self._answers)) - 1])
                await writer.drain()
                if self._ends:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def calling(server: Server, connections: int = 4) -> AsyncIterator[PooledTransport]:
    """A transport to it."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    transport = PooledTransport(httpx.URL(f"http://127.0.0.1:{port}"), connections)
    try:
        yield transport
    finally:
        await transport.aclose()
        listening.close()


def get(
    limit_s: float | None = 5.0, pool_s: float | None = 5.0, headers: dict[str, str] | None = None
) -> httpx.Request:
    """A request."""
    limits = {"connect": 1.0, "read": limit_s, "pool": pool_s}
    return httpx.Request("GET", "http://it/x", headers=headers, extensions={"timeout": limits})


async def read(response: httpx.Response) -> bytes:
    """The body, as the backend reads it."""
    async with aclosing(cast("httpx.AsyncByteStream", response.stream)) as stream:
        return b"".join([piece async for piece in stream])


async def call(transport: PooledTransport) -> bytes:
    """A call's body."""
    return await read(await transport.handle_async_request(get()))


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (WHOLE, False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello", True),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE, False),
    ],
)
async def test_every_way_to_say_where_a_body_ends(answer: bytes, ends: bool) -> None:
    async with calling(Server(answer, ends=ends)) as transport:
        response = await transport.handle_async_request(get())

        assert response.status_code == 200
        assert "link" not in response.headers
        assert await read(response) == b"hello"


async def test_a_connection_is_kept_unless_the_server_says_that_it_closes_it() -> None:
    server = Server(WHOLE, WHOLE, WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), WHOLE)
    async with calling(server) as transport:
        assert [await call(transport) for _ in range(4)] == [b"hello"] * 4

    assert server.connections == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    server = Server(WHOLE, ends=True)
    async with calling(server) as transport:
        for _ in range(3):
            assert await call(transport) == b"hello"
            await asyncio.sleep(0.02)

    assert server.connections == 3


async def test_what_follows_an_answer_unasked_spoils_the_connection_only() -> None:
    server = Server(WHOLE + WHOLE, WHOLE)
    async with calling(server) as transport:
        assert [await call(transport) for _ in range(2)] == [b"hello"] * 2

    assert server.connections == 2


async def test_no_more_connections_than_allowed_and_who_waits_gets_one() -> None:
    server = Server(WHOLE)
    server.go_on.clear()
    async with calling(server, connections=2) as transport, asyncio.TaskGroup() as group:
        calls = [group.create_task(call(transport)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(httpx.PoolTimeout):
            await transport.handle_async_request(get(pool_s=0.02))
        server.go_on.set()

    assert [one.result() for one in calls] == [b"hello"] * 5
    assert server.connections == 2


async def test_who_gives_up_waiting_takes_no_connection_along() -> None:
    server = Server(WHOLE)
    server.go_on.clear()
    async with calling(server, connections=1) as transport, asyncio.TaskGroup() as group:
        first, second, third = (group.create_task(call(transport)) for _ in range(3))
        await asyncio.sleep(0.02)
        second.cancel()
        server.go_on.set()
        assert await first == await third == b"hello"


async def test_whoever_leaves_closes_the_connection_and_frees_its_place() -> None:
    server = Server(WHOLE)
    server.go_on.clear()
    async with calling(server, connections=1) as transport, asyncio.TaskGroup() as group:
        leaving = group.create_task(call(transport))
        await asyncio.sleep(0.02)
        leaving.cancel()
        await asyncio.wait({leaving})
        server.go_on.set()
        assert await call(transport) == b"hello"

    assert server.connections == 2


@pytest.mark.parametrize("answer", [b"", WHOLE[:-2]])
async def test_an_answer_that_is_late_or_comes_to_no_end_in_time(answer: bytes) -> None:
    async with calling(Server(answer)) as transport:
        with pytest.raises(httpx.ReadTimeout):
            await read(await transport.handle_async_request(get(limit_s=0.05)))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (WHOLE[:-2], httpx.ReadError),
        (b"", httpx.ReadError),
        (b"SSH-2.0-OpenSSH\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"x-long: " + b"y" * 70_000 + b"\r\n\r\n", httpx.RemoteProtocolError),
    ],
)
async def test_what_is_no_answer(answer: bytes, error: type[Exception]) -> None:
    async with calling(Server(answer, ends=True)) as transport:
        with pytest.raises(error):
            await read(await transport.handle_async_request(get()))


async def test_a_header_cannot_smuggle_another_in() -> None:
    server = Server(WHOLE)
    async with calling(server) as transport:
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(get(headers={"x-a": "b\r\nx-c: d"}))

    assert server.requests == []


async def test_a_body_that_nobody_reads_does_not_fill_the_memory() -> None:
    body = b"x" * 50_000_000
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    async with calling(server) as transport:
        response = await transport.handle_async_request(get())
        await asyncio.sleep(0.2)
        pieces = [len(piece) async for piece in cast("httpx.AsyncByteStream", response.stream)]

    assert sum(pieces) == len(body)
    assert max(pieces) < 2_000_000
