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

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from msgspec import Struct

from router.query import Priority
from router.rates import Work
from router.tenants import Entry


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


class Ticket(Entry):
    """A demand's standing. `service_s` is predicted; `started` counts once it runs."""

    __slots__ = ("demand", "ends", "refusal", "retry_after_s", "service_s", "started", "state")

    def __init__(self, demand: Demand, arrived: float, service_s: float, start_by: float) -> None:
        work = demand.work
        tokens = work.prompt_tokens + work.completion_tokens
        super().__init__(demand.priority, demand.tenant, tokens, arrived, demand.deadline, start_by)
        self.demand = demand
        self.service_s = service_s
        self.state = State.WAITING
        self.started = arrived
        self.ends = inf
        self.refusal: Refusal | None = None
        self.retry_after_s: float | None = None

    @property
    def wait_s(self) -> float:
        """From arrival to start."""
        return self.started - self.arrived


@dataclass(slots=True)
class ClassCount:
    """What became of a class's tickets since the start; seconds are sums over those started, and over those done."""

    started: int = 0
    done: int = 0
    refused: int = 0
    shed: int = 0
    expired: int = 0
    cancelled: int = 0
    wait_s: float = 0.0
    service_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """A class now, and since the start."""

    waiting: int
    waiting_tokens: float
    oldest_wait_s: float
    count: ClassCount


@dataclass(frozen=True, slots=True)
class TenantStatistics:
    """What a tenant has waiting."""

    tenant: str
    priority: Priority
    waiting: int
    waiting_tokens: float


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A lane now. `tenants` are those with the most waiting."""

    slots: int
    running: int
    backlog: int
    classes: Mapping[Priority, ClassStatistics]
    tenants: tuple[TenantStatistics, ...]
