"""
An OpenAI-shaped server without a model: its answer is made of the number in the question, so that an answer which
reaches the wrong client, or not all of it, shows. Whole answers come after `whole_s`, a stream's tokens one every
`every_s`. `GET /asked` says how many answers were asked for.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import uvloop

from edge import wire
from loadtests import wire_server
from loadtests.wire_server import frame_answer, frame_events, serve_connections, wants_stream

_NUMBER: Final = re.compile(rb"No\. (\d+)")


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
        return frame_answer(
            self._encode(wire.ChatCompletion(id="c-1", created=1, model="m", choices=[choice], usage=usage))
        )

    def stream(self, number: int) -> list[bytes]:
        """One token's event after the other, in HTTP's chunks."""
        return frame_events([self._event(number, place) for place in range(self.pace.tokens)])

    def _event(self, number: int, place: int) -> bytes:
        last = place == self.pace.tokens - 1
        choice = wire.ChatChunkChoice(0, wire.ChatDelta(None, f"{number}:{place} "), "stop" if last else None)
        chunk = wire.ChatCompletionChunk(id="c-1", created=1, model="m", choices=[choice])
        return b"data: " + self._encode(chunk) + b"\n\n" + (b"data: [DONE]\n\n" if last else b"")


class Connection(wire_server.Connection):
    """Of a client."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the rest."""
        if self._due is not None:
            self._due.cancel()

    def answer(self, request: bytes) -> None:
        """How many there were, or one more."""
        if request.startswith(b"GET "):
            self.write(frame_answer(b"%d" % self._answers.asked))
            return
        self._answers.asked += 1
        found = _NUMBER.search(request)
        number, pace = int(found[1]) if found else 0, self._answers.pace
        if wants_stream(request):
            self._tell(iter(self._answers.stream(number)))
        elif pace.whole_s:
            self._due = self._loop.call_later(pace.whole_s, self.write, self._answers.whole(number))
        else:
            self.write(self._answers.whole(number))

    def _tell(self, pieces: Iterator[bytes]) -> None:
        if (piece := next(pieces, None)) is not None:
            self.write(piece)
            self._due = self._loop.call_later(self._answers.pace.every_s, self._tell, pieces)


async def serve(port: int, pace: Pace) -> None:
    """Until cancelled."""
    answers = Answers(pace)
    await serve_connections(port, lambda: Connection(answers))


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Pace)))
