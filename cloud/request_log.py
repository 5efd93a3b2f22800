"""One JSON line a request to `chat`, on stdout, which the launcher passes on. Prompts and answers never enter here."""

import sys
import time

import msgspec

from cloud.responder import Exchange

_encode = msgspec.json.encode


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request that is over; `request_id` is the router's, `finish` that of the first choice."""

    request_id: str
    model: str
    finish: str = ""
    error: str | None = None
    prompt_tokens: int
    completion_tokens: int
    total_ms: float


class RequestLog:
    """For the responder's thread."""

    def __init__(self, model: str) -> None:
        self._model = model

    def write(self, exchange: Exchange) -> None:
        """A request is over."""
        reply, error = exchange.reply, exchange.error
        record = RequestRecord(
            request_id=exchange.asked_as,
            model=self._model,
            finish="" if error else reply.first_finish,
            error=type(error).__name__ if error else None,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            total_ms=round((time.monotonic() - exchange.arrived) * 1e3, 1),
        )
        # in one write, so that no line of tritonserver's own ends up within
        sys.stdout.write(_encode(record).decode() + "\n")
        sys.stdout.flush()
