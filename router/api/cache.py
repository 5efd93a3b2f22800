"""`GET /v1/cache` (statistics) and `DELETE /v1/cache` (flush), for operators."""

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final

import msgspec
from litestar import delete
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from router.admission import TenantName
from router.api.asking import Asker
from router.api.exchange import Exchange, HttpRequest, Service, converse, json_answer
from router.api.reports import Report, admit_operator
from router.cache import FlushReport, Selector, TierName
from router.cache.statistics import CacheReport, Caches
from router.decision import AUTO, Tier
from router.errors import RequestError, UnknownUrlError
from router.processes.siblings import AskCaches, AskFlush, Siblings

URL = "/v1/cache"
_SUBJECT = "or flush the caches"
_SWITCHES = {"true": True, "false": False}
_audit = logging.getLogger("router.audit")
_encode = msgspec.json.encode


class FlushOrder(Struct, frozen=True, kw_only=True):
    """The query of `DELETE /v1/cache`. A `model` is a target's name; without tenant, model and tag all is flushed."""

    tenant: TenantName | None = None
    model: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    tag: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    dry_run: bool = False

    @property
    def selector(self) -> Selector:
        """Which records."""
        return Selector(self.tenant, self.model, self.tag)


class FlushAudit(Struct, frozen=True, kw_only=True):
    """One flush in the log `router.audit`; `records` is null for one that was broken off."""

    time: datetime
    action: str = "cache.flush"
    request_id: str
    tenant: str
    selector: Selector
    records: dict[TierName, int | None] | None


def cache_routes() -> list[HTTPRouteHandler]:
    """The two handlers."""

    @delete(URL, status_code=200)
    async def flush(request: HttpRequest) -> ASGIApp:
        return await converse(
            request.scope, request.receive, URL, partial(_flush, list(request.query_params.multi_items()))
        )

    return [CACHES.route(), flush]


async def _flush(query: list[tuple[str, str]], exchange: Exchange, asker: Asker, content: bytes) -> ASGIApp:
    admit_operator(asker, _SUBJECT)
    caches = _open(exchange.service)
    if content:  # a selector in it would be overlooked, and everything flushed
        raise RequestError("This request takes no body: say what to flush in the query.", code="invalid_value")
    order = read_order(query)
    report: FlushReport | None = None
    try:
        report = await _flush_everywhere(exchange.service.siblings, caches, order)
    finally:  # also one whose client hung up has begun
        if not order.dry_run:
            _write_audit(asker, order.selector, report)
    return json_answer(_encode(report), {"x-request-id": asker.request_id})


async def _flush_everywhere(siblings: Siblings, caches: Caches, order: FlushOrder) -> FlushReport:
    """In every process.

    Raises:
        SiblingError: one did not confirm it; all others flushed.
    """
    question = AskFlush(order.selector, order.dry_run)
    own, others = await asyncio.gather(
        caches.flush(order.selector, dry_run=order.dry_run),
        siblings.ask(question, FlushReport),
        return_exceptions=True,
    )
    if isinstance(own, BaseException):
        raise own
    if isinstance(others, BaseException):
        raise others
    return FlushReport.total([own, *others])


def read_order(query: list[tuple[str, str]]) -> FlushOrder:
    """Understand a query; what is misspelt must not widen the flush.

    Raises:
        RequestError: an unknown, repeated or bad parameter.
    """
    given = dict(query)
    known = FlushOrder.__struct_fields__
    for name in given:
        if name not in known:
            raise RequestError(
                f"Unknown parameter: '{name}'. Expected one of: {', '.join(known)}.",
                param=name,
                code="unknown_parameter",
            )
    if len(given) < len(query):
        raise RequestError("A parameter is given twice; flush one selection at a time.", code="invalid_value")
    switch = given.pop("dry_run", "false")
    if switch not in _SWITCHES:
        raise _invalid("dry_run", switch, "true or false")
    if given.get("model") in {AUTO, *Tier}:
        raise _invalid("model", given["model"], "the name of a target: records are kept by who answered")
    return msgspec.convert({**given, "dry_run": _SWITCHES[switch]}, FlushOrder)


def _invalid(name: str, value: str, expected: str) -> RequestError:
    return RequestError(f"Invalid '{name}': {value!r}. Expected {expected}.", param=name, code="invalid_value")


def _open(service: Service) -> Caches:
    """
    Raises:
        UnknownUrlError: there are no caches.
    """
    if service.caches is None:
        raise UnknownUrlError("This router keeps no caches.")
    return service.caches


def _write_audit(asker: Asker, selector: Selector, report: FlushReport | None) -> None:
    audit = FlushAudit(
        time=datetime.now(UTC),
        request_id=asker.request_id,
        tenant=asker.client.tenant,
        selector=selector,
        records=report.records if report else None,
    )
    _audit.info("%s", _encode(audit).decode())


CACHES: Final = Report(
    URL, _SUBJECT, CacheReport, AskCaches(), lambda service: _open(service).report(), CacheReport.total
)
