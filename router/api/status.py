"""`/v1/models`, `/v1/route`, `/health/live`, `/health/ready` and `/metrics`."""

import msgspec
from litestar import get
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec import UNSET, Struct

from edge import wire
from router.api.asking import Asker
from router.api.exchange import Exchange, HttpRequest, Service, json_answer, post_route
from router.choosing import ExplainedDecision
from router.decision import AUTO, Tier
from router.errors import UnknownModelError
from router.processes.metrics_text import join_metrics
from router.processes.siblings import AskMetrics
from router.wire import ChatRequest

ROUTE_URL = "/v1/route"
_encode = msgspec.json.encode


class RouteExplanation(Struct, frozen=True):
    """What `/v1/route` says: the decision, and the log-odds that each signal added to the score.

    `reason` is the rule that decided. With `check` the edge's answer would be judged first, so that the final word
    could still be "escalated". `shift` is how far load moved the threshold, in log-odds.
    """

    target: str
    tier: str
    reason: str
    policy: str
    threshold: float
    shift: float
    score: float | None
    evidence: str | None
    check: bool
    artifact: str | None
    degraded: bool
    fallback: str | None
    signals: dict[str, float]


class Readiness(Struct, frozen=True):
    """What `/health/ready` says."""

    ready: bool
    targets: dict[str, bool]


def status_routes() -> list[HTTPRouteHandler | ASGIRouteHandler]:
    """All handlers of this module; health and metrics are open, so that probes need no key."""
    return [_route_handler(), *_model_handlers(), *_health_handlers()]


def _route_handler() -> ASGIRouteHandler:
    decoder = msgspec.json.Decoder(ChatRequest)

    async def work(exchange: Exchange, asker: Asker, content: bytes) -> ASGIApp:
        body = decoder.decode(content)
        query = asker.complete(body.query())
        exchange.take_quota(None)
        service = exchange.service
        rules = service.canaries.draw(query, asker.rules(body.model, body.needs()), service.health.up)
        explained = await service.chooser.explain(query, rules)
        return json_answer(_encode(_explain(exchange.service, explained)), exchange.answered(explained.decision))

    return post_route(ROUTE_URL, work)


def _explain(service: Service, explained: ExplainedDecision) -> RouteExplanation:
    decision = explained.decision
    return RouteExplanation(
        target=decision.target.name,
        tier=decision.tier,
        reason=decision.reason,
        policy=service.policy_kind,
        threshold=decision.threshold,
        shift=decision.shift,
        score=decision.score.value if decision.score else None,
        evidence=decision.score.evidence if decision.score else None,
        check=decision.on_trial,
        artifact=service.scorer.artifact,
        degraded=decision.degraded,
        fallback=decision.fallback.name if decision.fallback else None,
        signals=dict(explained.signals),
    )


def _model_handlers() -> list[HTTPRouteHandler]:
    @get("/v1/models")
    async def models(request: HttpRequest) -> ASGIApp:
        service = _service(request)
        service.admission.admit(request.headers.get("authorization"))
        return json_answer(_encode(wire.ModelList(_models(service))), {})

    @get("/v1/models/{name:str}")
    async def model(request: HttpRequest, name: FromPath[str]) -> ASGIApp:
        service = _service(request)
        service.admission.admit(request.headers.get("authorization"))
        found = next((model for model in _models(service) if model.id == name), None)
        if found is None:
            raise UnknownModelError(f"The model `{name}` does not exist or you do not have access to it.")
        return json_answer(_encode(found), {})

    return [models, model]


def _health_handlers() -> list[HTTPRouteHandler]:
    @get("/health/live")
    async def live() -> ASGIApp:
        return json_answer(b'{"live":true}', {})

    @get("/health/ready")
    async def ready(request: HttpRequest) -> ASGIApp:
        service = _service(request)
        targets = service.health.targets()
        good = any(targets.values()) and not service.drain.leaving
        return ASGIResponse(
            body=_encode(Readiness(good, targets)), media_type="application/json", status_code=200 if good else 503
        )

    @get("/metrics")
    async def metrics(request: HttpRequest) -> ASGIApp:
        return ASGIResponse(body=await _render_metrics(_service(request)), media_type="text/plain; version=0.0.4")

    return [live, ready, metrics]


async def _render_metrics(service: Service) -> bytes:
    """Those of all processes; one that does not answer is missing, and said to be."""
    siblings = service.siblings
    if not siblings.others:
        return service.telemetry.render()
    pages = {**await siblings.ask_each(AskMetrics()), siblings.index: service.telemetry.render()}
    return join_metrics(dict(sorted(pages.items())))


def _service(request: HttpRequest) -> Service:
    service: Service = request.app.state.service
    return service


def _models(service: Service) -> list[wire.Model]:
    """What `model` may name; of a target that says so, with its version."""
    targets = [wire.Model(name, version=version or UNSET) for name, version in service.health.versions().items()]
    return [*(wire.Model(name) for name in (AUTO, *Tier)), *targets]
