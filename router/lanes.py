"""Every target's lanes: one for what it generates, one for what it embeds, two models with a queue each."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import inf
from time import monotonic

from msgspec import Struct

from router.config import Config
from router.config.lanes import Lane as LaneSection
from router.errors import FullError, OverloadedError
from router.estimates import Estimator
from router.forecast import Forecast
from router.lane import Lane, Turn
from router.query import EmbeddingQuery, Priority, Query, Usage
from router.rates import Work
from router.telemetry import Stopwatch
from router.tickets import Demand, LaneStatistics


class Kind(StrEnum):
    """What a lane is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"


class LaneReport(Struct, frozen=True):
    """A lane, as operators see it."""

    target: str
    kind: Kind
    now: LaneStatistics


class Run:
    """A query while it has its slot."""

    def __init__(self, turn: Turn, query: Query | EmbeddingQuery, estimator: Estimator) -> None:
        self.turn = turn
        self._query = query
        self._estimator = estimator
        self._started = monotonic()
        self._first_s: float | None = None

    def see_first(self) -> None:
        """A first token is here; only the first call counts."""
        if self._first_s is None:
            self._first_s = monotonic() - self._started

    def finish(self, usage: Usage) -> None:
        """The answer came to its end."""
        self._estimator.learn(self._query, usage)
        self.turn.finish(Work(usage.prompt_tokens, usage.completion_tokens), self._first_s)


class TargetLane:
    """One lane, and what is known of the lengths of its answers."""

    def __init__(self, name: str, config: LaneSection, weights: Mapping[str, float]) -> None:
        self._lane = Lane(name, config, weights)
        self._spill = config.spill
        self._estimator = Estimator()

    def slot(self, query: Query | EmbeddingQuery, watch: Stopwatch) -> "HeldSlot":
        """Hold a slot while the context is open; waiting for it counts as queueing.

        Raises:
            OverloadedError: there is no room; `FullError` if no other target may do it either.
            DeadlineError: it became too late to start.
        """
        return HeldSlot(self, query, watch)

    async def take(self, query: Query | EmbeddingQuery, watch: Stopwatch) -> Run:
        """A slot, which must be left; otherwise as `slot`."""
        try:
            with watch.wait_queue():
                turn = await self._lane.take(self._demand(query))
        except OverloadedError as exc:
            if query.priority is not Priority.BATCH or self._spill:
                raise
            raise FullError(str(exc), retry_after_s=exc.retry_after_s) from None
        return Run(turn, query, self._estimator)

    def leave(self, run: Run) -> None:
        """It is over, however."""
        self._lane.leave(run.turn)

    def forecast(self, query: Query) -> Forecast:
        """When it would begin and end if it came now."""
        return self._lane.forecast(self._demand(query))

    def statistics(self) -> LaneStatistics:
        """The state now."""
        return self._lane.statistics()

    def _demand(self, query: Query | EmbeddingQuery) -> Demand:
        deadline = inf if query.deadline is None else query.deadline
        return Demand(query.priority, query.tenant, self._estimator.estimate(query), deadline)


class HeldSlot:
    """See `TargetLane.slot`; a class, since generators cost a request several times as much."""

    __slots__ = ("_lane", "_query", "_run", "_watch")

    def __init__(self, lane: TargetLane, query: Query | EmbeddingQuery, watch: Stopwatch) -> None:
        self._lane = lane
        self._query = query
        self._watch = watch

    async def __aenter__(self) -> Run:
        self._run = await self._lane.take(self._query, self._watch)
        return self._run

    async def __aexit__(self, *_: object) -> None:
        self._lane.leave(self._run)


class Lanes:
    """For one event loop."""

    def __init__(self, config: Config) -> None:
        weights = config.quotas.weights
        self.chat = {n: TargetLane(n, t.lane, weights) for n, t in config.targets.items() if t.chat_model}
        self.embedding = {
            n: TargetLane(n, t.embedding_lane, weights) for n, t in config.targets.items() if t.embedding_model
        }

    def statistics(self) -> Sequence[LaneReport]:
        """All lanes."""
        kinds = ((Kind.CHAT, self.chat), (Kind.EMBEDDING, self.embedding))
        return [LaneReport(name, kind, lane.statistics()) for kind, lanes in kinds for name, lane in lanes.items()]
