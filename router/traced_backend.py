"""A target's calls as client spans, named as OpenTelemetry's GenAI conventions name things."""

from asyncio import CancelledError
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from enum import StrEnum
from typing import Any, Final, Self

import msgspec
from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.backends import Backend
from router.config import AnyTarget, OpenAITarget
from router.errors import RouterError
from router.query import Completion, Conversation, Delta, EmbeddingQuery, Embeddings, Query, Usage

CONTENT: Final = ("gen_ai.input.messages", "gen_ai.output.messages")
"""The attributes that hold what was asked and answered."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_encode = msgspec.json.encode


class Operation(StrEnum):
    """`gen_ai.operation.name`; the last is ours, for a decision without inference."""

    CHAT = "chat"
    TEXT = "text_completion"
    EMBEDDINGS = "embeddings"
    ROUTE = "route"


class TracedBackend:
    """A backend whose calls for traced requests are client spans; `Query.trace_headers` tells the target which."""

    def __init__(self, backend: Backend, tracer: Tracer, target: AnyTarget, *, record_content: bool) -> None:
        self._backend = backend
        self._tracer = tracer
        self._record_content = record_content
        self._chat_model = target.chat_model or ""
        self._embedding_model = target.embedding_model or ""
        self._place = _describe_place(target)

    @property
    def version(self) -> str:
        """See `router.backends.Backend`."""
        return self._backend.version

    async def complete(self, query: Query) -> Completion:
        """See `router.backends.Backend`."""
        if not _is_traced():
            return await self._backend.complete(query)
        with self._call(_operation(query), self._chat_model, query) as span:
            completion = await self._backend.complete(replace(query, trace_headers=_headers(span)))
            if span.is_recording():
                span.set_attributes(_usage(completion.usage))
                finishes = [choice.finish.value for choice in completion.choices]
                span.set_attribute("gen_ai.response.finish_reasons", finishes)
                texts = [choice.text for choice in completion.choices]
                self._record(span, query, texts)
            return completion

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """See `router.backends.Backend`."""
        stream = self._stream(query) if _is_traced() else self._backend.stream(query)
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        """See `router.backends.Backend`."""
        if not _is_traced():
            return await self._backend.embed(query)
        with self._call(Operation.EMBEDDINGS, self._embedding_model, query) as span:
            embeddings = await self._backend.embed(replace(query, trace_headers=_headers(span)))
            span.set_attribute("gen_ai.usage.input_tokens", embeddings.prompt_tokens)
            return embeddings

    async def ready(self) -> bool:
        """See `router.backends.Backend`; probes are no spans."""
        return await self._backend.ready()

    async def __aenter__(self) -> Self:
        await self._backend.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._backend.__aexit__(*exc)

    async def _stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        with self._call(_operation(query), self._chat_model, query) as span:
            told = Told(span)
            asked = replace(query, trace_headers=_headers(span))
            try:
                async with aclosing(self._backend.stream(asked)) as deltas:
                    async for delta in deltas:
                        told.add(delta, content=self._record_content)
                        yield delta
            finally:
                if span.is_recording():
                    span.set_attributes(told.describe())
                    self._record(span, query, ["".join(told.texts)])

    @contextmanager
    def _call(self, operation: Operation, model: str, query: Query | EmbeddingQuery) -> Iterator[Span]:
        """A span below that of the current request."""
        attributes = {**self._place, "gen_ai.operation.name": operation, "hybrid.request_id": query.request_id}
        if model:
            attributes |= {"gen_ai.request.model": model}
        span = self._tracer.start_span(f"{operation} {model}".rstrip(), kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield span
            span.set_attribute("gen_ai.response.model", model)
        except RouterError as exc:
            span.set_attribute("error.type", exc.code or exc.type)
            span.set_status(StatusCode.ERROR)
            raise
        except (GeneratorExit, CancelledError):
            span.set_attribute("hybrid.stopped", True)  # nobody wants more of it: no failure of the target's
            raise
        finally:
            span.end()

    def _record(self, span: Span, query: Query, texts: Sequence[str]) -> None:
        """Prompt and answers, if they may be seen: what must stay on site does not go to a collector."""
        if not self._record_content or query.on_site:
            return
        prompt = query.prompt
        asked = (
            [_message(turn.role, turn.text) for turn in prompt.messages]
            if isinstance(prompt, Conversation)
            else [_message("user", text) for text in prompt.texts]
        )
        said = [_message("assistant", text) for text in texts]
        span.set_attributes(dict(zip(CONTENT, (_encode(asked).decode(), _encode(said).decode()), strict=True)))


class Told:
    """What a stream said so far."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._usage = Usage()
        self._finishes: list[str] = []
        self._began = False
        self.texts: list[str] = []

    def add(self, delta: Delta, *, content: bool) -> None:
        """Another piece."""
        if not self._began:
            self._began = True
            self._span.add_event("first piece")
        self._usage = delta.usage or self._usage
        if delta.finish is not None:
            self._finishes.append(delta.finish.value)
        if content:
            self.texts.append(delta.text)

    def describe(self) -> dict[str, Any]:
        """As attributes."""
        return {**_usage(self._usage), "gen_ai.response.finish_reasons": self._finishes}


def _describe_place(target: AnyTarget) -> dict[str, Any]:
    """Where a target is, as every span of its calls says."""
    address = target.url.split("/")[2] if isinstance(target, OpenAITarget) else target.address
    host, _, port = address.rpartition(":") if ":" in address.rpartition("]")[2] else (address, "", "")
    place = {
        "gen_ai.provider.name": target.__struct_config__.tag,
        "server.address": host.strip("[]"),
        "hybrid.route.tier": target.tier.value,
    }
    return place | ({"server.port": int(port)} if port else {})


def _is_traced() -> bool:
    """Whether some request's span is the current one: not for audits, nor for requests that were not drawn."""
    return get_current_span().get_span_context().is_valid


def _headers(span: Span) -> dict[str, str]:
    """W3C `traceparent`, and `tracestate` where the client sent one."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
    return headers


def _operation(query: Query) -> Operation:
    return Operation.CHAT if isinstance(query.prompt, Conversation) else Operation.TEXT


def _usage(usage: Usage) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": usage.prompt_tokens, "gen_ai.usage.output_tokens": usage.completion_tokens}


def _message(role: str, text: str) -> dict[str, Any]:
    """A message as the conventions' JSON schema has it."""
    return {"role": role, "parts": [{"type": "text", "content": text}]}
