"""Who asks: locust's users. One keeps a schedule (open loop), the others ask in loops (closed), one form each."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import ClassVar, cast

import gevent
import locust
import msgspec
from gevent.pool import Pool
from locust.env import Environment
from locust.exception import StopUser
from msgspec import Struct

from loadtests.swarm.arrivals import draw_scheduled
from loadtests.swarm.asking import Asker
from loadtests.swarm.record import Form, Record
from loadtests.swarm.scenario import Closed, Open, Scenario
from loadtests.swarm.strain import StrainWatch
from loadtests.swarm.workload import Request, draw_requests


class Plan(Struct, frozen=True):
    """What a worker has to know."""

    url: str
    scenario: Scenario
    key: str
    worker: int
    workers: int
    starts_at: float
    """`time.time()`: the machines' clocks shift arrivals against each other, and no latency."""


class Player:
    """Plays one worker's part of a plan."""

    def __init__(self, plan: Plan) -> None:
        arrival = plan.scenario.arrival
        most = arrival.most_in_flight if isinstance(arrival, Open) else arrival.users
        self.plan = plan
        self.zero = time.perf_counter() + plan.starts_at - time.time()
        self.asker = Asker(plan.url, plan.scenario.answers, connections=most, worker=plan.worker, key=plan.key)
        self.requests: Iterator[Request] = islice(draw_requests(plan.scenario), plan.worker, None, plan.workers)
        self.records: list[Record] = []
        self.watch = StrainWatch(gevent.sleep)

    def ask(self, environment: Environment, request: Request, due: float) -> None:
        """One request, recorded here and in locust's own statistics."""
        record = self.asker.ask(request, due, self.zero)
        self.records.append(record)
        environment.events.request.fire(
            request_type=record.form.value,
            name=record.tier or record.model,
            response_time=(record.ended - record.due) * 1e3,
            response_length=0,
            exception=None if record.status == 200 else record.error,
            context={},
        )

    def take(self) -> bytes:
        """The records that nobody took yet."""
        taken, self.records = self.records, []
        return msgspec.msgpack.encode(taken)


class Stage(Environment):
    """Where users find what to play."""

    player: Player


class ScheduledUser(locust.User):
    """Open loop: sends each request when it is due, whatever became of the others."""

    @locust.task
    def play(self) -> None:
        """The whole schedule, once."""
        stage = cast("Stage", self.environment)
        player = stage.player
        plan = player.plan
        pool = Pool(cast("Open", plan.scenario.arrival).most_in_flight)
        for at in draw_scheduled(plan.scenario)[plan.worker :: plan.workers].tolist():
            due, request = player.zero + at, next(player.requests)
            gevent.sleep(max(due - time.perf_counter(), 0.0))
            pool.spawn(player.ask, stage, request, due)  # waits while the pool is full
        pool.join()
        raise StopUser


class LoopingUser(locust.User):
    """Closed loop: asks, waits for the answer, thinks, and asks again."""

    abstract = True
    form: ClassVar[Form]

    @locust.task
    def ask(self) -> None:
        """The next question."""
        stage = cast("Stage", self.environment)
        request = replace(next(stage.player.requests), form=self.form)
        stage.player.ask(stage, request, time.perf_counter())

    def wait_time(self) -> float:
        """Between an answer and the next question."""
        return cast("Closed", cast("Stage", self.environment).player.plan.scenario.arrival).think_s


class ChatUser(LoopingUser):
    """Whole answers."""

    form = Form.CHAT


class StreamUser(LoopingUser):
    """Streams: time to the first token, gaps, total."""

    form = Form.STREAM


class EmbeddingUser(LoopingUser):
    """Vectors."""

    form = Form.EMBEDDING


LOOPING: tuple[type[LoopingUser], ...] = (ChatUser, StreamUser, EmbeddingUser)
EVERY_USER: list[type[locust.User]] = [ScheduledUser, *LOOPING]


class UserCounts(locust.LoadTestShape):
    """A scenario's shape as numbers of users."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scenario = scenario

    def tick(self) -> tuple[int, float] | None:
        """Users now; None ends the run."""
        shape, most = self._scenario.shape, cast("Closed", self._scenario.arrival).users
        at = self.get_run_time()  # type: ignore[no-untyped-call]
        return None if at >= shape.duration_s else (max(round(most * shape.level(at)), 1), 100.0)
