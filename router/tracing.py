"""
Traces of requests, as OpenTelemetry's GenAI conventions name things
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/).

A request is one server span, each call of a target a client span below it: a hit has none, an escalation or a fallback
two. Imported only where the configuration has a `tracing` section; without one no request meets any of this.
"""

import asyncio
import logging
import random
import time
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from enum import StrEnum
from importlib.metadata import version
from typing import Any, Final, Self

import msgspec
from msgspec.structs import replace
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.backends import Backend
from router.config import AnyTarget, OpenAITarget
from router.config.tracing import Tracing as TracingSection
from router.errors import RouterError
from router.query import Completion, Conversation, Delta, EmbeddingQuery, Embeddings, Query, Usage
from router.request_log import RequestRecord

_logger = logging.getLogger(__name__)
_LONGEST_CHARACTERS: Final = 16_384
_EVERY_S: Final = 1.0
_BATCH_SPANS: Final = 512
_SERVER_ERROR: Final = 500
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_PARENT: Final = "traceparent"
_NOWHERE: Final = Context()
CONTENT: Final = ("gen_ai.input.messages", "gen_ai.output.messages")
"""The attributes that hold what was asked and answered."""
_encode = msgspec.json.encode


class Operation(StrEnum):
    """`gen_ai.operation.name`; the last is ours, for a decision without inference."""

    CHAT = "chat"
    TEXT = "text_completion"
    EMBEDDINGS = "embeddings"
    ROUTE = "route"


_OPERATIONS: Final = {
    "/v1/chat/completions": Operation.CHAT,
    "/v1/completions": Operation.TEXT,
    "/v1/embeddings": Operation.EMBEDDINGS,
    "/v1/route": Operation.ROUTE,
}


class Trace:
    """One request's server span."""

    def __init__(self, span: Span, operation: Operation) -> None:
        self._span = span
        self._operation = operation

    @property
    def trace_id(self) -> str:
        """In hexadecimal; empty for a request that is not sampled."""
        return f"{self._span.get_span_context().trace_id:032x}" if self._span.is_recording() else ""

    def finish(self, record: RequestRecord, *, asked: str, answered: str) -> None:
        """The request is over.

        Args:
            record: What became of it.
            asked: The model of the request; empty if it was refused before that was read.
            answered: The model that answered; empty if none did.
        """
        span = self._span
        if span.is_recording():
            span.update_name(f"{self._operation} {asked}".rstrip())
            span.set_attributes(_describe(record, self._operation, asked, answered))
            if record.status >= _SERVER_ERROR:
                span.set_status(StatusCode.ERROR)
        span.end()


class Tracing(Collector):
    """`async with Tracing(config)`: spans are sent in a thread of its own; the end sends what still waits.

    As a metrics collector it tells what became of spans.
    """

    def __init__(self, config: TracingSection) -> None:
        self._config = config
        self._exporter = CountedExporter(config)
        self._queue = BoundedQueue(self._exporter, config.queue_spans)
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),  # who brings no parent was drawn before, in `begin`
            resource=Resource.create(
                {SERVICE_NAME: "hybrid-router", SERVICE_VERSION: version("hybrid-inference-router")}
            ),
            span_limits=SpanLimits(max_span_attribute_length=_LONGEST_CHARACTERS),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._queue)
        self.tracer: Tracer = self._provider.get_tracer("router")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._exporter.give_up_at = time.monotonic() + self._config.timeout_s
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._provider.shutdown()

    def begin(self, url: str, headers: Mapping[str, str]) -> Trace | None:
        """A request with these headers came in; the calls that it makes become its children.

        None for what only operators ask and for requests that were not drawn: they meet nothing more of OpenTelemetry.
        """
        # never detached: the request's task ends with it. An empty one at least, for the task's own context may be that
        # of an earlier request on the same connection.
        operation = _OPERATIONS.get(url)
        if operation is None or not (_PARENT in headers or self._draw()):
            attach(_NOWHERE)
            return None
        span = self.tracer.start_span(operation, _PROPAGATOR.extract(headers, _NOWHERE), SpanKind.SERVER)
        attach(set_span_in_context(span, _NOWHERE))
        return Trace(span, operation)

    def _draw(self) -> bool:
        return random.random() < self._config.sample_share  # noqa: S311 - a sample, no secret

    def watch(self, backend: Backend, target: AnyTarget) -> Backend:
        """The same backend, with a span for every call."""
        return TracedBackend(backend, self.tracer, target, record_content=self._config.record_content)

    def collect(self) -> Iterator[Metric]:
        """What became of spans."""
        spans = CounterMetricFamily("hybrid_trace_spans", "Spans by what became of them", labels=["outcome"])
        spans.add_metric(["exported"], self._exporter.exported)
        spans.add_metric(["failed"], self._exporter.failed)
        spans.add_metric(["dropped"], self._queue.dropped)
        yield spans


class CountedExporter(SpanExporter):
    """OTLP over HTTP; counts what was sent and what could not be. One thread calls it.

    It says once that a receiver does not answer and once that it does again; OpenTelemetry's own lines, one a batch,
    are left out.
    """

    def __init__(self, config: TracingSection) -> None:
        self._endpoint = config.endpoint
        ca = str(config.ca_file) if config.ca_file else None
        self._inner = OTLPSpanExporter(endpoint=config.endpoint, timeout=config.timeout_s, certificate_file=ca)
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._well = True
        self.taken = self.exported = self.failed = 0
        self.give_up_at = float("inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        self.taken += len(spans)
        late = time.monotonic() >= self.give_up_at
        result = SpanExportResult.FAILURE if late else self._inner.export(spans)
        well = result is SpanExportResult.SUCCESS
        if well:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
        if well is not self._well:
            self._well = well
            _logger.warning("Traces %s taken by %s.", "are again" if well else "are not", self._endpoint)
        return result

    def shutdown(self) -> None:
        """See OpenTelemetry."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


class BoundedQueue(BatchSpanProcessor):
    """OpenTelemetry's queue, which drops the oldest span when full and tells nobody; this drops the newest and counts.

    Each number is written by one thread alone, so none needs a lock.
    """

    def __init__(self, exporter: CountedExporter, most: int) -> None:
        batch = min(_BATCH_SPANS, most)
        super().__init__(exporter, most, schedule_delay_millis=_EVERY_S * 1e3, max_export_batch_size=batch)
        self._exporter = exporter
        self._most = most
        self._accepted = 0
        self.dropped = 0

    def on_end(self, span: ReadableSpan) -> None:
        """A span is complete."""
        if self._accepted - self._exporter.taken >= self._most:
            self.dropped += 1
            return
        self._accepted += 1
        super().on_end(span)


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


def _describe(record: RequestRecord, operation: Operation, asked: str, answered: str) -> dict[str, Any]:
    """A server span's attributes; what is not known has none."""
    known = {
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "url.path": record.url,
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "hybrid",
        "gen_ai.request.model": asked,
        "gen_ai.response.model": answered,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "error.type": record.error,
        "hybrid.request_id": record.request_id,
        "hybrid.tenant": record.tenant,
        "hybrid.route.tier": record.tier,
        "hybrid.route.target": record.target,
        "hybrid.route.reason": record.reason,
        "hybrid.route.score": record.score,
        "hybrid.route.evidence": record.evidence,
        "hybrid.route.threshold": record.threshold,
        "hybrid.cache": record.cache,
        "hybrid.degraded": record.degraded,
        "hybrid.queue_ms": record.queue_ms,
        "hybrid.overhead_ms": record.overhead_ms,
        "hybrid.first_ms": record.first_ms,
    }
    return {key: value for key, value in known.items() if value not in {None, ""}}


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
    _PROPAGATOR.inject(headers, set_span_in_context(span, _NOWHERE))
    return headers


def _operation(query: Query) -> Operation:
    return Operation.CHAT if isinstance(query.prompt, Conversation) else Operation.TEXT


def _usage(usage: Usage) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": usage.prompt_tokens, "gen_ai.usage.output_tokens": usage.completion_tokens}


def _message(role: str, text: str) -> dict[str, Any]:
    """A message as the conventions' JSON schema has it."""
    return {"role": role, "parts": [{"type": "text", "content": text}]}
