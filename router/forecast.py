"""When a request that comes now would begin and end: queue ahead, and the target's measured rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf
from typing import Protocol, TypeVar

from router.backlog import Backlog
from router.query import Priority
from router.rates import Rates, Work
from router.tenants import Entry, FairQueue

_MEMORY_S = 30.0
"""Over about how long the load of a class is taken."""
_STEP_S = 0.1
"""Less time does not fade anything."""
_LEAST_PART = 0.02
_CLASSES = tuple(Priority)


class Timed(Protocol):
    """A ticket, as far as it matters here: `service_s` is predicted."""

    priority: Priority
    service_s: float


T = TypeVar("T", bound=Entry)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds from now: until it starts, until its first token, until it is over."""

    wait_s: float
    first_s: float
    finish_s: float


class Load:
    """Seconds of service that a class starts a second: an exponential mean."""

    __slots__ = ("_at", "_fresh_until", "_scale", "_sum", "_weight")

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0
        self._scale = 0.0
        self._at: float | None = None
        self._fresh_until = -inf

    def add(self, service_s: float, now: float) -> None:
        """So much was started."""
        if now > self._fresh_until:
            self._fade(now)
        self._sum += service_s

    def read(self, now: float) -> float:
        """Slots' worth."""
        if now > self._fresh_until:
            self._fade(now)
        return self._sum * self._scale

    def _fade(self, now: float) -> None:
        kept = 1.0 if self._at is None else exp((self._at - now) / _MEMORY_S)
        self._sum *= kept
        self._weight = 1 - (1 - self._weight) * kept  # how much of the memory there is yet
        self._scale = 1 / (_MEMORY_S * max(self._weight, 0.05))
        self._at = now
        self._fresh_until = now + _STEP_S


class Forecaster:
    """Told of every ticket that waits, goes or starts.

    The wait is that of a queue with priorities (Cobham, "Priority Assignment in Waiting Line Problems", 1954): what
    waits ahead, over the slots that more urgent arrivals leave and less urgent shares do not take, but no longer than
    the class's guaranteed share makes it.
    """

    def __init__(self, rates: Rates, backlog: Backlog[T], shares: Mapping[Priority, float]) -> None:
        self._rates = rates
        self._queues = [backlog.of(p) for p in _CLASSES]
        self._shares = [shares.get(p, 0.0) for p in _CLASSES]
        self._below = [range(rank + 1, len(_CLASSES)) for rank in range(len(_CLASSES))]
        self._ranks = {p: rank for rank, p in enumerate(_CLASSES)}
        self._waiting_s = [0.0] * len(_CLASSES)
        self._loads = [Load() for _ in _CLASSES]

    def see_waiting(self, ticket: Timed) -> None:
        """It joined the backlog."""
        self._waiting_s[self._ranks[ticket.priority]] += ticket.service_s

    def see_gone(self, ticket: Timed) -> None:
        """It left the backlog, however."""
        rank = self._ranks[ticket.priority]
        left = self._waiting_s[rank] - ticket.service_s
        self._waiting_s[rank] = left if left > 0 and self._queues[rank].count else 0.0

    def see_started(self, ticket: Timed, now: float) -> None:
        """It got a slot."""
        self._loads[self._ranks[ticket.priority]].add(ticket.service_s, now)

    def forecast(self, priority: Priority, tenant: str, work: Work, free: int, slots: int, now: float) -> Forecast:
        """All zero while nothing is known."""
        service_s = self._rates.predict(work)
        wait_s = 0.0 if free else self.wait_s(priority, tenant, service_s, slots, now)
        return Forecast(wait_s, wait_s + self._rates.predict_first(work), wait_s + service_s)

    def wait_s(self, priority: Priority, tenant: str, service_s: float, slots: int, now: float) -> float:
        """Until a slot is its own, when all are taken; 0 while nothing is known."""
        if not self._rates.known:
            return 0.0
        rank = self._ranks[priority]
        queue = self._queues[rank]
        own_s = self._ahead_in_class(queue, self._waiting_s[rank], tenant, service_s) if queue.count else 0.0
        share = self._shares[rank]
        ahead_s, left = own_s, 1.0
        for i in range(rank):
            ahead_s += self._waiting_s[i]
            left -= self._loads[i].read(now) / slots
        for i in self._below[rank]:
            if self._queues[i].count:
                left -= self._shares[i]
        if left < share:
            left = share
        ahead_s /= max(_LEAST_PART, left)
        if share > 0 and own_s < ahead_s * share:
            ahead_s = own_s / share
        return (self._rates.service_s + ahead_s) / slots

    @staticmethod
    def _ahead_in_class(queue: FairQueue[T], waiting_s: float, tenant: str, service_s: float) -> float:
        """Seconds of service before its own in a fair order: others get no more each than its tenant has waiting."""
        tenants = queue.tenants
        own = tenants.get(tenant)
        if own is None:
            fair_s = len(tenants) * service_s
        else:
            own_s = own.work * waiting_s / queue.work if queue.work else 0.0
            fair_s = own_s + (len(tenants) - 1) * (own_s + service_s)
        return min(waiting_s, fair_s)
