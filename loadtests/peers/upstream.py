"""
The least that OpenAI's API looks like, with answers encoded beforehand: the upstream of every contestant.

A whole answer is one write. A stream is `CHUNKS` events, each a write of its own: the first at once, then one a tick,
so that a router which keeps up sees every event by itself, as it would from a model. No model runs here; one would hide
the router. `GET /asked` says how many answers were asked for, so that a cache in a contestant would show.
"""

import asyncio
import re
import socket
import sys
from collections.abc import Callable
from typing import Final, cast

import msgspec
import uvloop

from edge import wire

CHUNKS: Final = 100
TICK_S: Final = 0.002
WORD: Final = "token "
MODEL: Final = "auto"
CHAT_URL: Final = "/v1/chat/completions"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM: Final = re.compile(rb'"stream": ?true')
_MOST_BYTES: Final = 1024 * 1024
_USAGE: Final = wire.Usage(prompt_tokens=20, completion_tokens=CHUNKS, total_tokens=20 + CHUNKS)


class Asked(msgspec.Struct):
    """How many answers were asked for since the start."""

    whole: int = 0
    streams: int = 0

    @property
    def all(self) -> int:
        """Of both forms."""
        return self.whole + self.streams


def whole_answer() -> bytes:
    """A chat completion of some 300 bytes."""
    choice = wire.ChatChoice(0, wire.AssistantMessage(WORD * 8), "stop")
    return _encode(wire.ChatCompletion(id="chatcmpl-1", created=1, model=MODEL, choices=[choice], usage=_USAGE))


def streamed_answer() -> list[bytes]:
    """The events of a stream of `CHUNKS` tokens; the last brings `[DONE]` along."""
    events = []
    for place in range(CHUNKS):
        delta = wire.ChatDelta("assistant" if place == 0 else None, WORD)
        choice = wire.ChatChunkChoice(0, delta, "stop" if place == CHUNKS - 1 else None)
        chunk = wire.ChatCompletionChunk(id="chatcmpl-1", created=1, model=MODEL, choices=[choice])
        events.append(b"data: " + _encode(chunk) + b"\n\n")
    events[-1] += b"data: [DONE]\n\n"
    return events


def _encode(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value)


def _whole(content: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def _in_chunks(events: list[bytes]) -> list[bytes]:
    """HTTP's own chunks: one an event, the head before the first, the end behind the last."""
    framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head + framed[0], *framed[1:-1], framed[-1] + b"0\r\n\r\n"]


class Answers:
    """What there is to say, and how often it was."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.whole = _whole(whole_answer())
        self.pieces = _in_chunks(streamed_answer())
        self._pages: dict[bytes, bytes] = {
            b"/v1/models": _encode(wire.ModelList([wire.Model(MODEL)])),
            b"/get_model_info": b'{"model_path":"%b","is_generation":true}' % MODEL.encode(),
            b"/get_server_info": b'{"model_path":"%b","served_model_name":"%b"}' % (MODEL.encode(), MODEL.encode()),
            b"/health": b"{}",
            b"/health/ready": b"{}",
            b"/health_generate": b"{}",
        }

    def page(self, path: bytes) -> bytes:
        """What routers ask of a server besides answers."""
        if path == b"/asked":
            return _whole(_encode(self.asked))
        content = self._pages.get(path)
        return _whole(b"{}", "404 Not Found") if content is None else _whole(content)


class Ticker:
    """Writes the next event of every open stream, once a tick; idle while there is none."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._streams: dict[Connection, int] = {}

    def begin(self, connection: "Connection") -> None:
        """The first event now, the others with the ticks."""
        connection.write(self._pieces[0])
        if not self._streams:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._streams[connection] = 1

    def drop(self, connection: "Connection") -> None:
        """Its reader left."""
        self._streams.pop(connection, None)

    def _tick(self) -> None:
        if self._streams:
            loop = asyncio.get_running_loop()
            loop.call_at(loop.time() + TICK_S, self._tick)
        for connection, place in list(self._streams.items()):
            if place == CHUNKS - 1:
                del self._streams[connection]
            else:
                self._streams[connection] = place + 1
            connection.write(self._pieces[place])


class Connection(asyncio.Protocol):
    """Reads requests one after the other, and no more of them than it has to."""

    def __init__(self, answers: Answers, ticker: Ticker) -> None:
        self._answers = answers
        self._ticker = ticker
        self._received = b""
        self.write: Callable[[bytes], None] = lambda content: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._ticker.drop(self)

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        received = self._received + data if self._received else data
        head = received.find(_END)
        if head < 0:
            self._wait(received)
            return
        if received.startswith(b"GET "):
            self._received = b""
            self.write(self._answers.page(received.split(b" ", 2)[1]))
            return
        length = _LENGTH.search(received, 0, head)
        if length is None:
            self.write(_whole(b'{"error":{"message":"Content-Length is missing."}}', "411 Length Required"))
            self._transport.close()
        elif len(received) < head + len(_END) + int(length[1]):
            self._wait(received)
        else:
            self._received = b""
            self._answer(received, head)

    def _wait(self, received: bytes) -> None:
        self._received = received
        if len(received) > _MOST_BYTES:
            self._transport.abort()

    def _answer(self, request: bytes, head: int) -> None:
        asked = self._answers.asked
        if _STREAM.search(request, head):
            asked.streams += 1
            self._ticker.begin(self)
        else:
            asked.whole += 1
            self.write(self._answers.whole)


async def serve(port: int) -> None:
    """Until cancelled."""
    answers = Answers()
    ticker = Ticker(answers.pieces)
    with socket.create_server(("127.0.0.1", port), backlog=2048) as listener:
        server = await asyncio.get_running_loop().create_server(lambda: Connection(answers, ticker), sock=listener)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
