"""The cases that the bars are about: traffic, lanes, and what comes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from loadtests.queueing.fifo import FifoSlots
from loadtests.queueing.results import goodput_per_s, jain, result_of, served_tokens
from loadtests.queueing.simulator import Machine, MakeCore, Outcome, Simulation, Speed, simulate
from loadtests.queueing.trace import Arrival, Floats, Lengths, Stream, Trace
from router.config.lanes import Lane as LaneSection
from router.config.lanes import Pressure as PressureSection
from router.pressure import Pressure
from router.query import Priority
from router.rates import Work
from router.slots import Slots

EDGE = Speed(overhead_s=0.02, prefill_per_s=2000, decode_per_s=150)
CLOUD = Speed(overhead_s=0.15, prefill_per_s=4000, decode_per_s=120)
PROMPT, COMPLETION = Lengths(60), Lengths(55, 0.4)
SLOTS = 8


def capacity_per_s(speed: Speed, slots: int, prompt: float = PROMPT.mean, completion: float = COMPLETION.mean) -> float:
    """Requests of mean length that slots finish a second when they are never free."""
    return slots / speed.service_s(Work(prompt, completion))


def speed_trace(count: int, seed: int = 0) -> Trace:
    """Some `count` requests of all classes and a hundred tenants, now and then more than fits."""
    capacity = capacity_per_s(EDGE, SLOTS)
    streams = [
        Stream(p, f"tenant-{i}", 0.011 * capacity * load, PROMPT, COMPLETION, patience_s, burst=4.0)
        for i in range(34)
        for p, load, patience_s in (
            (Priority.INTERACTIVE, 0.6, 5.0),
            (Priority.STANDARD, 0.9, 20.0),
            (Priority.BATCH, 1.5, 120.0),
        )
    ]
    return Trace.draw(streams, count / sum(s.per_s for s in streams), seed, doubt=0.3)


@dataclass(frozen=True, slots=True)
class Overload:
    """Three times what fits, half of it batch."""

    capacity_per_s: float
    service_p95_s: float
    service_p99_s: float
    lanes: Outcome
    fifo: Outcome
    fifo_blind: Outcome
    """Drops what is past its deadline, but starts what cannot end before it."""
    since: float
    until: float

    def goodput(self, outcome: Outcome) -> float:
        """Over capacity."""
        return goodput_per_s(outcome, self.since, self.until) / self.capacity_per_s

    @property
    def six_requests(self) -> float:
        """How much of the work six of the largest requests are: by so much a share may be missed."""
        trace = self.lanes.trace
        tokens = trace.prompt + trace.completion
        started = ~np.isnan(self.lanes.wait) & (trace.at >= self.since)
        return 6 * float(tokens.max()) / float(tokens[started].sum())

    def share(self, outcome: Outcome, priority: Priority) -> float:
        """Of the tokens started."""
        tokens = {p: result_of(outcome, p, self.since, self.until).tokens for p in Priority}
        return tokens[priority] / sum(tokens.values())


def overload(
    lane: LaneSection,
    *,
    interactive: float = 0.5,
    patience_s: tuple[float, float, float] = (4.0, 8.0, 20.0),
    duration_s: float = 600.0,
    seed: int = 1,
) -> Overload:
    """
    Args:
        lane: All three run with it, as far as they can.
        interactive: Its part of the capacity; batch asks for one and a half of it, standard for the rest of three.
        patience_s: Of each class, until the deadline.
        duration_s: Of the arrivals; the first tenth is not counted.
        seed: Of the trace.
    """
    alone = Trace.draw([Stream(Priority.STANDARD, "", 100, PROMPT, COMPLETION, 1e6)], 200, seed + 1)
    services = EDGE.overhead_s + alone.prompt / EDGE.prefill_per_s + alone.completion / EDGE.decode_per_s
    capacity = lane.slots / float(services.mean())
    streams = [
        Stream(Priority.INTERACTIVE, "shop", interactive * capacity, PROMPT, COMPLETION, patience_s[0]),
        Stream(Priority.STANDARD, "office", (1.5 - interactive) * capacity, PROMPT, COMPLETION, patience_s[1]),
        Stream(Priority.BATCH, "night", 1.5 * capacity, PROMPT, COMPLETION, patience_s[2]),
    ]
    trace = Trace.draw(streams, duration_s, seed, doubt=0.3)
    blind = LaneSection(slots=lane.slots, backlog=lane.backlog, doomed_part=0.0)
    return Overload(
        capacity,
        float(np.quantile(services, 0.95)),
        float(np.quantile(services, 0.99)),
        simulate(trace, EDGE, lane),
        simulate(trace, EDGE, lane, FifoSlots),
        simulate(trace, EDGE, blind, FifoSlots),
        duration_s / 10,
        duration_s,
    )


def fairness(make_core: MakeCore = Slots, *, backlog: int = 400, duration_s: float = 300.0) -> float:
    """Jain's index of the tokens served to ten tenants; one sends 20 times the load with 10 times longer prompts."""
    modest = [Stream(Priority.STANDARD, f"modest-{i}", 6.0, PROMPT, COMPLETION, 1e6) for i in range(9)]
    greedy = Stream(Priority.STANDARD, "greedy", 120.0, Lengths(10 * PROMPT.mean), COMPLETION, 1e6)
    lane = LaneSection(slots=SLOTS, backlog=backlog, aging_s=3600)
    outcome = simulate(Trace.draw([*modest, greedy], duration_s, 1), EDGE, lane, make_core)
    names = [stream.tenant for stream in outcome.trace.streams]
    return jain(served_tokens(outcome, names, duration_s / 10, duration_s))


@dataclass(frozen=True, slots=True)
class Steering:
    """Two tiers, and a threshold that load moves or does not."""

    late: float
    """The share of requests whose first token came after the objective, or never."""
    cloud_share: float
    offsets: Floats
    """One a request."""
    turns: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Site:
    """An edge box and a cloud; `load` is the traffic at rest over the edge's capacity, all of it to be shared."""

    edge_slots: int = 8
    cloud_slots: int = 24
    load: float = 1.2
    threshold: float = 0.6
    objective_s: float = 2.0
    steps: tuple[tuple[float, float], ...] = ((300.0, 2.0), (600.0, 1.0))
    duration_s: float = 900.0

    def trace(self, seed: int) -> Trace:
        """At rest, twice as much, at rest; scores spread evenly."""
        per_s = self.load * capacity_per_s(EDGE, self.edge_slots)
        stream = Stream(Priority.STANDARD, "all", per_s, PROMPT, COMPLETION, 10.0, steps=dict(self.steps))
        return Trace.draw([stream], self.duration_s, seed, doubt=0.3)

    def steer(self, trace: Trace, threshold_of: Callable[[float, float, float], float]) -> Outcome:
        """Run with `threshold_of(edge_first_s, cloud_first_s, now)`."""
        lane = LaneSection(slots=self.edge_slots, backlog=256, aging_s=60)
        machines = [Machine(EDGE, lane), Machine(CLOUD, LaneSection(slots=self.cloud_slots, backlog=256, aging_s=60))]
        edge, cloud = (cast("Slots", m.core) for m in machines)

        def route(arrival: Arrival, now: float) -> int:
            first = edge.forecast(arrival, now).first_s, cloud.forecast(arrival, now).first_s
            return int(arrival.score >= threshold_of(*first, now))

        return Simulation(trace, machines, route).run()

    def fixed(self, trace: Trace, cloud_share: float) -> Steering:
        """The threshold that sends that share, for ever."""
        threshold = float(np.quantile(trace.score, 1 - cloud_share))
        outcome = self.steer(trace, lambda _edge, _cloud, _now: threshold)
        return self._judge(outcome, np.zeros(len(trace)), 0)

    def steered(self, trace: Trace, config: PressureSection) -> Steering:
        """The threshold under pressure."""
        pressure = Pressure(config)
        offsets: list[float] = []

        def threshold_of(edge_s: float, cloud_s: float, now: float) -> float:
            offsets.append(pressure.update(edge_s, cloud_s, now))
            return pressure.shift(self.threshold)

        outcome = self.steer(trace, threshold_of)
        return self._judge(outcome, np.array(offsets), pressure.statistics().turns)

    def _judge(self, outcome: Outcome, offsets: Floats, turns: int) -> Steering:
        late = ~(outcome.first <= self.objective_s)
        return Steering(float(late.mean()), float(outcome.machine.mean()), offsets, turns, outcome)


def reversals(offsets: Floats, at: Floats) -> Sequence[float]:
    """When the offset's movement turned round."""
    moves = np.sign(np.diff(offsets))
    moving = np.flatnonzero(moves)
    turned = moving[1:][moves[moving[1:]] != moves[moving[:-1]]]
    return [float(t) for t in at[turned + 1]]
