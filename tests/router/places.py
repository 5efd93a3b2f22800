"""Places that answer as they are told to, and a pipeline over two of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from router.backends import Backend, remaining_s
from router.cache.directives import Caching, parse_cache_control
from router.cache.keys import KeyMaker
from router.cache.response import ResponseCache
from router.calls import Caller
from router.canaries import Canaries
from router.choosing import Chooser
from router.config import BudgetPolicy, Check, Price, Probe
from router.config.cache import ResponseCache as ResponseSection
from router.config.lanes import Lane as LaneSection
from router.config.lanes import Pressure
from router.decision import Evidence, Rules, Score, Target, Tier
from router.dispatch import Dispatcher
from router.embedding_calls import EmbeddingCaller
from router.errors import BackendError, DeadlineError, RefusedError, RouterError
from router.flights import Flights
from router.health import Health
from router.hold import Holder
from router.lanes import TargetLane
from router.pipeline import Answer, Pipeline, StreamedAnswer
from router.policy import Budget
from router.policy.money import Tariff
from router.query import (
    Choice,
    Completion,
    Conversation,
    Delta,
    EmbeddingQuery,
    Embeddings,
    Finish,
    Message,
    Parameters,
    Prompt,
    Query,
    TokenLogprob,
    Usage,
)
from router.routing_metrics import RoutingMetrics
from router.scoring import EdgeAnswer, Explanation
from router.steering import Steering
from router.telemetry import Stopwatch, Telemetry
from tests.cache.plain import PlainRecords

EDGE, CLOUD = Target("shop", Tier.EDGE), Target("h100", Tier.CLOUD)
QUERY = Query(Conversation((Message("user", "why?"),)), Parameters(max_tokens=50))
FREE, DEFAULT = Rules(), Check()
WIDE, CALM = LaneSection(slots=1000), Pressure()
PRICE = Price(prompt_per_mtok=1.0, completion_per_mtok=1.0)


@dataclass
class Place:
    """A backend that says what it is told to, at its own pace, and may fail at any piece."""

    pieces: Sequence[str]
    delays_s: Sequence[float] = ()
    fails_at: int | None = None
    logprobs: bool = True
    refuses_logprobs: bool = False
    failure: type[RouterError] = BackendError
    running: int = 0
    asked: list[Query] = field(default_factory=list)
    version: str = ""
    obeys_deadlines: bool = False
    says: Callable[[Query], Sequence[str]] | None = None
    ends: bool = True

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        self.asked.append(query)
        if self.refuses_logprobs and query.parameters.logprobs:
            raise RefusedError("logprobs: what is that?", param="logprobs")
        self.running += 1
        try:
            for index, text in enumerate([*self._said(query), ""]):
                await self._pause(index, query)
                if index == self.fails_at:
                    raise self.failure("broken")
                if text:
                    yield Delta(0, text, self._logprobs(query, text))
            if self.ends:
                yield Delta(0, finish=Finish.STOP)
                yield Delta(0, usage=self._usage())
        finally:
            try:
                await asyncio.sleep(0)  # a place says goodbye, and may be cut short in it
            finally:
                self.running -= 1

    async def complete(self, query: Query) -> Completion:
        pieces = [piece async for piece in self.stream(query)]
        logprobs = tuple(place for piece in pieces for place in piece.logprobs)
        text = "".join(self._said(query))
        return Completion([Choice(text, Finish.STOP, logprobs)] * query.parameters.n, self._usage())

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        raise BackendError("no embeddings here")

    async def ready(self) -> bool:
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    def _logprobs(self, query: Query, text: str) -> tuple[TokenLogprob, ...]:
        if not (self.logprobs and query.parameters.logprobs):
            return ()
        top = tuple(TokenLogprob(text, -0.1 * rank) for rank in range(query.parameters.top_logprobs))
        return (TokenLogprob(text, -0.1, top),)

    async def _pause(self, index: int, query: Query) -> None:
        limit = remaining_s(query.deadline) if self.obeys_deadlines else None
        try:
            async with asyncio.timeout(limit):
                await asyncio.sleep(self.delays_s[index] if index < len(self.delays_s) else 0)
        except TimeoutError:
            raise DeadlineError("too late") from None

    def _said(self, query: Query) -> Sequence[str]:
        return self.pieces if self.says is None else self.says(query)

    def _usage(self) -> Usage:
        return Usage(3, len(self.pieces))


@dataclass
class Judge:
    """A scorer whose two scores are given; it remembers what it was shown."""

    first: float = 0.4
    last: float | None = 0.1
    delay_s: float = 0.0
    checks_answers: bool = True
    artifact: str | None = "abc"
    shown: list[EdgeAnswer] = field(default_factory=list)

    async def score(self, query: Query, threshold: float) -> Score:
        return Score(self.first, Evidence.FEATURES)

    async def check(self, prompt: Prompt, score: Score, answer: EdgeAnswer) -> Score:
        self.shown.append(answer)
        await asyncio.sleep(self.delay_s)
        return score if self.last is None else Score(self.last, Evidence.ANSWER)

    async def explain(self, query: Query, threshold: float) -> Explanation:
        return Explanation(await self.score(query, threshold), {})


class WatchedBudget(Budget):
    """A real budget with a line that stays, which remembers what it was told."""

    def __init__(self, per_day: float) -> None:
        config = BudgetPolicy(per_day=per_day, burst_share=1.0)
        super().__init__(config, {CLOUD.name: Tariff.of(PRICE)}, clock=lambda: 1e9, memory=None)
        self.seen: list[tuple[float, Tier]] = []

    @property
    def threshold(self) -> float:
        return 0.5

    def observe(self, score: float, tier: Tier) -> None:
        self.seen.append((score, tier))

    def reserved(self) -> float:
        """Money that some call has not given back."""
        return sum(float(balance.reserved) for balance in self.statistics().balances)

    def paid(self) -> float:
        """Money spent."""
        return sum(float(balance.paid) for balance in self.statistics().balances)


@dataclass(frozen=True)
class Bench:
    """A pipeline over two places."""

    pipeline: Pipeline
    policy: WatchedBudget
    telemetry: Telemetry
    lanes: dict[str, TargetLane]

    def caching(self, said: str = "") -> Caching:
        return Caching(parse_cache_control(said))

    async def answer(self, query: Query = QUERY, rules: Rules = FREE, said: str = "") -> Answer:
        return await self.pipeline.answer(query, rules, self.caching(said), Stopwatch())

    async def stream(self, query: Query = QUERY, rules: Rules = FREE, said: str = "") -> StreamedAnswer:
        return await self.pipeline.stream(query, rules, self.caching(said), Stopwatch())

    def count(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"hybrid_{name}", labels) or 0.0


@asynccontextmanager
async def bench(
    edge: Place,
    cloud: Place,
    judge: Judge,
    *,
    check: Check = DEFAULT,
    per_day: float = 1000.0,
    cache: ResponseCache | None = None,
    lane: LaneSection = WIDE,
    pressure: Pressure = CALM,
) -> AsyncIterator[Bench]:
    """A pipeline over two places, without a cache if none is given; afterwards nothing runs there."""
    backends: dict[str, Backend] = {EDGE.name: edge, CLOUD.name: cloud}
    telemetry = Telemetry()
    metrics = RoutingMetrics(telemetry)
    policy = WatchedBudget(per_day)
    health = Health(backends, Probe(), telemetry)
    await health.check()
    cache = cache or ResponseCache(ResponseSection(enabled=False), PlainRecords(), KeyMaker(lambda _: ()))
    lanes = {name: TargetLane(name, lane, {}) for name in backends}
    async with Holder(check, telemetry) as holder, Flights() as flights:
        chooser = Chooser([EDGE, CLOUD], health, judge, policy, check, metrics, Steering(pressure, lanes))
        dispatcher = Dispatcher(health, chooser, policy, metrics)
        caller = Caller(backends, lanes, holder)
        yield Bench(
            Pipeline(
                cache,
                flights,
                dispatcher,
                caller,
                [],
                EmbeddingCaller(backends, {}, {}, None),
                health,
                policy,
                Canaries({}, telemetry),
            ),
            policy,
            telemetry,
            lanes,
        )
    for name, one in lanes.items():
        statistics = one.statistics()
        assert (statistics.running, statistics.backlog) == (0, 0), f"{name}: a slot was lost"
    assert edge.running == cloud.running == 0
    assert policy.reserved() == 0


async def read(streamed: StreamedAnswer) -> str:
    """All of a stream's text, as its client gets it."""
    return "".join([piece.text async for piece in streamed.pieces.for_client()])


def easy() -> Place:
    return Place(["e1 ", "e2 ", "e3"])


def strong() -> Place:
    return Place(["c1 ", "c2"])
