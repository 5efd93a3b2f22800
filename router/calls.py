"""One call of a target: in a slot, paid for however it ends, and with evidence while its answer is on trial."""

from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Final, Self

from msgspec.structs import replace

from router.backends import Backend
from router.decision import Decision
from router.errors import BackendError, OverloadedError, RefusedError, UnavailableError
from router.hold import Deltas, Holder, count_tokens
from router.lanes import TargetLane
from router.policy import Reservation
from router.query import Completion, Parameters, Query, Usage
from router.replies import Opening, Whole
from router.telemetry import Stopwatch

EVIDENCE_TOP: Final = 5
"""How many of the likeliest tokens the check looks at."""


class Caller:
    """Calls targets. A cancelled call, or a closed opening, cancels the work at the target and gives its slot back.

    Both methods raise `BackendError` or `OverloadedError`, and nothing else; `asked` is what the client gets to see.
    """

    def __init__(self, backends: Mapping[str, Backend], lanes: Mapping[str, TargetLane], holder: Holder) -> None:
        self._lanes = lanes
        self._backends = backends
        self._candid = {name: CandidBackend(backend) for name, backend in backends.items()}
        self._holder = holder

    async def complete(
        self, decision: Decision, reservation: Reservation, asked: Parameters, watch: Stopwatch
    ) -> Whole:
        """The whole answer."""
        query = reservation.query
        with Bill(reservation) as bill:
            async with self._lanes[decision.target.name].slot(query, watch) as run:
                bill.sent = True
                completion = await self._find(decision).complete(query)
                bill.usage = completion.usage
                run.finish(completion.usage)
        return Whole(completion, asked)

    async def begin(self, decision: Decision, reservation: Reservation, asked: Parameters, watch: Stopwatch) -> Opening:
        """The first piece, or as many as the hold takes while the answer is on trial."""
        deltas = self._stream(decision, reservation, watch)
        if decision.on_trial:
            held = await self._holder.hold(deltas)
            return Opening(held.pieces, held.ahead, asked, held.complete)
        if (first := await anext(deltas, None)) is None:
            raise BackendError("The stream ended before its first piece.")
        return Opening([first], deltas, asked)

    async def _stream(self, decision: Decision, reservation: Reservation, watch: Stopwatch) -> Deltas:
        """Begun by its first piece, so that whoever closes it gives back what it holds, the slot last."""
        query, tokens = reservation.query, 0
        with Bill(reservation) as bill:
            async with (
                self._lanes[decision.target.name].slot(query, watch) as run,
                aclosing(self._find(decision).stream(query)) as deltas,
            ):
                bill.sent = True
                async for delta in deltas:
                    run.see_first()
                    bill.begun = True
                    bill.usage = delta.usage or bill.usage
                    tokens += count_tokens(delta)
                    yield delta
                run.finish(bill.usage or Usage(0, tokens))

    def _find(self, decision: Decision) -> "Backend | CandidBackend":
        return (self._candid if decision.on_trial else self._backends)[decision.target.name]


class CandidBackend:
    """A target that says how sure it was: asked for log-probabilities, and again without where it refuses them.

    Once that was of use, the target is no longer asked for them.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._mute = False

    async def complete(self, query: Query) -> Completion:
        """See `router.backends.Backend`."""
        if not self._mute:
            try:
                return await self._backend.complete(with_evidence(query))
            except RefusedError:
                pass
        completion = await self._backend.complete(query)
        self._mute = True
        return completion

    async def stream(self, query: Query) -> Deltas:
        """See `router.backends.Backend`."""
        refused = self._mute
        if not refused:
            began = False
            async with aclosing(self._backend.stream(with_evidence(query))) as deltas:
                try:
                    async for delta in deltas:
                        began = True
                        yield delta
                except RefusedError:
                    if began:
                        raise
                    refused = True
        if refused:
            async with aclosing(self._backend.stream(query)) as deltas:
                async for delta in deltas:
                    self._mute = True
                    yield delta


class Bill:
    """What a call used; `sent` once the target was asked, `begun` once it did some work.

    A context that settles however the call ends; a target that was not asked, or refused the work, is not paid.
    """

    __slots__ = ("_reservation", "begun", "sent", "usage")

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self.sent = False
        self.begun = False
        self.usage: Usage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if exc is not None:
            idle = isinstance(exc, UnavailableError | OverloadedError | RefusedError) and not self.begun
            if idle or not self.sent:
                self._reservation.release()
        self._reservation.settle(self.usage)


@contextmanager
def releasing(reservation: Reservation) -> Iterator[None]:
    """Give all back if the call cannot even begin."""
    try:
        yield
    except BaseException:
        reservation.release()
        raise


def with_evidence(query: Query) -> Query:
    """The query, with log-probabilities of each token and the likeliest ones at its place."""
    p = query.parameters
    return replace(query, parameters=replace(p, logprobs=True, top_logprobs=max(p.top_logprobs, EVIDENCE_TOP)))
