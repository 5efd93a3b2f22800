"""The path of one query, readable aloud: look up, else fly (choose, call, judge), remember, answer."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from router.cache.directives import Caching, Use
from router.cache.entry import Entry, Stamp, replay
from router.cache.plan import CacheStatus, Plan
from router.cache.response import Hit, ResponseCache
from router.calls import Caller
from router.canaries import Canaries
from router.decision import Decision, Rules, Target, decide, select_eligible
from router.dispatch import Dispatcher, Errand
from router.embedding_calls import Embedded, EmbeddingCaller
from router.errors import BackendError, DeadlineError, NotCachedError, OverloadedError, RefusedError, RouterError
from router.flights import Flight, Flights, Seat
from router.health import Health
from router.policy import Policy
from router.query import Completion, Delta, EmbeddingQuery, Embeddings, Priority, Query
from router.telemetry import Stopwatch

T = TypeVar("T")
_MOST_FLIGHTS: Final = 3
_AUDIT_S: Final = 60.0


class Origin(Struct, frozen=True):
    """Where an answer came from: who decided it, what the cache had to do with it, what names it."""

    decision: Decision
    status: CacheStatus
    stamp: Stamp
    age_s: float = 0.0
    stale: bool = False


class Answer(Struct, frozen=True):
    """A whole answer."""

    completion: Completion
    origin: Origin


class Pieces(Protocol):
    """A stream as the client gets it; `aclose` whether or not it was begun."""

    def for_client(self) -> AsyncGenerator[Delta, None]: ...

    async def aclose(self) -> None: ...


class StreamedAnswer(Struct, frozen=True):
    """A stream that has begun; closing it gives up on what is still to come."""

    pieces: Pieces
    origin: Origin


class EmbeddedAnswer(Struct, frozen=True):
    """Vectors and where they came from."""

    embeddings: Embeddings
    decision: Decision
    status: CacheStatus


class Replay(Struct, frozen=True):
    """A stored answer, as a stream."""

    entry: Entry

    async def for_client(self) -> AsyncGenerator[Delta, None]:
        """Its pieces."""
        for delta in replay(self.entry.completion):
            yield delta

    async def aclose(self) -> None:
        """Nothing runs."""


class Pipeline:
    """Every method raises `RouterError` and nothing else; what is cancelled or closed stops its work at the target,
    unless another request waits for the same.
    """

    def __init__(
        self,
        cache: ResponseCache,
        flights: Flights,
        dispatcher: Dispatcher,
        caller: Caller,
        embedding_targets: Sequence[Target],
        embedding_caller: EmbeddingCaller,
        health: Health,
        policy: Policy,
        canaries: Canaries,
    ) -> None:
        self._cache = cache
        self._flights = flights
        self._dispatcher = dispatcher
        self._caller = caller
        self._embedding_targets = embedding_targets
        self._embedding_caller = embedding_caller
        self._health = health
        self._policy = policy
        self._canaries = canaries

    async def answer(self, query: Query, rules: Rules, caching: Caching, watch: Stopwatch) -> Answer:
        """The whole answer."""
        plan = self._cache.plan(query, self._draw(query, rules), caching)
        hit = await self._look_up(plan)
        if hit is not None and hit.use is not Use.ON_ERROR:
            return Answer(hit.entry.completion, _stored(hit))
        try:
            seat, entry = await self._fly(plan, watch, self._fly_whole, Seat.wait_entry)
        except (BackendError, OverloadedError) as exc:
            hit = _instead(hit, exc)
            return Answer(hit.entry.completion, _stored(hit, stale=True))
        await seat.aclose()
        return Answer(entry.completion, _made(plan, seat))

    async def stream(self, query: Query, rules: Rules, caching: Caching, watch: Stopwatch) -> StreamedAnswer:
        """The answer from its first pieces on."""
        plan = self._cache.plan(query, self._draw(query, rules), caching)
        hit = await self._look_up(plan)
        if hit is not None and hit.use is not Use.ON_ERROR:
            return StreamedAnswer(Replay(hit.entry), _stored(hit))
        try:
            seat, _ = await self._fly(plan, watch, self._fly_streamed, Seat.wait_begin)
        except (BackendError, OverloadedError) as exc:
            hit = _instead(hit, exc)
            return StreamedAnswer(Replay(hit.entry), _stored(hit, stale=True))
        watch.first_s = watch.elapsed_s()
        return StreamedAnswer(seat, _made(plan, seat))

    async def embed(self, query: EmbeddingQuery, rules: Rules, caching: Caching, watch: Stopwatch) -> EmbeddedAnswer:
        """The vectors of one model, from whichever target has it, as far as they are not cached; there is no quality to
        score.
        """
        eligible = select_eligible(self._draw(query, rules), self._embedding_targets)
        decision = decide(eligible, score=None, threshold=self._policy.threshold, up=self._health.up())

        async def ask(decision: Decision) -> Embedded:
            return await self._embedding_caller.embed(decision.target.name, query, caching.control, watch)

        embedded, decision = await self._dispatcher.attempt(decision, ask, query.deadline)
        return EmbeddedAnswer(embedded.embeddings, decision, embedded.status)

    def _draw(self, query: Query | EmbeddingQuery, rules: Rules) -> Rules:
        return self._canaries.draw(query, rules, self._health.up)

    async def _look_up(self, plan: Plan) -> Hit | None:
        """What is stored, if the request may have it; a stale answer that may be served meanwhile is made anew."""
        hit = self._cache.peek(plan)
        if (hit is None or hit.use is not Use.FRESH) and not self._flights.has(_flight_key(plan)):
            # while this looked further, a flight may have landed: without the second glance it would fly again
            hit = await self._cache.find(plan) or self._cache.peek(plan)
        self._cache.count(plan, hit)
        if plan.caching.control.only_if_cached and (hit is None or hit.use is Use.ON_ERROR):
            raise NotCachedError("No stored answer may serve this request, and it asks for no other (only-if-cached).")
        if hit is not None and hit.use is Use.REVALIDATE:
            self._refresh(plan)
        return hit

    async def _fly(
        self,
        plan: Plan,
        watch: Stopwatch,
        fly: Callable[[Plan, Stopwatch, Flight], Awaitable[None]],
        wait: Callable[[Seat], Awaitable[T]],
    ) -> tuple[Seat, T]:
        """A seat in the generation of this answer, one's own or another's, once what was waited for is there."""
        late: DeadlineError | None = None
        for _ in range(_MOST_FLIGHTS):
            seat = self._flights.board(_flight_key(plan), partial(fly, plan, watch), plan.query.deadline)
            try:
                # who leads counts the target's time inside the flight
                with nullcontext() if seat.leads else watch.wait_backend():
                    return seat, await wait(seat)
            except DeadlineError as exc:
                await seat.aclose()
                if not seat.delayed:
                    raise
                late = exc
            except BaseException:
                await seat.aclose()
                raise
        raise late or DeadlineError("The answer was not there within the request's deadline.")

    async def _fly_whole(self, plan: Plan, watch: Stopwatch, flight: Flight) -> None:
        errand = Errand(plan.query, plan.rules, watch, self._caller.complete)
        whole, decision = await self._dispatcher.run(errand)
        flight.begin(decision)
        flight.land(whole.for_client())
        await self._remember(plan, flight)

    async def _fly_streamed(self, plan: Plan, watch: Stopwatch, flight: Flight) -> None:
        errand = Errand(plan.query, plan.rules, watch, self._caller.begin)
        opening, decision = await self._dispatcher.run(errand)
        try:
            flight.begin(decision)
            async for delta in opening.for_client():
                flight.add(delta)
        finally:
            await opening.aclose()
        flight.land()
        await self._remember(plan, flight)

    async def _remember(self, plan: Plan, flight: Flight) -> None:
        if flight.entry is not None and flight.decision is not None and not flight.decision.degraded:
            await self._cache.remember(plan, flight.entry)

    def _refresh(self, plan: Plan) -> None:
        """Make the answer anew, behind the client's back and everyone else's work."""
        behind = replace(plan, query=replace(plan.query, priority=Priority.BATCH))
        self._flights.refresh(_flight_key(behind), partial(self._fly_whole, behind, Stopwatch()))


async def answer_anew(dispatcher: Dispatcher, caller: Caller, plan: Plan) -> str:
    """The text that a request would get if there were no cache, behind everyone else's work: for audits.

    Raises:
        RouterError: no target answers.
    """
    query = replace(plan.query, priority=Priority.BATCH, deadline=time.monotonic() + _AUDIT_S)
    whole, _ = await dispatcher.run(Errand(query, plan.rules, Stopwatch(), caller.complete))
    return whole.completion.choices[0].text


def _flight_key(plan: Plan) -> Hashable:
    """Requests of another priority fly apart: an urgent one must not wait in a patient one's place."""
    return (plan.key.exact, plan.query.priority) if plan.key is not None and plan.reads else None


def _stored(hit: Hit, *, stale: bool = False) -> Origin:
    return Origin(hit.entry.decision, hit.status, hit.entry.stamp, hit.age_s, stale)


def _made(plan: Plan, seat: Seat) -> Origin:
    """Who flew along made no target work, as if it had come a moment later."""
    decision = seat.flight.decision
    if decision is None:
        raise ValueError("the flight has not begun")
    return Origin(decision, plan.status if seat.leads else CacheStatus.HIT, seat.flight.stamp)


def _instead(hit: Hit | None, exc: RouterError) -> Hit:
    """The stale answer that may stand in for a failure of the targets; else the failure."""
    if hit is None or isinstance(exc, DeadlineError | RefusedError):
        raise exc
    return hit
