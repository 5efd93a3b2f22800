"""A receiver of OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp), as small as one can be."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import Receive, Scope, Send

_LIMIT_S = 20.0


@dataclass
class OtlpReceiver:
    """An ASGI application that keeps the spans sent to it; `raw` is all that came."""

    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    raw: bytes = b""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message.get("more_body", False)
        self.raw += content
        for one in ExportTraceServiceRequest.FromString(content).resource_spans:
            self.services |= {a.value.string_value for a in one.resource.attributes if a.key == "service.name"}
            self.spans += [span for scoped in one.scope_spans for span in scoped.spans]
        self._news.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def wait_tree(self, request_id: str) -> tuple[Span, list[Span]]:
        """The server span of a request, and its children in the order of their begin.

        Children end first, so they are here when their parent is.
        """
        async with asyncio.timeout(_LIMIT_S):
            while (root := self._find_root(request_id)) is None:
                self._news.clear()
                await self._news.wait()
        children = [span for span in self.spans if span.parent_span_id == root.span_id]
        assert {span.trace_id for span in children} <= {root.trace_id}
        return root, sorted(children, key=lambda span: span.start_time_unix_nano)

    def _find_root(self, request_id: str) -> Span | None:
        return next(
            (s for s in self.spans if s.kind == Span.SPAN_KIND_SERVER and read(s)["hybrid.request_id"] == request_id),
            None,
        )


def read(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
