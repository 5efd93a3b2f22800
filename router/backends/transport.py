"""
HTTP/1.1 to one server over kept connections, with httpx's types.

Measured beside httpx-aiohttp's transport a call takes a sixth of the processor time (router/README.md, "Speed"): no
client session, cookies, redirects, decompression or tracing, and one timer a call instead of one a wait.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Final, cast

import httpx

from router.backends.addresses import Addresses
from router.backends.connection import Connection

_IDLE_S: Final = 4.0
"""uvicorn, and with it vLLM and our edge, closes a connection after 5 s: a call must not go where none is read."""
Limits = dict[str, float | None]
"""httpx's `timeout` extension."""


class PooledTransport(httpx.AsyncBaseTransport):
    """Calls one server, over at most `connections` at a time; who comes later waits in turn.

    Of a request's `timeout` extension `read` bounds the whole call from when it is sent, answer included.
    """

    def __init__(self, url: httpx.URL, connections: int) -> None:
        self._host = url.host
        self._addresses = Addresses(url.host, url.port or (443 if url.scheme == "https" else 80))
        self._tls = httpx.create_ssl_context() if url.scheme == "https" else None
        self._most = connections
        self._open: set[Connection] = set()
        self._opening = 0
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx. `request.stream` is bytes that are there; its headers have to be complete."""
        limits: Limits = request.extensions["timeout"]
        call = _say(request)
        connection = self._find_idle() or await self._wait_or_open(limits)
        answer = connection.send(call, limits["read"])
        try:
            await answer.wait_head()
        except BaseException:
            await answer.aclose()
            raise
        return httpx.Response(answer.status, headers=answer.headers, stream=answer, request=request)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._addresses.aclose()
        for connection in list(self._open):
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """Its call is over, and it can serve another."""
        if self._hand_on(connection):
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """It is closed: another may be opened."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._hand_on(None)

    def _hand_on(self, connection: Connection | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    def _find_idle(self) -> Connection | None:
        """The one that was used last, so that what is too much grows old."""
        if not self._idle:
            return None
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        if self._idle[-1].idle_since > oldest:
            return self._idle.pop()
        stale, self._idle = self._idle, []
        for connection in stale:
            connection.close()
        return None

    async def _wait_or_open(self, limits: Limits) -> Connection:
        while len(self._open) + self._opening >= self._most:
            turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                async with asyncio.timeout(limits["pool"]):
                    connection = await turn
            except BaseException as exc:
                if turn.done() and not turn.cancelled():  # it came while its owner left
                    self._pass_by(turn.result())
                if isinstance(exc, TimeoutError):
                    raise httpx.PoolTimeout("No connection became free.") from None
                raise
            if connection is not None:
                return connection
        return await self._connect(limits["connect"])

    def _pass_by(self, connection: Connection | None) -> None:
        if connection is None:
            self._hand_on(None)
        else:
            self.give_back(connection)

    async def _connect(self, limit_s: float | None) -> Connection:
        self._opening += 1
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._reach()
        except TimeoutError:
            raise httpx.ConnectTimeout("The server does not answer.") from None
        except OSError as exc:
            raise httpx.ConnectError(str(exc)) from exc
        else:
            self._open.add(connection)
            return connection
        finally:
            self._opening -= 1
            if len(self._open) + self._opening < self._most:
                self._hand_on(None)

    async def _reach(self) -> Connection:
        """A connection to the first address that takes one."""
        loop = asyncio.get_running_loop()
        refusal = OSError("no address")
        for family, host, port in await self._addresses.find():
            try:
                _, connection = await loop.create_connection(
                    partial(Connection, self, loop),
                    host,
                    port,
                    family=family,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
            except OSError as exc:
                refusal = exc
            else:
                return connection
        self._addresses.forget()
        raise refusal


def _say(request: httpx.Request) -> bytes:
    """A request as it is sent.

    Raises:
        LocalProtocolError: a header holds a line's end.
    """
    headers = request.headers.raw
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in headers]
    head = b"\r\n".join(lines)
    if head.count(b"\r") != len(headers) or head.count(b"\n") != len(headers):
        raise httpx.LocalProtocolError("A header's value holds a line's end.")
    return b"%s\r\n\r\n%s" % (head, b"".join(cast("httpx.SyncByteStream", request.stream)))
