"""
The least that OpenAI's API looks like, with answers encoded beforehand: the upstream of every contestant.

A whole answer is one write. A stream is `CHUNKS` events, each a write of its own: the first at once, then one a tick,
so that a router which keeps up sees every event by itself, as it would from a model. No model runs here; one would hide
the router. `GET /asked` says how many answers were asked for, so that a cache in a contestant would show.
"""

import asyncio
import sys
from typing import Final

import msgspec
import uvloop

from edge import wire
from loadtests import wire_server
from loadtests.wire_server import frame_answer, frame_events, serve_connections, wants_stream

CHUNKS: Final = 100
TICK_S: Final = 0.002
WORD: Final = "token "
MODEL: Final = "auto"
CHAT_URL: Final = "/v1/chat/completions"
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


class Answers:
    """What there is to say, and how often it was."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.whole = frame_answer(whole_answer())
        self.pieces = frame_events(streamed_answer())
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
            return frame_answer(_encode(self.asked))
        content = self._pages.get(path)
        return frame_answer(b"{}", "404 Not Found") if content is None else frame_answer(content)


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


class Connection(wire_server.Connection):
    """Of a client."""

    def __init__(self, answers: Answers, ticker: Ticker) -> None:
        super().__init__()
        self._answers = answers
        self._ticker = ticker

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._ticker.drop(self)

    def answer(self, request: bytes) -> None:
        """A page, a stream's first event or a whole answer."""
        asked = self._answers.asked
        if request.startswith(b"GET "):
            self.write(self._answers.page(request.split(b" ", 2)[1]))
        elif wants_stream(request):
            asked.streams += 1
            self._ticker.begin(self)
        else:
            asked.whole += 1
            self.write(self._answers.whole)


async def serve(port: int) -> None:
    """Until cancelled."""
    answers = Answers()
    ticker = Ticker(answers.pieces)
    await serve_connections(port, lambda: Connection(answers, ticker))


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
