"""
`edge/`, or any OpenAI-compatible server, over HTTP.

httpx's types at the seam, requests handed straight to a transport: `httpx.AsyncClient`'s layers (redirects, cookies,
auth flows) cost several times as much, and nothing here needs them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Self, cast

import httpx
import msgspec

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
from router.backends.transport import PooledTransport
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
    Priority,
    Query,
)

_CHAT, _TEXT, _EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_VERSION = wire.MODEL_VERSION.lower().encode()
_PRIORITIES = {priority: priority.value.encode() for priority in Priority}
_DATA = b"data:"
_DONE = b"[DONE]"
_LONGEST_EVENT_BYTES = 8 * 1024 * 1024


class OpenAIBackend:
    """See `router.backends.Backend`."""

    def __init__(self, name: str, config: OpenAITarget, key: str | None) -> None:
        self._name = name
        self._config = config
        self._said = ""
        self._errors = HttpErrors(name)
        host = httpx.URL(config.url).netloc
        self._headers = [(b"host", host), (b"content-type", b"application/json"), (b"accept-encoding", b"identity")]
        if key is not None:
            self._headers.append((b"authorization", f"Bearer {key}".encode()))
        self._transport = PooledTransport(httpx.URL(config.url), config.connections)
        self._urls = {path: httpx.URL(config.url + path) for path in (_CHAT, _TEXT, _EMBEDDINGS, config.ready_path)}
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
        path, body = self._request(query, stream=False)
        with self._errors:
            async with aclosing(await self._post(path, body, query)) as stream:
                content = await _read(stream)
            if isinstance(query.prompt, Conversation):
                chat = self._chat.decode(content)
                return Completion([read_chat_choice(choice) for choice in chat.choices], read_usage(chat.usage))
            text = self._text.decode(content)
            return Completion([read_text_choice(choice) for choice in text.choices], read_usage(text.usage))

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """The answers piece by piece."""
        path, body = self._request(query, stream=True)
        read = self._read_chat if isinstance(query.prompt, Conversation) else self._read_text
        with self._errors:
            async with aclosing(await self._post(path, body, query)) as pieces:
                async for event in _events(pieces):
                    for delta in read(event):
                        yield delta

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        """One vector an input."""
        body = {"model": self._config.embedding_model, "input": query.inputs, "encoding_format": "base64"}
        with self._errors:
            async with aclosing(await self._post(_EMBEDDINGS, body, query)) as stream:
                answer = self._embedding.decode(await _read(stream))
            data = sorted(answer.data, key=lambda one: one.index)
            if len(data) != len(query.inputs):
                raise BackendError(f"{self._name} sent {len(data)} vectors for {len(query.inputs)} inputs.")
            counts = tuple(one.tokens for one in data if isinstance(one.tokens, int))
            tokens = answer.usage.prompt_tokens
            told = len(counts) == len(data) and sum(counts) == tokens
            return Embeddings(tuple(read_vector(one.embedding) for one in data), tokens, counts if told else None)

    async def ready(self) -> bool:
        """Whether the server says that it is ready."""
        # health's own limit ends a probe that takes too long
        request = httpx.Request(
            "GET",
            self._urls[self._config.ready_path],
            headers=self._headers,
            extensions={"timeout": {"connect": self._config.connect_s, "read": None, "pool": None}},
        )
        try:
            with self._errors:
                response = await self._transport.handle_async_request(request)
                await response.aclose()
        except RouterError:
            return False
        if response.is_success:
            self._said = _find_version(response)
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
            return _CHAT, body
        body["prompt"] = query.prompt.texts
        if p.logprobs:
            body["logprobs"] = p.top_logprobs
        return _TEXT, body

    async def _post(self, path: str, body: dict[str, Any], query: Query | EmbeddingQuery) -> httpx.AsyncByteStream:
        """The answer's body, once its head says success: the caller's to read, within the deadline, and to close."""
        left_s = remaining_s(query.deadline)
        content = self._encode(body)
        headers = [
            *self._headers,
            (b"content-length", b"%d" % len(content)),
            (b"x-request-id", query.request_id.encode()),
            (b"x-priority", _PRIORITIES[query.priority]),
            *[(name.encode(), value.encode()) for name, value in query.trace_headers.items()],
        ]
        if left_s is not None:
            headers.append((b"x-deadline-ms", b"%d" % (left_s * 1e3)))
        timeout = {
            "connect": min(self._config.connect_s, left_s or self._config.connect_s),
            "read": left_s,
            "pool": left_s,
        }
        request = httpx.Request(
            "POST",
            self._urls[path],
            headers=headers,
            stream=httpx.ByteStream(content),  # as `content` httpx would look for headers to add
            extensions={"timeout": timeout},
        )
        response = await self._transport.handle_async_request(request)
        # not through the response, whose own ways to read put a generator each around that
        stream = cast("httpx.AsyncByteStream", response.stream)
        if not response.is_success:
            async with aclosing(stream):
                raise _refusal(self._name, response.status_code, await _read(stream))
        # an edge that was restarted between two probes answers as what it is now
        self._said = _find_version(response) or self._said
        return stream

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


class HttpErrors:
    """The one door through which httpx's and msgspec's errors enter: a context that raises `BackendError`, or one below
    it, in their place.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        match exc:
            case None:
                return
            case httpx.ConnectError() | httpx.ConnectTimeout():
                raise UnavailableError(f"{self._name} cannot be reached.") from exc
            case TimeoutError() | httpx.TimeoutException():
                raise DeadlineError(f"{self._name} did not answer within the request's deadline.") from exc
            case httpx.HTTPError() | OSError():
                raise BackendError(f"{self._name} broke the connection off.") from exc
            case msgspec.MsgspecError() | ValueError():
                raise BackendError(f"{self._name} sent an answer we cannot read: {exc}.") from exc


async def _events(stream: httpx.AsyncByteStream) -> AsyncIterator[bytes]:
    """The data of each server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Raises:
        BackendError: an `error` event, an oversized one, or an end without `[DONE]`.
    """
    begun = b""
    async for piece in stream:
        *events, begun = (begun + piece).split(b"\n\n")
        if len(begun) > _LONGEST_EVENT_BYTES:
            raise BackendError("The target sent an event that is too long.")
        for event in events:
            data = _read_data(event)
            if data == _DONE:
                return
            if data.startswith(b'{"error"'):
                raise BackendError(msgspec.json.decode(data, type=wire.ErrorBody).error.message)
            if data:
                yield data
    raise BackendError("The target's stream broke off before its end.")


def _read_data(event: bytes) -> bytes:
    if event.startswith(_DATA) and b"\n" not in event:
        return event[len(_DATA) :].strip()
    return b"\n".join(line[len(_DATA) :].strip() for line in event.splitlines() if line.startswith(_DATA))


async def _read(stream: httpx.AsyncByteStream) -> bytes:
    return b"".join([piece async for piece in stream])


def _find_version(response: httpx.Response) -> str:
    """What the server says of its models, if it does."""
    return next((value.decode("latin-1") for name, value in response.headers.raw if name.lower() == _VERSION), "")


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
