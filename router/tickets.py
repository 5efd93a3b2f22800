"""
What a lane knows of a request, and what it says of itself.

A ticket's states, every one but the first two final:

    offer -> WAITING -> RUNNING -> DONE
          |          |-> EXPIRED     too late to start
          |          |-> SHED        its place went to a more urgent one
          |          '-> CANCELLED   its owner left
          |-> RUNNING
          '-> REFUSED, EXPIRED
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from math import inf
from typing import Final, Self

from msgspec import Struct

from router.query import Priority
from router.rates import Work
from router.tenants import Entry

OTHERS: Final = "(others)"
"""No tenant's name."""


class State(StrEnum):
    """Of a ticket."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    SHED = "shed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Refusal(StrEnum):
    """Why there was no place. Metric label and part of the error alike."""

    FULL = "full"
    WAIT = "wait"
    DEADLINE = "deadline"


class Demand(Struct, frozen=True, gc=False):
    """What a request asks of a lane; `work` is an estimate, `deadline` on the lane's clock."""

    priority: Priority
    tenant: str
    work: Work
    deadline: float = inf


@dataclass(slots=True)
class Tally:
    """What became of tickets since the start; seconds are sums over those started, and over those done."""

    started: int = 0
    done: int = 0
    refused: int = 0
    shed: int = 0
    expired: int = 0
    cancelled: int = 0
    wait_s: float = 0.0
    service_s: float = 0.0

    @classmethod
    def total(cls, tallies: Iterable[Self]) -> Self:
        """The sum of some."""
        return cls(*map(sum, zip(*map(astuple, tallies), strict=True)))


class Ticket(Entry):
    """A demand's standing. `service_s` is predicted; `started` counts once it runs; `tally` counts its end."""

    __slots__ = ("demand", "ends", "refusal", "retry_after_s", "service_s", "started", "state", "tally")

    def __init__(self, demand: Demand, arrived: float, service_s: float, start_by: float, tally: Tally) -> None:
        work = demand.work
        tokens = work.prompt_tokens + work.completion_tokens
        super().__init__(demand.priority, demand.tenant, tokens, arrived, demand.deadline, start_by)
        self.demand = demand
        self.service_s = service_s
        self.tally = tally
        self.state = State.WAITING
        self.started = arrived
        self.ends = inf
        self.refusal: Refusal | None = None
        self.retry_after_s: float | None = None

    @property
    def wait_s(self) -> float:
        """From arrival to start."""
        return self.started - self.arrived


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """A class now, and since the start."""

    waiting: int
    waiting_tokens: float
    oldest_wait_s: float
    count: Tally

    @classmethod
    def total(cls, classes: Sequence[Self]) -> Self:
        """Of one class in several processes."""
        return cls(
            sum(one.waiting for one in classes),
            sum(one.waiting_tokens for one in classes),
            max(one.oldest_wait_s for one in classes),
            Tally.total(one.count for one in classes),
        )


@dataclass(frozen=True, slots=True)
class TenantStatistics:
    """A tenant's tickets of one class now, and since the start. Those beyond the first few share the name `OTHERS`."""

    tenant: str
    priority: Priority
    waiting: int
    waiting_tokens: float
    count: Tally

    @classmethod
    def total(cls, tenants: Sequence[Self]) -> Self:
        """Of one tenant and class in several processes."""
        waiting, tokens = sum(one.waiting for one in tenants), sum(one.waiting_tokens for one in tenants)
        return cls(tenants[0].tenant, tenants[0].priority, waiting, tokens, Tally.total(one.count for one in tenants))


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A lane now. `tenants` with the most waiting first."""

    slots: int
    running: int
    backlog: int
    classes: Mapping[Priority, ClassStatistics]
    tenants: tuple[TenantStatistics, ...]

    @classmethod
    def total(cls, lanes: Sequence[Self]) -> Self:
        """Of one target's lanes in several processes."""
        classes = {p: ClassStatistics.total([lane.classes[p] for lane in lanes]) for p in lanes[0].classes}
        by_tenant: dict[tuple[str, Priority], list[TenantStatistics]] = {}
        for one in (tenant for lane in lanes for tenant in lane.tenants):
            by_tenant.setdefault((one.tenant, one.priority), []).append(one)
        tenants = sorted(map(TenantStatistics.total, by_tenant.values()), key=lambda t: t.waiting_tokens, reverse=True)
        slots, running, backlog = (sum(c) for c in zip(*((n.slots, n.running, n.backlog) for n in lanes), strict=True))
        return cls(slots, running, backlog, classes, tuple(tenants))
