"""Sending spans over OTLP/HTTP: bounded, counted, in a thread of its own."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from router.config.tracing import Tracing as TracingSection

_logger = logging.getLogger(__name__)
_EVERY_S: Final = 1.0
_BATCH_SPANS: Final = 512


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
