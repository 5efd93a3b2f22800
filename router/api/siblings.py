"""What a process says of itself when another one of the same router is asked for all."""

from msgspec.json import encode

from router.api.canaries import CANARIES
from router.api.exchange import Service
from router.api.lanes import LANES
from router.processes.siblings import AnyQuestion, AskCaches, AskCanaries, AskFlush, AskLanes, AskMetrics


async def answer_sibling(service: Service, question: AnyQuestion) -> bytes:
    """The answer; empty when there is none."""
    caches = service.caches
    match question:
        case AskMetrics():
            return service.telemetry.render()
        case AskLanes():
            return encode(LANES.make(service))
        case AskCanaries():
            return encode(CANARIES.make(service))
        case AskCaches() if caches is not None:
            return encode(caches.report())
        case AskFlush() if caches is not None:
            return encode(await caches.flush(question.selector, dry_run=question.dry_run))
        case _:
            return b""
