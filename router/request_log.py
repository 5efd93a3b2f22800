"""One JSON line a request, written behind the requests' back."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

import msgspec

_GATHERED_S: Final = 0.05


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request that is over: a line of the log, and what the metrics count."""

    request_id: str
    url: str
    status: int
    tenant: str = ""
    tier: str = ""
    target: str = ""
    reason: str = ""
    score: float | None = None
    evidence: str = ""
    threshold: float | None = None
    shift: float = 0.0
    policy: str = ""
    artifact: str = ""
    signals: Mapping[str, float] = {}
    cache: str = "bypass"
    degraded: bool = False
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_ms: float = 0.0
    queue_ms: float = 0.0
    overhead_ms: float = 0.0
    first_ms: float | None = None
    trace_id: str = ""


class RequestLog:
    """Lines of the logger `router.requests`, in order, with `run()` as a job.

    What ends within a twentieth of a second is written at once: to write alone would cost a request 20 to 100 us of the
    event loop, more than a cache's hit has to spare. A kill may lose that long, a stop does not.
    """

    def __init__(self) -> None:
        self._log = logging.getLogger("router.requests")
        self._encode = msgspec.json.Encoder().encode_lines
        self._waiting: list[RequestRecord] = []
        self._news = asyncio.Event()

    @property
    def explains(self) -> bool:
        """Whether each line is to say what its score was made of, which costs a computation more."""
        return self._log.isEnabledFor(logging.DEBUG)

    def add(self, record: RequestRecord) -> None:
        """Another line, unless the level leaves them out."""
        if not self._log.isEnabledFor(logging.INFO):
            return
        if not self._waiting:
            self._news.set()
        self._waiting.append(record)

    def write(self) -> None:
        """What waits, in one piece: who reads the log sees lines, whoever wrote them together."""
        records, self._waiting = self._waiting, []
        if records:
            self._log.info("%s", self._encode(records).decode().removesuffix("\n"))

    async def run(self) -> None:
        """Write again and again; a job."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await asyncio.sleep(_GATHERED_S)
                self.write()
        finally:
            self.write()
