"""`GET /v1/canaries`, for operators: two versions side by side."""

from collections.abc import Sequence

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Struct

from router.api.asking import Asker
from router.api.exchange import Exchange, HttpRequest, Service, converse, json_answer
from router.errors import ForbiddenError
from router.lanes import Kind

URL = "/v1/canaries"


class VersionReport(Struct, frozen=True):
    """One of two versions since the router started: generations begun and done, with the mean time in their slot.

    `failed` calls brought nothing, or not even a stream's first piece; another version or tier may have answered then.
    """

    target: str
    version: str
    up: bool
    share: float
    started: int
    done: int
    failed: int
    mean_s: float | None
    prompt_tokens: int
    completion_tokens: int


class CanaryReport(Struct, frozen=True):
    """A target and its canary."""

    stable: VersionReport
    canary: VersionReport


class CanariesReport(Struct, frozen=True):
    """All pairs."""

    pairs: Sequence[CanaryReport]


def canary_routes() -> list[HTTPRouteHandler]:
    """The handler."""

    @get(URL)
    async def canaries(request: HttpRequest) -> ASGIApp:
        return await converse(request, URL, _report)

    return [canaries]


async def _report(exchange: Exchange, asker: Asker, _: bytes) -> ASGIApp:
    if not asker.client.operator:
        raise ForbiddenError("Only an operator's key may see the canaries (`operator: true` in the keys file).")
    service, canaries = exchange.service, exchange.service.canaries
    pairs = [
        CanaryReport(
            _report_version(service, stable, 1.0 - canaries.share(name)),
            _report_version(service, name, canaries.share(name)),
        )
        for name, stable in canaries.pairs.items()
    ]
    return json_answer(msgspec.json.encode(CanariesReport(pairs)), {"x-request-id": asker.request_id})


def _report_version(service: Service, target: str, share: float) -> VersionReport:
    lanes = [one for one in service.lanes.statistics() if (one.target, one.kind) == (target, Kind.CHAT)]
    counts = [each.count for lane in lanes for each in lane.now.classes.values()]
    done = sum(count.done for count in counts)
    tokens = service.telemetry.tokens(service.config.targets[target].tier, target)
    return VersionReport(
        target=target,
        version=service.health.versions()[target],
        up=target in service.health.up(),
        share=share,
        started=sum(count.started for count in counts),
        done=done,
        failed=service.telemetry.failures(target),
        mean_s=sum(count.service_s for count in counts) / done if done else None,
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
    )
