"""`POST /v1/chat/completions` and `POST /v1/completions`, whole and streamed."""

from collections.abc import AsyncGenerator, Callable
from functools import partial

import msgspec
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp

from edge.hang_up import EventStream
from edge.serving import CutError
from router.api.asking import Asker
from router.api.exchange import Exchange, json_answer, post_route, unchanged_answer
from router.api.failures import error_body
from router.api.render import ChatDialect, Dialect, TextDialect
from router.cache.entry import Stamp
from router.decision import Rules
from router.errors import DrainingError, RouterError
from router.pipeline import StreamedAnswer
from router.query import Query, RawPrompts
from router.wire import ChatRequest, CompletionRequest

CHAT_URL = "/v1/chat/completions"
TEXT_URL = "/v1/completions"
_MOST_TOGETHER = 64
_encode = msgspec.json.encode


def chat_routes() -> list[ASGIRouteHandler]:
    """The two handlers."""
    chat_decoder = msgspec.json.Decoder(ChatRequest)
    text_decoder = msgspec.json.Decoder(CompletionRequest)

    async def chat_work(exchange: Exchange, asker: Asker, content: bytes) -> ASGIApp:
        body = chat_decoder.decode(content)
        speak = partial(ChatDialect, model=body.model, logprobs=bool(body.logprobs), include_usage=body.include_usage)
        return await _generate(exchange, asker, body, speak)

    async def text_work(exchange: Exchange, asker: Asker, content: bytes) -> ASGIApp:
        body = text_decoder.decode(content)
        logprobs = body.logprobs is not None
        speak = partial(TextDialect, model=body.model, logprobs=logprobs, include_usage=body.include_usage)
        return await _generate(exchange, asker, body, speak)

    return [post_route(CHAT_URL, chat_work), post_route(TEXT_URL, text_work)]


async def _generate(
    exchange: Exchange, asker: Asker, body: ChatRequest | CompletionRequest, speak: Callable[[Stamp], Dialect]
) -> ASGIApp:
    query = asker.complete(body.query())
    rules = asker.rules(body.model, body.needs())
    exchange.asked_model = body.model
    exchange.take_quota(query)
    if body.stream:
        return await _stream(exchange, asker, body, query, rules, speak)
    answer = await exchange.service.pipeline.answer(query, rules, asker.caching, exchange.watch)
    exchange.usage = answer.completion.usage
    headers = exchange.served(answer.origin, streamed=False)
    await exchange.explain(query)
    if asker.caching.has(answer.origin.stamp.answer_id):
        return unchanged_answer(headers)
    return json_answer(_encode(speak(answer.origin.stamp).whole(answer.completion)), headers)


async def _stream(
    exchange: Exchange,
    asker: Asker,
    body: ChatRequest | CompletionRequest,
    query: Query,
    rules: Rules,
    speak: Callable[[Stamp], Dialect],
) -> ASGIApp:
    streamed = await exchange.service.pipeline.stream(query, rules, asker.caching, exchange.watch)
    headers = exchange.served(streamed.origin, streamed=True)
    if asker.caching.has(streamed.origin.stamp.answer_id):
        await streamed.pieces.aclose()
        return unchanged_answer(headers)
    prompts = len(query.prompt.texts) if isinstance(query.prompt, RawPrompts) else 1
    dialect = speak(streamed.origin.stamp)
    answers = prompts * query.parameters.n
    events = _events(exchange, streamed, dialect, answers=answers, include_usage=body.include_usage)
    return EventStream(events, headers, partial(_release, exchange, query, streamed))


async def _events(
    exchange: Exchange, streamed: StreamedAnswer, dialect: Dialect, *, answers: int, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The stream's events, those together that are here together; a failure after the first byte is an `error` event,
    never silence.
    """
    pieces = streamed.pieces
    ready = [_event(chunk) for chunk in dialect.opening(answers)]
    try:
        with exchange.service.drain.holding():
            async for delta in pieces.for_client():
                exchange.usage = delta.usage or exchange.usage
                if delta.usage is None:
                    ready.append(_event(dialect.piece(delta)))
                if ready and not (pieces.has_more() and len(ready) < _MOST_TOGETHER):
                    yield b"".join(ready)
                    ready = []
            if include_usage and exchange.usage is not None:
                ready.append(_event(dialect.closing(exchange.usage)))
            ready.append(b"data: [DONE]\n\n")
    except CutError:
        exchange.error = DrainingError("This router stopped before the answer was complete.")
    except RouterError as exc:
        exchange.error = exc
    if exchange.error is not None:
        ready.append(b"event: error\ndata: " + error_body(exchange.error) + b"\n\n")
    if ready:
        yield b"".join(ready)


async def _release(exchange: Exchange, query: Query, streamed: StreamedAnswer) -> None:
    try:
        await streamed.pieces.aclose()
        await exchange.explain(query)
    finally:
        exchange.finish(exchange.error.status if exchange.error else 200)


def _event(chunk: msgspec.Struct) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"
