"""
One class's waiting entries: fair by work between tenants, earliest deadline first inside a tenant.

Between tenants it is start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", IEEE/ACM ToN 5(5), 1997):
a tenant's next entry has a start tag in virtual time, the smallest tag goes first, and being served moves the tenant's
tag on by work over weight. Fair whatever the speed of the target, and blind to lengths that are only known afterwards:
`settle` makes those good on the tenant's next turn.
"""

from collections import OrderedDict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import Generic, TypeVar

from router.query import Priority

_SPARE = 64
"""So many dead items may a heap hold beside as many as are alive, before it is rebuilt."""


class Entry:
    """A request that waits. Times are in seconds on the owner's clock, `work` in estimated tokens.

    From `start_by` on it may not start any more; never after `deadline`, which orders it inside its tenant.
    """

    __slots__ = ("arrived", "deadline", "number", "priority", "start_by", "tenant", "work")

    def __init__(
        self,
        priority: Priority,
        tenant: str,
        work: float,
        arrived: float,
        deadline: float = inf,
        start_by: float = inf,
    ) -> None:
        self.priority = priority
        self.tenant = tenant
        self.work = work
        self.arrived = arrived
        self.deadline = deadline
        self.start_by = min(start_by, deadline)
        self.number = 0
        """The backlog's own, in the order of arrival."""


E = TypeVar("E", bound=Entry)


class Tenant(Generic[E]):
    """A tenant's entries of one class. `start` is the start tag of its next one, in tokens of virtual time."""

    __slots__ = ("correction", "name", "order", "ranked", "start", "tagged", "waiting", "weight", "work")

    def __init__(self, name: str, weight: float, start: float) -> None:
        self.name = name
        self.weight = weight
        self.start = start
        self.correction = 0.0
        """Tokens used beyond the estimates, less than none if fewer; paid at the next turn."""
        self.waiting: OrderedDict[int, E] = OrderedDict()
        self.order: list[tuple[float, int]] = []
        self.work = 0.0
        self.tagged = False
        """Whether an item of it is in the heap of start tags."""
        self.ranked = 0.0
        """The load that its item in the heap of loads says; 0 without one. Never below the true load."""

    @property
    def load(self) -> float:
        """Waiting work over weight."""
        return self.work / self.weight

    def add(self, entry: E) -> None:
        """One more."""
        self.waiting[entry.number] = entry
        self.work += entry.work
        heappush(self.order, (entry.deadline, entry.number))

    def drop(self, entry: E) -> None:
        """Not waiting any more; its place in the order is cleaned up later."""
        del self.waiting[entry.number]
        self.work = self.work - entry.work if self.waiting else 0.0
        if len(self.order) > 2 * len(self.waiting) + _SPARE:
            self.order = [item for item in self.order if item[1] in self.waiting]
            heapify(self.order)

    def first(self) -> E:
        """The one with the earliest deadline, and of those the longest waiting."""
        order, waiting = self.order, self.waiting
        while order[0][1] not in waiting:
            heappop(order)
        return waiting[order[0][1]]

    def latest(self) -> E:
        """The one that came last."""
        return self.waiting[next(reversed(self.waiting))]

    def pay(self, work: float, floor: float) -> None:
        """Move the start tag on by what was taken; what was used less than estimated before shortens the move."""
        due = work + self.correction
        self.correction = min(due, 0.0)
        self.start = max(self.start, floor) + max(due, 0.0) / self.weight


class FairQueue(Generic[E]):
    """All of a class. Every method is O(log n), amortised."""

    def __init__(self, weights: Mapping[str, float], most_idle: int) -> None:
        """
        Args:
            weights: By tenant; 1 for those not named.
            most_idle: How many tenants without waiting work are remembered for what they were served last.
        """
        self._weights = weights
        self._most_idle = most_idle
        self._virtual = 0.0
        self._ticks = 0
        self._tenants: dict[str, Tenant[E]] = {}
        self._idle: OrderedDict[str, Tenant[E]] = OrderedDict()
        self._starts: list[tuple[float, int, Tenant[E]]] = []
        self._loads: list[tuple[float, int, Tenant[E]]] = []
        self.entries: OrderedDict[int, E] = OrderedDict()
        """All that wait, in the order of arrival."""
        self.work = 0.0
        """Waiting, in tokens."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def tenants(self) -> Mapping[str, Tenant[E]]:
        """Those that wait."""
        return self._tenants

    def weight(self, name: str) -> float:
        """A tenant's."""
        return self._weights.get(name, 1.0)

    def add(self, entry: E) -> None:
        """One more; `entry.number` is unique and rising."""
        tenant = self._tenants.get(entry.tenant) or self._wake(entry.tenant)
        tenant.add(entry)
        self.entries[entry.number] = entry
        self.work += entry.work
        if tenant.load > tenant.ranked:
            self._rank(tenant)

    def take(self) -> E:
        """The next in fair order; there must be one."""
        starts = self._starts
        while True:
            start, _, tenant = starts[0]
            if not tenant.waiting:
                heappop(starts)
                tenant.tagged = False
            elif start < tenant.start:
                heapreplace(starts, (tenant.start, self._tick(), tenant))
            else:
                break
        self._virtual = start
        entry = tenant.first()
        self.serve(entry)
        return entry

    def serve(self, entry: E) -> None:
        """Take this one, whoever is next; its tenant pays all the same."""
        tenant = self._tenants[entry.tenant]
        tenant.pay(entry.work, self._virtual)
        self.remove(entry)

    def remove(self, entry: E) -> None:
        """Without being served."""
        tenant = self._tenants[entry.tenant]
        tenant.drop(entry)
        del self.entries[entry.number]
        self.work = self.work - entry.work if self.entries else 0.0
        if not tenant.waiting:
            del self._tenants[tenant.name]
            self._remember(tenant)

    def settle(self, entry: E, used: float) -> None:
        """A taken entry is over and used so many tokens: its tenant's next turn comes so much later or sooner."""
        difference = used - entry.work
        tenant = self._tenants.get(entry.tenant) or self._idle.get(entry.tenant)
        if tenant is not None:
            tenant.correction += difference
        elif difference > 0:
            tenant = self._make(entry.tenant)
            tenant.correction = difference
            self._remember(tenant)

    def heaviest(self) -> Tenant[E] | None:
        """The tenant with the largest load."""
        loads = self._loads
        while loads:
            claimed, _, tenant = loads[0]
            if -claimed != tenant.ranked:
                heappop(loads)
            elif not tenant.waiting:
                heappop(loads)
                tenant.ranked = 0.0
            elif tenant.load < tenant.ranked:
                heappop(loads)
                self._rank(tenant)
            else:
                return tenant
        return None

    def _make(self, name: str) -> Tenant[E]:
        return Tenant(name, self.weight(name), self._virtual)

    def _wake(self, name: str) -> Tenant[E]:
        """A tenant that had nothing waiting; time that it let pass gives it nothing."""
        tenant = self._idle.pop(name, None) or self._make(name)
        tenant.start = max(tenant.start, self._virtual)
        self._tenants[name] = tenant
        if not tenant.tagged:
            tenant.tagged = True
            heappush(self._starts, (tenant.start, self._tick(), tenant))
        return tenant

    def _remember(self, tenant: Tenant[E]) -> None:
        """What an idle tenant was served counts until virtual time has passed it."""
        idle = self._idle
        idle[tenant.name] = tenant
        while idle:
            oldest = next(iter(idle.values()))
            passed = oldest.start <= self._virtual and oldest.correction <= 0
            if not passed and len(idle) <= self._most_idle:
                break
            del idle[oldest.name]
        if len(self._starts) > 2 * len(self._tenants) + _SPARE:
            self._drop_idle_tags()

    def _drop_idle_tags(self) -> None:
        for _, _, tenant in self._starts:
            tenant.tagged = bool(tenant.waiting)
        self._starts = [item for item in self._starts if item[2].waiting]
        heapify(self._starts)

    def _rank(self, tenant: Tenant[E]) -> None:
        """Say a tenant's load in the heap of loads."""
        tenant.ranked = tenant.load
        heappush(self._loads, (-tenant.ranked, self._tick(), tenant))
        if len(self._loads) > 2 * len(self._tenants) + _SPARE:
            for _, _, other in self._loads:
                other.ranked = 0.0
            live = list(self._tenants.values())
            for other in live:
                other.ranked = other.load
            self._loads = [(-other.ranked, self._tick(), other) for other in live]
            heapify(self._loads)

    def _tick(self) -> int:
        """Breaks ties in the order of asking."""
        self._ticks += 1
        return self._ticks
