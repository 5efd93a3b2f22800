"""
One class's waiting entries: fair by work between tenants, earliest deadline first inside a tenant.

Between tenants it is start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", IEEE/ACM ToN 5(5), 1997):
a tenant's next entry has a start tag in virtual time, the smallest tag goes first, and being served moves the tenant's
tag on by work over weight. Fair whatever the speed of the target, and blind to lengths that are only known afterwards:
`settle` makes those good on the tenant's next turn.

Who stops waiting is only marked; heaps and lists lose the dead when they meet them, and are rebuilt before the dead are
more than the living.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import Generic, TypeVar

from router.query import Priority

SPARE = 64
"""So many dead items may stand beside as many as are alive, before a rebuild."""
_HEADROOM = 1.25
"""A tenant's load may grow by this before it is said anew."""


class Entry:
    """A request that waits. Times are in seconds on the owner's clock, `work` in estimated tokens.

    From `start_by` on it may not start any more; never after `deadline`, which orders it inside its tenant.
    """

    __slots__ = ("arrived", "deadline", "number", "priority", "start_by", "tenant", "waits", "work")

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
        self.start_by = min(deadline, start_by)
        self.number = 0
        """The backlog's own, in the order of arrival."""
        self.waits = False
        """Whether it is in a backlog; the backlog's own."""


E = TypeVar("E", bound=Entry)


class Tenant(Generic[E]):
    """A tenant's entries of one class. `start` is the start tag of its next one, in tokens of virtual time."""

    __slots__ = ("claimed", "correction", "count", "name", "order", "stack", "start", "tagged", "weight", "work")

    def __init__(self, name: str, weight: float, start: float) -> None:
        self.name = name
        self.weight = weight
        self.start = start
        self.correction = 0.0
        """Tokens used beyond the estimates, less than none if fewer; paid at the next turn."""
        self.order: list[tuple[float, int, E]] = []
        self.stack: list[E] = []
        """In the order of arrival."""
        self.count = 0
        self.work = 0.0
        self.tagged = False
        """Whether an item of it is in the heap of start tags."""
        self.claimed = 0.0
        """The load that its item in the heap of loads claims, at least the true one; 0 without an item."""

    def rebuild(self) -> None:
        """Leave the dead behind."""
        self.order = [item for item in self.order if item[2].waits]
        heapify(self.order)
        self.stack = [entry for entry in self.stack if entry.waits]

    def latest(self) -> E:
        """The one that came last."""
        stack = self.stack
        while not stack[-1].waits:
            stack.pop()
        return stack[-1]

    def pay(self, work: float, floor: float) -> None:
        """Move the start tag on by what was taken; what was used less than estimated before shortens the move."""
        if self.correction:
            work += self.correction
            self.correction = min(work, 0.0)
            work = max(work, 0.0)
        self.start = (max(self.start, floor)) + work / self.weight


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
        self._idle: OrderedDict[str, Tenant[E]] = OrderedDict()
        self._starts: list[tuple[float, int, Tenant[E]]] = []
        self._loads: list[tuple[float, int, Tenant[E]]] = []
        self._arrivals: deque[E] = deque()
        self.tenants: dict[str, Tenant[E]] = {}
        """Those that wait. Not to be changed from outside, like the two below."""
        self.count = 0
        """Waiting."""
        self.work = 0.0
        """Waiting, in tokens."""

    def add(self, entry: E) -> None:
        """One more; `entry.number` is unique and rising."""
        tenant = self.tenants.get(entry.tenant)
        if tenant is None:
            tenant = self._wake(entry.tenant)
        entry.waits = True
        self.count += 1
        self.work += entry.work
        self._arrivals.append(entry)
        tenant.count += 1
        tenant.work += entry.work
        tenant.stack.append(entry)
        heappush(tenant.order, (entry.deadline, entry.number, entry))
        load = tenant.work / tenant.weight
        if load > tenant.claimed:
            self._claim(tenant, load * _HEADROOM)

    def take(self) -> E:
        """The next in fair order; there must be one."""
        starts = self._starts
        while True:
            start, _, tenant = starts[0]
            if not tenant.count:
                heappop(starts)
                tenant.tagged = False
            elif start < tenant.start:
                self._ticks += 1
                heapreplace(starts, (tenant.start, self._ticks, tenant))
            else:
                break
        self._virtual = start
        order = tenant.order
        while not order[0][2].waits:
            heappop(order)
        entry = heappop(order)[2]
        tenant.pay(entry.work, start)
        self._forget(entry, tenant)
        return entry

    def serve(self, entry: E) -> None:
        """Take this one, whoever is next; its tenant pays all the same."""
        tenant = self.tenants[entry.tenant]
        tenant.pay(entry.work, self._virtual)
        self._forget(entry, tenant)

    def remove(self, entry: E) -> None:
        """Without being served."""
        self._forget(entry, self.tenants[entry.tenant])

    def oldest(self) -> E | None:
        """Who waits longest."""
        if not self.count:
            return None
        arrivals = self._arrivals
        while not arrivals[0].waits:
            arrivals.popleft()
        return arrivals[0]

    def settle(self, entry: E, difference: float) -> None:
        """A taken entry used so many tokens more than its work: its tenant's next turn comes so much later."""
        tenant = self.tenants.get(entry.tenant) or self._idle.get(entry.tenant)
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
            claim, _, tenant = loads[0]
            if -claim != tenant.claimed:
                heappop(loads)
            elif not tenant.count:
                heappop(loads)
                tenant.claimed = 0.0
            elif (load := tenant.work / tenant.weight) < tenant.claimed:
                heappop(loads)
                self._claim(tenant, load)
            else:
                return tenant
        return None

    def load_with(self, entry: E) -> float:
        """Waiting work over weight of the entry's tenant, if it waited too."""
        tenant = self.tenants.get(entry.tenant)
        if tenant is None:
            return entry.work / self._weights.get(entry.tenant, 1.0)
        return (tenant.work + entry.work) / tenant.weight

    def _make(self, name: str) -> Tenant[E]:
        return Tenant(name, self._weights.get(name, 1.0), self._virtual)

    def _wake(self, name: str) -> Tenant[E]:
        """A tenant that had nothing waiting; time that it let pass gives it nothing."""
        tenant = self._idle.pop(name, None) or self._make(name)
        tenant.start = max(tenant.start, self._virtual)
        self.tenants[name] = tenant
        if not tenant.tagged:
            tenant.tagged = True
            self._ticks += 1
            heappush(self._starts, (tenant.start, self._ticks, tenant))
        return tenant

    def _forget(self, entry: E, tenant: Tenant[E]) -> None:
        entry.waits = False
        self.count -= 1
        self.work -= entry.work
        tenant.count -= 1
        tenant.work -= entry.work
        if not tenant.count:
            tenant.work = 0.0  # sums of floats drift
            if not self.count:
                self.work = 0.0
            del self.tenants[tenant.name]
            self._remember(tenant)
        most = 2 * tenant.count + SPARE
        if len(tenant.stack) > most or len(tenant.order) > most:
            tenant.rebuild()
        if len(self._arrivals) > 2 * self.count + SPARE:
            self._arrivals = deque([other for other in self._arrivals if other.waits])

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
        if len(self._starts) > 2 * len(self.tenants) + SPARE:
            for _, _, other in self._starts:
                other.tagged = other.count > 0
            self._starts = [item for item in self._starts if item[2].count]
            heapify(self._starts)

    def _claim(self, tenant: Tenant[E], load: float) -> None:
        """Say a tenant's load in the heap of loads, or a bound of it."""
        tenant.claimed = load
        self._ticks += 1
        heappush(self._loads, (-load, self._ticks, tenant))
        if len(self._loads) > 2 * len(self.tenants) + SPARE:
            live = [item for item in self._loads if -item[0] == item[2].claimed and item[2].count]
            for _, _, other in self._loads:
                other.claimed = 0.0
            for claim, _, other in live:
                other.claimed = -claim
            self._loads = live
            heapify(live)
