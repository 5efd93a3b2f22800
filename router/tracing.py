"""
Traces of requests, as OpenTelemetry's GenAI conventions name things
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/).

A request is one server span, each call of a target a client span below it: a hit has none, an escalation or a fallback
two. Imported only where the configuration has a `tracing` section; without one no request meets any of this.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final, Self

from opentelemetry.context import Context, attach
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.backends import Backend
from router.config import AnyTarget
from router.config.tracing import Tracing as TracingSection
from router.request_log import RequestRecord
from router.span_export import BoundedQueue, CountedExporter
from router.traced_backend import Operation, TracedBackend

_LONGEST_CHARACTERS: Final = 16_384
_SERVER_ERROR: Final = 500
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_PARENT: Final = "traceparent"
_NOWHERE: Final = Context()

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
