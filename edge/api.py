"""The HTTP handlers: OpenAI's endpoints, health and metrics."""

import base64
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from numpy.typing import NDArray

from edge import wire
from edge.answering import ChatModel, EmbeddingModel, Piece, Terms
from edge.failures import ApiError, as_failure, draining, refuse, unknown_model
from edge.hang_up import EventStream, HangUpError, until_hang_up
from edge.render import ChatDialect, Dialect, Tally, TextDialect
from edge.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    read_deadline_ms,
    read_priority,
    read_texts,
    read_trace_id,
)
from edge.serving import CutError, Drain
from edge.telemetry import RequestRecord, Telemetry

HttpRequest = Request[Any, Any, Any]
Work = Callable[["Exchange", bytes], Awaitable[ASGIApp]]

_JSON = "application/json"
_CLIENT_CLOSED = 499  # nginx's status for it; nobody reads the answer, metrics and log do
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that a handler needs, made once by `edge.app`."""

    chat: ChatModel
    embedding: EmbeddingModel | None
    drain: Drain
    telemetry: Telemetry

    def models(self) -> list[ChatModel | EmbeddingModel]:
        """What is served."""
        return [self.chat, *([self.embedding] if self.embedding else [])]

    def stamp(self) -> dict[str, str]:
        """The header that says which models answer, by identity; another artifact has another."""
        return {wire.MODEL_VERSION: " ".join(model.identity for model in self.models())}


@dataclass(slots=True)
class Exchange:
    """One request on its way."""

    service: Service
    url: str
    terms: Terms
    request_id: str | None
    trace_id: str
    started: float
    status: int = 200
    model: str = ""
    error: str | None = None
    usage: wire.Usage | None = None
    first_s: float | None = None

    def see_first(self) -> None:
        """The first piece is here."""
        self.first_s = time.perf_counter() - self.started
        self.service.telemetry.see_first(self.first_s)

    def fail(self, failure: ApiError) -> None:
        """This is what the client is told."""
        self.status = failure.status
        self.error = str(failure.detail.code or failure.detail.type)

    def finish(self) -> None:
        """The request is over, one way or another."""
        usage = self.usage
        record = RequestRecord(
            request_id=self.request_id,
            url=self.url,
            status=self.status,
            model=self.model,
            error=self.error,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            first_ms=None if self.first_s is None else round(self.first_s * 1e3, 1),
            total_ms=round((time.perf_counter() - self.started) * 1e3, 1),
            trace_id=self.trace_id,
        )
        self.service.telemetry.finish(record)


def routes() -> list[HTTPRouteHandler]:
    """All handlers."""
    return [
        _route("/v1/chat/completions", partial(_complete, msgspec.json.Decoder(ChatRequest))),
        _route("/v1/completions", partial(_complete, msgspec.json.Decoder(CompletionRequest))),
        _route("/v1/embeddings", partial(_embed, msgspec.json.Decoder(EmbeddingRequest))),
        *_status_routes(),
    ]


def _route(url: str, work: Work) -> HTTPRouteHandler:
    @post(url, name=url)
    async def answer(request: HttpRequest) -> ASGIApp:
        return await _converse(request, url, work)

    return answer


async def _converse(request: HttpRequest, url: str, work: Work) -> ASGIApp:
    """Do a request's work until its client hangs up or the server stops; answer, count."""
    service: Service = request.app.state.service
    request_id, trace_id = request.headers.get("x-request-id"), read_trace_id(request.headers.get("traceparent"))
    exchange = Exchange(service, url, Terms(0, None), request_id, trace_id, time.perf_counter())
    try:
        exchange.terms = _read_terms(request)
        answer = await _work(request, exchange, work)
    except HangUpError:
        exchange.status = _CLIENT_CLOSED
        answer = ASGIResponse(status_code=_CLIENT_CLOSED)
    except Exception as exc:  # noqa: BLE001 - every failure is told as OpenAI's error object, and counted
        failure = as_failure(exc)
        exchange.fail(failure)
        answer = ASGIResponse(
            body=failure.body(), headers=failure.headers(), media_type=_JSON, status_code=failure.status
        )
    if not isinstance(answer, EventStream):  # a stream is finished by its own end
        exchange.finish()
    return answer


def _read_terms(request: HttpRequest) -> Terms:
    left_ms = read_deadline_ms(request.headers.get("x-deadline-ms"))
    deadline = None if left_ms is None else time.monotonic() + left_ms / 1e3
    return Terms(read_priority(request.headers.get("x-priority")), deadline)


async def _work(request: HttpRequest, exchange: Exchange, work: Work) -> ASGIApp:
    drain = exchange.service.drain
    if drain.begun:
        raise draining()
    content = await request.body()
    try:
        with drain.holding():
            return await until_hang_up(request.receive, _call(work, exchange, content))
    except CutError:
        raise draining() from None


async def _call(work: Work, exchange: Exchange, content: bytes) -> ASGIApp:
    return await work(exchange, content)


async def _complete(
    decoder: msgspec.json.Decoder[ChatRequest] | msgspec.json.Decoder[CompletionRequest],
    exchange: Exchange,
    content: bytes,
) -> ASGIApp:
    """Chat and text completions, whole and streamed."""
    request = decoder.decode(content)
    model = exchange.service.chat
    if request.model not in {None, model.name}:
        raise unknown_model(str(request.model))
    request.check()
    exchange.model = model.name
    dialect = _dialect(request, model.name)
    pieces = model.answer(request, exchange.terms)
    try:
        first = await anext(pieces)  # while a failure can still become an HTTP status
        exchange.see_first()
        if request.stream:
            events = _events(exchange, request, dialect, first, pieces)
            return EventStream(events, exchange.service.stamp(), partial(_release, exchange, pieces))
        tally = Tally(request.n or 1)
        tally.add(first)
        async for piece in pieces:
            tally.add(piece)
        exchange.usage = tally.usage()
        return _json(dialect.whole(tally), exchange.service.stamp())
    except BaseException:
        await pieces.aclose()
        raise


async def _events(
    exchange: Exchange,
    request: ChatRequest | CompletionRequest,
    dialect: Dialect,
    first: Piece,
    rest: AsyncGenerator[Piece, None],
) -> AsyncGenerator[bytes, None]:
    """The stream's events; a failure after the first byte is an `error` event, never silence."""
    tally = Tally(request.n or 1)
    failure: ApiError | None = None
    try:
        with exchange.service.drain.holding():
            for chunk in dialect.opening(_answers(request)):
                yield _event(chunk)
            tally.add(first)
            yield _event(dialect.piece(first))
            async for piece in rest:
                tally.add(piece)
                yield _event(dialect.piece(piece))
            if request.include_usage:
                yield _event(dialect.closing(tally.usage()))
            yield b"data: [DONE]\n\n"
    except CutError:
        failure = draining()
    except Exception as exc:  # noqa: BLE001 - no status can be sent any more
        failure = as_failure(exc)
    exchange.usage = tally.usage()
    if failure is not None:
        exchange.fail(failure)
        yield b"event: error\ndata: " + failure.body() + b"\n\n"


async def _release(exchange: Exchange, pieces: AsyncGenerator[Piece, None]) -> None:
    await pieces.aclose()
    exchange.finish()


async def _embed(decoder: msgspec.json.Decoder[EmbeddingRequest], exchange: Exchange, content: bytes) -> ASGIApp:
    request = decoder.decode(content)
    model = exchange.service.embedding
    if model is None or request.model not in {None, model.name}:
        raise unknown_model(request.model or "embedding")
    width = request.dimensions or model.width
    if width > model.width:
        raise refuse(f"Invalid 'dimensions': this model has {model.width}.", param="dimensions", code="invalid_value")
    vectors, counts = await model.embed(read_texts(request.input, "input"), exchange.terms)
    data = [
        wire.Embedding(index, _say_vector(_shorten(vector, width), request.encoding_format), tokens=count)
        for index, (vector, count) in enumerate(zip(vectors, counts, strict=True))
    ]
    tokens = sum(counts)
    exchange.model, exchange.usage = model.name, wire.Usage(tokens, 0, tokens)
    listed = wire.EmbeddingList(data=data, model=model.name, usage=exchange.usage)
    return _json(listed, exchange.service.stamp())


def _status_routes() -> list[HTTPRouteHandler]:
    @get("/v1/models")
    async def models(request: HttpRequest) -> ASGIApp:
        return _json(wire.ModelList(_models(request)))

    @get("/v1/models/{name:str}")
    async def model(request: HttpRequest) -> ASGIApp:
        name: str = request.path_params["name"]
        found = next((model for model in _models(request) if model.id == name), None)
        if found is None:
            raise unknown_model(name)
        return _json(found)

    @get("/health/live")
    async def live() -> ASGIApp:
        return _json({"live": True})

    @get("/health/ready")
    async def ready(request: HttpRequest) -> ASGIApp:
        service: Service = request.app.state.service
        good = service.chat.generator.alive and not service.drain.leaving
        return _json({"ready": good}, service.stamp(), 200 if good else 503)

    @get("/metrics")
    async def metrics(request: HttpRequest) -> ASGIApp:
        service: Service = request.app.state.service
        return ASGIResponse(body=service.telemetry.render(), media_type="text/plain; version=0.0.4")

    return [models, model, live, ready, metrics]


def _models(request: HttpRequest) -> list[wire.Model]:
    service: Service = request.app.state.service
    return [wire.Model(model.name, version=model.identity) for model in service.models()]


def _dialect(request: ChatRequest | CompletionRequest, model: str) -> Dialect:
    chat = isinstance(request, ChatRequest)
    answer_id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
    logprobs = bool(request.logprobs) if isinstance(request, ChatRequest) else request.logprobs is not None
    make = ChatDialect if chat else TextDialect
    return make(answer_id, int(time.time()), model, logprobs=logprobs, include_usage=request.include_usage)


def _answers(request: ChatRequest | CompletionRequest) -> int:
    prompts = 1 if isinstance(request, ChatRequest) else len(request.prompts())
    return prompts * (request.n or 1)


def _shorten(vector: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The first `width` numbers, scaled to length 1 again, as OpenAI does."""
    if width == vector.size:
        return vector
    return vector[:width] / max(float(np.linalg.norm(vector[:width])), 1e-12)


def _say_vector(vector: NDArray[np.float32], encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def _json(content: Any, headers: dict[str, str] | None = None, status: int = 200) -> ASGIApp:
    return ASGIResponse(body=_encode(content), headers=headers, media_type=_JSON, status_code=status)


def _event(chunk: msgspec.Struct) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"
