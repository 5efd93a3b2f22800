"""Chat requests, no two alike: questions of the demo pair's generator, each with a number of its own in front."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from string import ascii_letters, digits
from typing import Any, Final

import msgspec

from loadtests.pair.questions import Split, generate
from loadtests.peers.upstream import CHAT_URL, MODEL

SEED: Final = 20_261_121
DIGITS: Final = 9
_HOLE: Final = "#" * DIGITS
_PLAIN: Final = frozenset((ascii_letters + digits + " .,:").encode())


@dataclass(frozen=True, slots=True)
class Body:
    """JSON around the place of the number."""

    before: bytes
    after: bytes

    def fill(self, number: int) -> bytes:
        """The whole body."""
        return self.before + f"{number:0{DIGITS}d}".encode() + self.after

    @property
    def length(self) -> int:
        """Of the whole, in bytes: the same for every number."""
        return len(self.before) + DIGITS + len(self.after)


def make_bodies(count: int, *, stream: bool = False, least_characters: int = 0) -> list[Body]:
    """Of `count` questions, the last message made as long as asked with words that say nothing."""
    bodies = []
    for question in islice(generate(SEED, count, Split.TEST), count):
        messages = [{"role": role, "content": text} for role, text in question.messages]
        text = f"({_HOLE}) {messages[-1]['content']}"
        messages[-1]["content"] = text + " ".join(_fill(least_characters - len(text)))
        content: dict[str, Any] = {"model": MODEL, "temperature": 0, "messages": messages}
        if stream:
            content["stream"] = True
        before, after = msgspec.json.encode(content).split(_HOLE.encode())
        bodies.append(Body(before, after))
    return bodies


def _fill(characters: int) -> Iterator[str]:
    words = ("", "and", "nothing", "of", "this", "matters", "to", "the", "question")
    written = place = 0
    while written < characters:
        word = words[place % len(words)]
        yield word
        written += len(word) + 1
        place += 1


def request_head(length: int, headers: Mapping[str, str]) -> bytes:
    """All of a request before its body."""
    lines = [f"POST {CHAT_URL} HTTP/1.1", "Host: bench", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def write_lua(path: Path, bodies: Sequence[Body], headers: Mapping[str, str]) -> None:
    """The requests as a Lua table of pairs, for turn.lua."""
    pairs = (f"{{{_lua(request_head(body.length, headers) + body.before)},{_lua(body.after)}}}" for body in bodies)
    path.write_text("return {\n" + ",\n".join(pairs) + "\n}\n")


def _lua(content: bytes) -> str:
    """A string literal: every byte but the plainest by its number."""
    return '"' + "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in content) + '"'
