"""One request and its answer: the course that every handler's work takes, from headers to metrics."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, asgi
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from edge.hang_up import HangUpError, until_hang_up
from edge.serving import CutError, Drain
from router.admission import Admission
from router.api.asking import Asker, read_fields, read_headers
from router.api.body import read_body
from router.api.failures import describe_invalid, error_body
from router.cache.plan import CacheStatus
from router.cache.statistics import Caches
from router.canaries import Canaries
from router.choosing import Chooser
from router.config import Config
from router.decision import Decision, Evidence, log_odds
from router.errors import DrainingError, OverloadedError, QuotaError, RouterError, UnavailableError
from router.health import Health
from router.lanes import Lanes
from router.metering import Charge, Meter
from router.pipeline import Origin, Pipeline
from router.processes.siblings import Siblings
from router.query import EmbeddingQuery, Query, Usage
from router.request_log import RequestRecord
from router.scoring import Scorer
from router.steering import Steering
from router.telemetry import Stopwatch, Telemetry

if TYPE_CHECKING:
    from router.tracing import Trace, Tracing  # an extra: its packages may be missing

HttpRequest = Request[Any, Any, Any]
EMBEDDING_URL = "/v1/embeddings"
_CLIENT_CLOSED = 499  # nginx's status for it; nobody reads the answer, metrics and log do


@dataclass(frozen=True)
class Service:
    """The parts that a handler needs, made once by `router.app`."""

    config: Config
    admission: Admission
    chooser: Chooser
    pipeline: Pipeline
    health: Health
    scorer: Scorer
    telemetry: Telemetry
    drain: Drain
    meter: Meter
    lanes: Lanes
    steering: Steering
    canaries: Canaries
    siblings: Siblings
    caches: Caches | None = None
    tracing: "Tracing | None" = None

    @cached_property
    def policy_kind(self) -> str:
        """As the configuration names it."""
        return str(self.config.policy.__struct_config__.tag)


@dataclass(slots=True)
class Exchange:
    """A request, and what became of it so far."""

    service: Service
    url: str
    watch: Stopwatch
    asker: Asker | None = None
    decision: Decision | None = None
    cache: CacheStatus = CacheStatus.BYPASS
    usage: Usage | None = None
    error: RouterError | None = None
    charge: Charge | None = None
    signals: Mapping[str, float] = field(default_factory=dict)
    asked_model: str = ""
    trace: "Trace | None" = None

    @property
    def tenant(self) -> str:
        """Whose key it is; empty until that is known."""
        return self.asker.client.tenant if self.asker else ""

    @property
    def request_id(self) -> str:
        """The client's own, or ours; empty for a request whose headers were refused."""
        return self.asker.request_id if self.asker else ""

    def take_quota(self, query: Query | EmbeddingQuery | None) -> None:
        """Charge the request to its tenant, with what the query may take.

        Raises:
            QuotaError: the tenant has too little left.
        """
        self.charge = self.service.meter.charge(self.tenant, query)

    def headers(self) -> dict[str, str]:
        """What every answer says, also a refusal."""
        limits = self.service.meter.headers(self.tenant) if self.asker else {}
        return {"x-request-id": self.request_id, **limits}

    def served(self, origin: Origin, *, streamed: bool) -> dict[str, str]:
        """An answer can begin that others may get too: what its headers say."""
        headers = self.answered(origin.decision, origin.status)
        answer_id = origin.stamp.answer_id
        # the pieces of a stream differ from one telling to the next, its content does not
        headers["etag"] = f'W/"{answer_id}"' if streamed else f'"{answer_id}"'
        if origin.status.stored:
            headers["age"] = str(int(origin.age_s))
        if origin.stale:
            headers["x-degraded"] = "stale"
        return headers

    def answered(self, decision: Decision, status: CacheStatus = CacheStatus.BYPASS) -> dict[str, str]:
        """The answer can begin: what its headers say."""
        self.decision = decision
        self.cache = status
        self.watch.answered()
        headers = {
            **self.headers(),
            "x-route-tier": decision.tier,
            "x-route-target": decision.target.name,
            "x-route-reason": decision.reason,
            "x-cache": status,
            "x-queue-ms": f"{self.watch.queue_s * 1e3:.1f}",
            "x-overhead-ms": f"{self.watch.overhead_s() * 1e3:.2f}",
        }
        if decision.score is not None:
            headers["x-route-score"] = f"{decision.score.value:.4f}"
            headers["x-route-evidence"] = decision.score.evidence
        if decision.degraded:
            headers["x-degraded"] = decision.reason
        return headers

    async def explain(self, query: Query) -> None:
        """Find out what the score was made of, where the log is to say so."""
        decision, service = self.decision, self.service
        if not service.telemetry.log.explains or decision is None or decision.score is None:
            return
        explanation = await service.scorer.explain(query, decision.threshold)
        self.signals = explanation.signals
        if decision.score.evidence is Evidence.ANSWER:
            moved = log_odds(decision.score.value) - log_odds(explanation.score.value)
            self.signals = {**self.signals, "answer": moved}

    def finish(self, status: int) -> None:
        """The request is over, one way or another."""
        self._settle_quota()
        decision, usage, watch = self.decision, self.usage or Usage(), self.watch
        score = decision.score if decision else None
        record = RequestRecord(
            request_id=self.request_id,
            url=self.url,
            status=status,
            tenant=self.tenant,
            tier=decision.tier if decision else "",
            target=decision.target.name if decision else "",
            reason=decision.reason if decision else "",
            score=score.value if score else None,
            evidence=score.evidence if score else "",
            threshold=decision.threshold if decision and score else None,
            shift=decision.shift if decision else 0.0,
            policy=self.service.policy_kind if score else "",
            artifact=(self.service.scorer.artifact or "") if score else "",
            signals=self.signals,
            cache=self.cache,
            degraded=decision.degraded if decision else False,
            error=self.error.code or self.error.type if self.error else None,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_ms=round(watch.elapsed_s() * 1e3, 3),
            queue_ms=round(watch.queue_s * 1e3, 3),
            overhead_ms=round(watch.overhead_s() * 1e3, 3),
            first_ms=None if watch.first_s is None else round(watch.first_s * 1e3, 3),
            trace_id=self.trace.trace_id if self.trace else "",
        )
        self.service.telemetry.finish(record)
        if self.trace is not None:
            self.trace.finish(record, asked=self.asked_model, answered=self._answered_model())

    def _answered_model(self) -> str:
        """By the name that its target knows."""
        if self.decision is None:
            return ""
        target = self.service.config.targets.get(self.decision.target.name)
        if target is None:  # of an answer that was stored before the configuration changed
            return ""
        return (target.embedding_model if self.url == EMBEDDING_URL else target.chat_model) or ""

    def _settle_quota(self) -> None:
        """What the target took; all of the estimate where work was broken off and nobody knows."""
        if self.charge is None:
            return
        made = not self.cache.stored
        if made and self.usage is not None:
            self.charge.learn(self.usage)
            self.charge.settle(self.usage)
        elif not made or self.error is not None or not self.watch.backend_s:
            self.charge.settle(Usage())


Work = Callable[[Exchange, Asker, bytes], Awaitable[ASGIApp]]


def post_route(url: str, work: Work) -> ASGIRouteHandler:
    """`POST url` as an ASGI handler of Litestar's: what its HTTP handlers find out of a request first (arguments,
    dependencies, kinds of response) nobody here asks for, and it took a tenth of a cache hit's time.
    """

    @asgi(url, copy_scope=False)
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "POST":
            raise MethodNotAllowedException
        answer = await converse(scope, receive, url, work)
        await answer(scope, receive, send)

    return handle


async def converse(scope: Scope, receive: Receive, url: str, work: Work) -> ASGIApp:
    """Admit the request, do its work until the client hangs up or the server stops, answer, count.

    `work` gets the body undecoded and may raise `RouterError` or msgspec's errors.
    """
    service: Service = scope["litestar_app"].state.service
    exchange = Exchange(service, url, Stopwatch())
    service.telemetry.begin()
    try:
        answer = await _work(scope, receive, exchange, work)
    except HangUpError:
        exchange.finish(_CLIENT_CLOSED)
        return WholeAnswer(_CLIENT_CLOSED, b"", {})
    except RouterError as exc:
        exchange.error = exc
        exchange.finish(exc.status)
        return error_answer(exc, exchange.headers())
    except BaseException:
        exchange.finish(RouterError.status)
        raise
    if isinstance(answer, WholeAnswer):  # a stream is finished by its own end
        exchange.finish(answer.status)
    return answer


class WholeAnswer:
    """An answer in one piece: Litestar's own response, for all that it can do besides, costs several times as much."""

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self._content = content
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        if content:
            self._headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await send({"type": "http.response.start", "status": self.status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._content, "more_body": False})


def json_answer(content: bytes, headers: dict[str, str]) -> WholeAnswer:
    """A whole answer."""
    return WholeAnswer(200, content, headers)


def unchanged_answer(headers: dict[str, str]) -> WholeAnswer:
    """The client has the answer already."""
    return WholeAnswer(304, b"", headers)


def error_answer(error: RouterError, headers: dict[str, str]) -> WholeAnswer:
    """OpenAI's error object, with what its status calls for."""
    return WholeAnswer(error.status, error_body(error), {**headers, **_when_to_retry(error)})


def _when_to_retry(error: RouterError) -> dict[str, str]:
    """`retry-after` is in whole seconds; the official SDKs read the milliseconds before it."""
    match error:
        case OverloadedError(retry_after_s=float(after_s)):
            return {"retry-after": str(max(ceil(after_s), 1)), "retry-after-ms": str(ceil(after_s * 1e3))}
        case QuotaError():  # it will never fit
            return {}
        case OverloadedError() | UnavailableError():
            return {"retry-after": "1"}
        case _:
            return {}


async def _work(scope: Scope, receive: Receive, exchange: Exchange, work: Work) -> ASGIApp:
    drain = exchange.service.drain
    if drain.begun:
        raise DrainingError("This router is stopping; send the request again.")
    service = exchange.service
    limits = service.config.limits
    fields = read_fields(scope["headers"])
    if service.tracing is not None:
        exchange.trace = service.tracing.begin(exchange.url, fields)
    exchange.asker = asker = read_headers(fields, service.admission, limits.deadline_s)
    try:
        content = await read_body(receive, fields, limits.body_bytes)
        with drain.holding():
            return await until_hang_up(receive, work(exchange, asker, content))
    except CutError:
        raise DrainingError("This router stopped before the answer was ready.") from None
    except msgspec.MsgspecError as exc:
        raise describe_invalid(exc) from exc
