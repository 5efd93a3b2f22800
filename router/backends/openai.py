"""
`edge/`, or any OpenAI-compatible server, over HTTP.

httpx's types at the seam, requests handed straight to its aiohttp transport: measured several times faster than
`httpx.AsyncClient`, whose per-request layers (redirects, cookies, auth flows) nothing here needs.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from edge import wire
from router.backends import join_versions, remaining_s
from router.backends.openai_bodies import (
    read_chat_choice,
    read_chat_logprobs,
    read_text_choice,
    read_text_logprobs,
    read_usage,
    read_vector,
    say_sampling,
    say_turn,
)
from router.config import OpenAITarget
from router.errors import (
    BackendError,
    DeadlineError,
    OverloadedError,
    RefusedError,
    RouterError,
    UnavailableError,
)
from router.query import (
    Completion,
    Conversation,
    Delta,
    EmbeddingQuery,
    Embeddings,
    Finish,
    Query,
)

_DATA = b"data:"
_DONE = b"[DONE]"
_LONGEST_EVENT_BYTES = 8 * 1024 * 1024


class OpenAIBackend:
    """See `router.backends.Backend`."""

    def __init__(self, name: str, config: OpenAITarget, key: str | None) -> None:
        self._name = name
        self._config = config
        self._said = ""
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._transport = AiohttpTransport(limits=httpx.Limits(max_connections=config.connections))
        self._encode = msgspec.json.Encoder().encode
        self._chat = msgspec.json.Decoder(wire.ChatCompletion)
        self._text = msgspec.json.Decoder(wire.TextCompletion)
        self._chat_chunk = msgspec.json.Decoder(wire.ChatCompletionChunk)
        self._embedding = msgspec.json.Decoder(wire.EmbeddingList)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()

    @property
    def version(self) -> str:
        """What our edge says of its artifacts; any other server is known by `targets.<name>.version` alone."""
        return join_versions(self._config.version, self._said)

    async def complete(self, query: Query) -> Completion:
        """All answers, whole."""
        url, body = self._request(query, stream=False)
        with http_errors(self._name):
            async with self._post(url, body, query) as response:
                async with asyncio.timeout(remaining_s(query.deadline)):
                    content = await response.aread()
            if isinstance(query.prompt, Conversation):
                chat = self._chat.decode(content)
                return Completion([read_chat_choice(choice) for choice in chat.choices], read_usage(chat.usage))
            text = self._text.decode(content)
            return Completion([read_text_choice(choice) for choice in text.choices], read_usage(text.usage))

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """The answers piece by piece."""
        url, body = self._request(query, stream=True)
        read = self._read_chat if isinstance(query.prompt, Conversation) else self._read_text
        with http_errors(self._name):
            async with self._post(url, body, query) as response:
                events = _events(response)
                while True:
                    async with asyncio.timeout(remaining_s(query.deadline)):
                        event = await anext(events, None)
                    if event is None:
                        return
                    for delta in read(event):
                        yield delta

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        """One vector an input."""
        body = {"model": self._config.embedding_model, "input": query.inputs, "encoding_format": "base64"}
        with http_errors(self._name):
            async with self._post("/v1/embeddings", body, query) as response:
                async with asyncio.timeout(remaining_s(query.deadline)):
                    answer = self._embedding.decode(await response.aread())
            data = sorted(answer.data, key=lambda one: one.index)
            if len(data) != len(query.inputs):
                raise BackendError(f"{self._name} sent {len(data)} vectors for {len(query.inputs)} inputs.")
            counts = tuple(one.tokens for one in data if isinstance(one.tokens, int))
            tokens = answer.usage.prompt_tokens
            told = len(counts) == len(data) and sum(counts) == tokens
            return Embeddings(tuple(read_vector(one.embedding) for one in data), tokens, counts if told else None)

    async def ready(self) -> bool:
        """Whether the server says that it is ready."""
        request = httpx.Request("GET", self._config.url + self._config.ready_path, headers=self._headers)
        try:
            with http_errors(self._name):
                response = await self._transport.handle_async_request(request)
                await response.aclose()
        except RouterError:
            return False
        if response.is_success:
            self._said = response.headers.get(wire.MODEL_VERSION, "")
        return response.is_success

    def _request(self, query: Query, *, stream: bool) -> tuple[str, dict[str, Any]]:
        p = query.parameters
        body: dict[str, Any] = {"model": self._config.chat_model, **say_sampling(p)}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if isinstance(query.prompt, Conversation):
            body["messages"] = [say_turn(m.role, m.text, m.name) for m in query.prompt.messages]
            if p.logprobs:
                body |= {"logprobs": True, "top_logprobs": p.top_logprobs}
            return "/v1/chat/completions", body
        body["prompt"] = query.prompt.texts
        if p.logprobs:
            body["logprobs"] = p.top_logprobs
        return "/v1/completions", body

    @asynccontextmanager
    async def _post(
        self, url: str, body: dict[str, Any], query: Query | EmbeddingQuery
    ) -> AsyncIterator[httpx.Response]:
        """The response once its head says success; the body is the caller's to read, within the deadline."""
        left_s = remaining_s(query.deadline)
        headers = {
            **self._headers,
            **query.trace_headers,
            "x-request-id": query.request_id,
            "x-priority": query.priority.value,
        }
        if left_s is not None:
            headers["x-deadline-ms"] = str(int(left_s * 1e3))
        timeout = {
            "connect": min(self._config.connect_s, left_s or self._config.connect_s),
            "read": left_s,
            "pool": left_s,
        }
        request = httpx.Request(
            "POST",
            self._config.url + url,
            headers=headers,
            content=self._encode(body),
            extensions={"timeout": timeout},
        )
        async with asyncio.timeout(left_s):
            response = await self._transport.handle_async_request(request)
        try:
            if not response.is_success:
                async with asyncio.timeout(left_s):
                    raise _refusal(self._name, response.status_code, await response.aread())
            # an edge that was restarted between two probes answers as what it is now
            self._said = response.headers.get(wire.MODEL_VERSION, self._said)
            yield response
        finally:
            await response.aclose()

    def _read_chat(self, event: bytes) -> Iterator[Delta]:
        chunk = self._chat_chunk.decode(event)
        for choice in chunk.choices:
            logprobs = read_chat_logprobs(choice.logprobs)
            finish = Finish(choice.finish_reason) if choice.finish_reason else None
            if choice.delta.content or logprobs or finish:
                yield Delta(choice.index, choice.delta.content or "", logprobs, finish)
        if chunk.usage:
            yield Delta(0, usage=read_usage(chunk.usage))

    def _read_text(self, event: bytes) -> Iterator[Delta]:
        chunk = self._text.decode(event)
        for choice in chunk.choices:
            logprobs = read_text_logprobs(choice.logprobs)
            finish = Finish(choice.finish_reason) if choice.finish_reason else None
            if choice.text or logprobs or finish:
                yield Delta(choice.index, choice.text, logprobs, finish)
        if chunk.usage:
            yield Delta(0, usage=read_usage(chunk.usage))


@contextmanager
def http_errors(name: str) -> Iterator[None]:
    """The one door through which httpx's, aiohttp's and msgspec's errors enter.

    Raises:
        BackendError: or one below it, or `OverloadedError`.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise UnavailableError(f"{name} cannot be reached.") from exc
    except (TimeoutError, httpx.TimeoutException) as exc:
        raise DeadlineError(f"{name} did not answer within the request's deadline.") from exc
    except (httpx.HTTPError, aiohttp.ClientError, OSError) as exc:
        raise BackendError(f"{name} broke the connection off.") from exc
    except (msgspec.MsgspecError, ValueError) as exc:
        raise BackendError(f"{name} sent an answer we cannot read: {exc}.") from exc


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of each server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Raises:
        BackendError: an `error` event, an oversized one, or an end without `[DONE]`.
    """
    buffer = bytearray()
    async for piece in response.aiter_raw():
        buffer += piece
        if len(buffer) > _LONGEST_EVENT_BYTES:
            raise BackendError("The target sent an event that is too long.")
        while (end := buffer.find(b"\n\n")) >= 0:
            event = bytes(buffer[:end])
            del buffer[: end + 2]
            data = b"\n".join(line[len(_DATA) :].strip() for line in event.splitlines() if line.startswith(_DATA))
            if data == _DONE:
                return
            if data.startswith(b'{"error"'):
                raise BackendError(msgspec.json.decode(data, type=wire.ErrorBody).error.message)
            if data:
                yield data
    raise BackendError("The target's stream broke off before its end.")


def _refusal(name: str, status: int, content: bytes) -> RouterError:
    try:
        error = msgspec.json.decode(content, type=wire.ErrorBody).error
    except msgspec.MsgspecError:
        error = wire.ErrorDetail(f"status {status}")
    match status:
        case 429 | 503:
            return OverloadedError(f"{name} has no room: {error.message}")
        case 408 | 504:
            return DeadlineError(f"{name} did not answer within the request's deadline.")
        case 400 | 404 | 413 | 422:
            return RefusedError(f"{name} refused the request: {error.message}", param=error.param)
        case _:
            return BackendError(f"{name} answered {status}: {error.message}")
