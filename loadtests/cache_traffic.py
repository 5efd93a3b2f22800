"""Requests whose answers are kept, and their answers in a form in which whole and streamed ones can be compared."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from edge import wire
from loadtests.pair.questions import KINDS, Split, make_question

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
_CONNECTIONS: Final = 400
_DATA: Final = "data: "
_DONE: Final = "data: [DONE]"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request."""

    path: str
    body: dict[str, Any]

    @property
    def streamed(self) -> bool:
        """Whether its answer is."""
        return bool(self.body.get("stream"))

    def other(self) -> "Ask":
        """The same, streamed if this is not."""
        return make_ask(self.path, self.body, stream=not self.streamed) if self.path == CHAT else self


@dataclass(frozen=True, slots=True)
class Answer:
    """What came; `body` of a stream is what its answer would have been in one piece."""

    status: int
    body: bytes
    cache: str = ""
    overhead_ms: float = 0.0
    took_s: float = 0.0


class BrokenStreamError(Exception):
    """A stream that ended without its end, or with an error."""


def make_ask(path: str, body: dict[str, Any], *, stream: bool) -> Ask:
    """With or without a stream."""
    plain = {name: value for name, value in body.items() if name not in {"stream", "stream_options"}}
    return Ask(path, {**plain, "stream": True, "stream_options": {"include_usage": True}} if stream else plain)


def make_chat(number: int, model: str, *, stream: bool = False, most_tokens: int = 24) -> Ask:
    """A deterministic question; no two numbers share a key."""
    rng = random.Random(f"cache-traffic/{number}")
    question = make_question(rng, rng.choice(tuple(KINDS)), Split.TEST)
    messages = [{"role": role, "content": text} for role, text in question.messages]
    body = {"model": model, "messages": messages, "temperature": 0, "seed": number, "max_tokens": most_tokens}
    return make_ask(CHAT, body, stream=stream)


def make_embedding(texts: Sequence[str], model: str) -> Ask:
    """Of texts that are kept each by itself."""
    return Ask(EMBEDDINGS, {"model": model, "input": list(texts)})


def open_client(url: str, *, timeout_s: float = 20.0) -> httpx.AsyncClient:
    """One that stays cheap with hundreds of requests under way, which httpx's own transport does not."""
    transport = AiohttpTransport(limits=httpx.Limits(max_connections=_CONNECTIONS))
    return httpx.AsyncClient(base_url=url, timeout=timeout_s, transport=transport)


async def ask(client: httpx.AsyncClient, request: Ask, **headers: str) -> Answer:
    """
    Raises:
        httpx.HTTPError: no whole answer came.
        BrokenStreamError: the stream has no end.
    """
    begun = time.perf_counter()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await client.post(request.path, json=request.body, headers=sent)
    took_s = time.perf_counter() - begun
    body = response.content
    if response.is_success and request.streamed:
        body = join(response.text)
    said = response.headers
    overhead_ms = float(said.get("x-overhead-ms", "0"))
    return Answer(response.status_code, body, said.get("x-cache", ""), overhead_ms, took_s)


def join(stream: str) -> bytes:
    """The whole answer that a stream makes, as the router would have said it.

    Raises:
        BrokenStreamError: it has no end.
    """
    lines = [line for line in stream.splitlines() if line]
    if not lines or lines[-1] != _DONE or not all(line.startswith(_DATA) for line in lines):
        raise BrokenStreamError("a stream without its end")
    decode = msgspec.json.Decoder(wire.ChatCompletionChunk).decode
    chunks = [decode(line[len(_DATA) :]) for line in lines[:-1]]
    pieces = [choice for chunk in chunks for choice in chunk.choices]
    finish = next((piece.finish_reason for piece in pieces if piece.finish_reason), None)
    last = chunks[-1]
    if finish is None or len({chunk.id for chunk in chunks}) != 1 or not isinstance(last.usage, wire.Usage):
        raise BrokenStreamError("a stream without finish, or of several answers, or without usage")
    message = wire.AssistantMessage("".join(piece.delta.content or "" for piece in pieces))
    choices = [wire.ChatChoice(0, message, finish)]
    return msgspec.json.encode(
        wire.ChatCompletion(id=last.id, created=last.created, model=last.model, choices=choices, usage=last.usage)
    )
