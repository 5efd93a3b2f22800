"""Events in virtual time: requests arrive, start, end; between two events nothing happens, and no time is spent."""

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from loadtests.queueing.trace import Arrival, Floats, Trace
from router.config.lanes import Lane as LaneSection
from router.rates import Rates, Sample, Work
from router.slots import Notify, Slots
from router.tickets import Demand, State, Ticket


@dataclass(frozen=True, slots=True)
class Speed:
    """A target: seconds a request, prompt and answer tokens a second of one slot, however many slots are busy."""

    overhead_s: float
    prefill_per_s: float
    decode_per_s: float

    def first_s(self, work: Work) -> float:
        """Until the first token."""
        return self.overhead_s + work.prompt_tokens / self.prefill_per_s

    def service_s(self, work: Work) -> float:
        """Until the last."""
        return self.first_s(work) + work.completion_tokens / self.decode_per_s


class Core(Protocol):
    """What is simulated."""

    def offer(self, demand: Demand, now: float) -> Ticket:
        """Ask for a slot."""
        ...

    def leave(self, ticket: Ticket, now: float, sample: Sample | None = None) -> None:
        """Done with it."""
        ...


MakeCore = Callable[[LaneSection, Rates, Notify], Core]


class End(IntEnum):
    """What became of a request."""

    NONE = 0
    IN_TIME = 1
    LATE = 2
    EXPIRED = 3
    REFUSED = 4
    SHED = 5


_ENDS = {State.EXPIRED: End.EXPIRED, State.REFUSED: End.REFUSED, State.SHED: End.SHED}


class Machine:
    """A target with its slots. It always runs a request to its deadline, and no farther."""

    def __init__(self, speed: Speed, lane: LaneSection, make_core: MakeCore = Slots, *, known: bool = True) -> None:
        self.speed = speed
        self.changed: list[Ticket] = []
        self.rates = Rates()
        if known:
            self._teach()
        self.core = make_core(lane, self.rates, self.changed.append)

    def _teach(self) -> None:
        """Let it know its rates from the start, as after a warm-up."""
        for tokens in (10.0, 100.0, 1000.0) * 10:
            work = Work(tokens, 100.0)
            self.rates.add(Sample(work, self.speed.service_s(work), self.speed.first_s(work)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows as in the trace. Seconds are NaN where there are none: `wait` of what never started."""

    trace: Trace
    wait: Floats
    end: NDArray[np.int64]
    machine: NDArray[np.int64]
    first: Floats
    finished: Floats

    @property
    def in_time(self) -> NDArray[np.bool_]:
        """Which were answered before their deadline."""
        return np.equal(self.end, int(End.IN_TIME))


Route = Callable[[Arrival, float], int]


class Simulation:
    """One run over one or more machines; `route` says which one a request goes to."""

    def __init__(self, trace: Trace, machines: Sequence[Machine], route: Route = lambda _arrival, _now: 0) -> None:
        count = len(trace)
        self._trace = trace
        self._machines = machines
        self._route = route
        self._events: list[tuple[float, int, int, Ticket]] = []
        self._number = 0
        self._wait = array("d", [math.nan]) * count
        self._first = array("d", [math.nan]) * count
        self._finished = array("d", [math.nan]) * count
        self._end = array("b", [0]) * count
        self._machine = array("b", [0]) * count

    def run(self) -> Outcome:
        """All of the trace, until nothing runs."""
        events, machines = self._events, self._machines
        for arrival in self._trace.arrivals():
            at = arrival.at
            while events and events[0][0] <= at:
                self._finish()
            which = self._route(arrival, at)
            self._machine[arrival.number] = which
            machine = machines[which]
            ticket = machine.core.offer(arrival, at)
            if ticket.state is State.RUNNING:
                self._start(which, ticket, at)
            elif ticket.state is not State.WAITING:
                self._end[arrival.number] = _ENDS[ticket.state]
            if machine.changed:
                self._follow(which, at)
        while events:
            self._finish()
        columns = (self._wait, self._end, self._machine, self._first, self._finished)
        wait, end, places, first, finished = (np.array(column) for column in columns)
        return Outcome(self._trace, wait, end.astype(int), places.astype(int), first, finished)

    def _start(self, which: int, ticket: Ticket, now: float) -> None:
        arrival = cast("Arrival", ticket.demand)
        ends = now + self._machines[which].speed.service_s(arrival.actual)
        self._number += 1
        heappush(self._events, (min(ends, arrival.deadline), self._number, which, ticket))
        self._wait[arrival.number] = now - arrival.at

    def _finish(self) -> None:
        now, _, which, ticket = heappop(self._events)
        machine = self._machines[which]
        arrival = cast("Arrival", ticket.demand)
        speed = machine.speed
        first_s = speed.first_s(arrival.actual)
        service_s = first_s + arrival.actual.completion_tokens / speed.decode_per_s
        in_time = ticket.started + service_s <= arrival.deadline
        self._end[arrival.number] = End.IN_TIME if in_time else End.LATE
        self._first[arrival.number] = ticket.started + first_s - arrival.at
        self._finished[arrival.number] = now
        machine.core.leave(ticket, now, Sample(arrival.actual, service_s, first_s) if in_time else None)
        if machine.changed:
            self._follow(which, now)

    def _follow(self, which: int, now: float) -> None:
        """Tickets whose state the core changed by itself."""
        changed = self._machines[which].changed
        for ticket in changed:
            if ticket.state is State.RUNNING:
                self._start(which, ticket, now)
            else:
                self._end[cast("Arrival", ticket.demand).number] = _ENDS[ticket.state]
        changed.clear()


def simulate(trace: Trace, speed: Speed, lane: LaneSection, make_core: MakeCore = Slots) -> Outcome:
    """One target."""
    return Simulation(trace, [Machine(speed, lane, make_core)]).run()
