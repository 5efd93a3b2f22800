"""The section of traces."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from router.config.section import Seconds, Section, Share


class Tracing(Section, frozen=True, kw_only=True):
    """Where spans go: an OTLP/HTTP receiver, as a rule a collector nearby. Needs the extra `tracing`.

    Of the requests without a `traceparent`, `sample_share` are traced; whoever sends one decides by its flag. Up to
    `queue_spans` wait to be sent, what comes on top is dropped and counted. An export takes at most `timeout_s`.
    Credentials come from the environment (OTEL_EXPORTER_OTLP_HEADERS). `record_content` puts prompts and answers into
    spans, but for `edge-only` data.
    """

    endpoint: Annotated[str, Meta(pattern=r"^https?://[^/]+/.+$")]
    sample_share: Share = 1.0
    timeout_s: Seconds = 5.0
    queue_spans: Annotated[int, Meta(ge=64, le=1_000_000)] = 4096
    ca_file: Path | None = None
    record_content: bool = False
