"""One HTTP/1.1 connection to a server, and the answer that comes over it: asyncio's protocol, llhttp's parser."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol, cast

import httptools
import httpx

_MOST_HEAD_BYTES: Final = 65_536
_MOST_UNREAD_BYTES: Final = 262_144
_INFORMATIONAL: Final = range(100, 200)


class Answer(httpx.AsyncByteStream):
    """What came of one call so far; its connection writes, its caller reads."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._error: Exception | None = None
        self._connection = connection
        self._waiter: asyncio.Future[None] | None = None

    async def wait_head(self) -> None:
        """Until status and headers are here; what came of the body with them is `__aiter__`'s to give.

        Raises:
            HTTPError: the connection broke, or the call's time is over.
        """
        while not self.status:
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, each time all that is here.

        Raises:
            HTTPError: as `wait_head`.
        """
        while True:
            if self._pieces:
                yield self.take()
            elif self.complete:
                return
            else:
                await self._wait()

    def take(self) -> bytes:
        """All that is here of the body and was not taken."""
        pieces, self._pieces = self._pieces, []
        if self._unread_bytes > _MOST_UNREAD_BYTES and not self.complete:
            self._connection.resume()
        self._unread_bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """Nobody wants the rest."""
        if not self.complete:
            self._connection.abandon()

    def add(self, piece: bytes) -> bool:
        """More of the body. False: too much waits to be taken."""
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        return self._unread_bytes <= _MOST_UNREAD_BYTES

    def tell(self) -> None:
        """Something has changed: go and look."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """No more will come."""
        self._error = error
        self.tell()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class Pool(Protocol):
    """Who owns connections."""

    def give_back(self, connection: "Connection") -> None:
        """Its call is over, and it can serve another."""
        ...

    def drop(self, connection: "Connection") -> None:
        """It is closed."""
        ...


class Connection(asyncio.Protocol):
    """One connection; the methods named `on_...` are the parser's."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0

    def send(self, call: bytes, limit_s: float | None) -> Answer:
        """Make a call, whose answer must have come to its end within `limit_s`."""
        answer = Answer(self)
        if self._transport.is_closing():  # since it was handed over
            answer.fail(httpx.ReadError("The server closed the connection."))
            return answer
        self._answer = answer
        self._head_bytes = 0
        self._framed = False
        if limit_s is not None:
            self._timer = self._loop.call_later(limit_s, self._end, httpx.ReadTimeout("The answer is late."))
        self._transport.write(call)
        return answer

    def abandon(self) -> None:
        """Break the call off, so that its server can see that nobody waits."""
        self._end(httpx.ReadError("The call was broken off."))

    def resume(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Nothing runs over it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        answer = self._answer
        if answer is None:
            self._end(httpx.RemoteProtocolError("The server spoke unasked."))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(httpx.RemoteProtocolError(f"The server does not speak HTTP/1.1: {exc}."))
        answer.tell()  # once, however many pieces came: what arrives together goes on together

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        answer = self._answer
        if exc is None and answer is not None and answer.status and not self._framed:
            self._finish(answer)  # the end of the connection is that of the answer
            answer.tell()
        self._end(httpx.ReadError("The server closed the connection."))
        self._pool.drop(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the answer's."""
        answer = self._answer
        self._head_bytes += len(name) + len(value)
        if answer is None or self._head_bytes > _MOST_HEAD_BYTES:
            raise ValueError("the headers are too long")
        answer.headers.append((name, value))
        if not self._framed:
            self._framed = name.lower() in {b"content-length", b"transfer-encoding"}

    def on_headers_complete(self) -> None:
        """The body follows, or another head."""
        answer, status = self._answer, self._parser.get_status_code()
        if answer is None:
            return
        if status in _INFORMATIONAL:
            answer.headers.clear()
        else:
            answer.status = status

    def on_body(self, piece: bytes) -> None:
        """A part of it."""
        if self._answer is not None and not self._answer.add(piece):
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer's end; the connection serves the next call even before this answer was read."""
        answer = self._answer
        if answer is None or not answer.status:
            return
        self._finish(answer)
        if self._parser.should_keep_alive():
            self.resume()
            self._pool.give_back(self)
        else:
            self._transport.close()

    def _finish(self, answer: Answer) -> None:
        answer.complete = True
        self._detach()

    def _detach(self) -> None:
        self._answer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, error: httpx.TransportError) -> None:
        answer = self._answer
        self._detach()
        self._transport.abort()
        if answer is not None:
            answer.fail(error)
