"""Reports for operators: each process makes its own, and whichever is asked gives that of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from router.api.asking import Asker
from router.api.exchange import Exchange, HttpRequest, Service, converse, json_answer
from router.errors import ForbiddenError
from router.processes.siblings import AnyQuestion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report(Generic[T]):
    """What `GET url` answers: `make` says it of one process, `total` of several, and `question` asks the others."""

    url: str
    subject: str
    kind: type[T]
    question: AnyQuestion
    make: Callable[[Service], T]
    total: Callable[[Sequence[T]], T]

    def route(self) -> HTTPRouteHandler:
        """The handler."""

        @get(self.url)
        async def report(request: HttpRequest) -> ASGIApp:
            return await converse(request.scope, request.receive, self.url, self._answer)

        return report

    async def _answer(self, exchange: Exchange, asker: Asker, _: bytes) -> ASGIApp:
        admit_operator(asker, self.subject)
        own = self.make(exchange.service)
        others = await exchange.service.siblings.ask(self.question, self.kind)
        return json_answer(msgspec.json.encode(self.total([own, *others])), {"x-request-id": asker.request_id})


def admit_operator(asker: Asker, subject: str) -> None:
    """
    Raises:
        ForbiddenError: a key that is no operator's.
    """
    if not asker.client.operator:
        raise ForbiddenError(f"Only an operator's key may see {subject} (`operator: true` in the keys file).")
