"""`GET /v1/lanes`, for operators."""

from collections.abc import Mapping, Sequence

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Struct

from router.api.asking import Asker
from router.api.exchange import Exchange, HttpRequest, converse, json_answer
from router.errors import ForbiddenError
from router.lanes import LaneReport
from router.pressure import Statistics

URL = "/v1/lanes"


class LanesReport(Struct, frozen=True):
    """Every lane, where load has moved the threshold, and which targets are up."""

    lanes: Sequence[LaneReport]
    pressure: Statistics
    targets: Mapping[str, bool]


def lane_routes() -> list[HTTPRouteHandler]:
    """The handler."""

    @get(URL)
    async def statistics(request: HttpRequest) -> ASGIApp:
        return await converse(request, URL, _report)

    return [statistics]


async def _report(exchange: Exchange, asker: Asker, _: bytes) -> ASGIApp:
    if not asker.client.operator:
        raise ForbiddenError("Only an operator's key may see the lanes (`operator: true` in the keys file).")
    service = exchange.service
    report = LanesReport(service.lanes.statistics(), service.steering.statistics(), service.health.targets())
    return json_answer(msgspec.json.encode(report), {"x-request-id": asker.request_id})
