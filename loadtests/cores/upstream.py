"""
An OpenAI-shaped server without a model: its answer is made of the number in the question, so that an answer which
reaches the wrong client, or not all of it, shows. Whole answers come after `whole_s`, a stream's tokens one every
`every_s`. `GET /asked` says how many answers were asked for.
"""

import asyncio
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import uvloop

from edge import wire

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM: Final = re.compile(rb'"stream": ?true')
_NUMBER: Final = re.compile(rb"No\. (\d+)")
_MOST_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class Pace:
    """How many tokens an answer has, and how fast they come."""

    tokens: int
    whole_s: float = 0.0
    every_s: float = 0.0


def tokens_of(number: int, count: int) -> list[str]:
    """The answer to a question by its number."""
    return [f"{number}:{place} " for place in range(count)]


class Answers:
    """What is sent, as bytes."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.asked = 0
        self._encode = msgspec.json.Encoder().encode

    def whole(self, number: int) -> bytes:
        """A chat completion."""
        count = self.pace.tokens
        message = wire.AssistantMessage("".join(tokens_of(number, count)))
        usage = wire.Usage(prompt_tokens=10, completion_tokens=count, total_tokens=10 + count)
        choice = wire.ChatChoice(0, message, "stop")
        return respond(self._encode(wire.ChatCompletion(id="c-1", created=1, model="m", choices=[choice], usage=usage)))

    def event(self, number: int, place: int) -> bytes:
        """One token's event as an HTTP chunk; the first brings the head along, the last the end."""
        last = place == self.pace.tokens - 1
        delta = wire.ChatDelta(None, f"{number}:{place} ")
        choice = wire.ChatChunkChoice(0, delta, "stop" if last else None)
        chunk = wire.ChatCompletionChunk(id="c-1", created=1, model="m", choices=[choice])
        event = b"data: " + self._encode(chunk) + b"\n\n" + (b"data: [DONE]\n\n" if last else b"")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        return (head if place == 0 else b"") + b"%x\r\n%b\r\n" % (len(event), event) + (b"0\r\n\r\n" if last else b"")


def respond(content: bytes) -> bytes:
    """A whole HTTP response."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._due: asyncio.TimerHandle | None = None
        self._write: Callable[[bytes], None] = lambda content: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the rest."""
        if self._due is not None:
            self._due.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        self._received += data
        head = self._received.find(_END)
        if head < 0 or len(self._received) > _MOST_BYTES:
            return
        length = _LENGTH.search(self._received, 0, head)
        if len(self._received) < head + len(_END) + (int(length[1]) if length else 0):
            return
        request, self._received = self._received, b""
        self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET "):
            self._write(respond(b"%d" % self._answers.asked))
            return
        self._answers.asked += 1
        found = _NUMBER.search(request)
        number, pace = int(found[1]) if found else 0, self._answers.pace
        if _STREAM.search(request):
            self._tell(number, 0)
        elif pace.whole_s:
            self._due = self._loop.call_later(pace.whole_s, self._write, self._answers.whole(number))
        else:
            self._write(self._answers.whole(number))

    def _tell(self, number: int, place: int) -> None:
        self._write(self._answers.event(number, place))
        if place < self._answers.pace.tokens - 1:
            self._due = self._loop.call_later(self._answers.pace.every_s, self._tell, number, place + 1)


async def serve(port: int, pace: Pace) -> None:
    """Until cancelled."""
    answers = Answers(pace)
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        server = await asyncio.get_running_loop().create_server(lambda: Connection(answers), sock=listener)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Pace)))
