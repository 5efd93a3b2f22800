"""
What waits for a target, and who is next. Synchronous and pure: times are given. `router/LANES.md` has the proofs.

The next one is, in this order:
1. the oldest, if it has waited for the aging bound;
2. of the classes that are owed part of their guaranteed share, the most urgent;
3. the most urgent class.

Inside a class `router.tenants` decides. All methods are O(log n) or better, amortised.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

from router.query import Priority
from router.tenants import Entry, FairQueue

E = TypeVar("E", bound=Entry)
_SPARE = 64
_CLASSES = tuple(Priority)


class PriorityClass(FairQueue[E]):
    """A class with its guarantees: `share` of the work taken while it waits, and `room` in a full backlog.

    `debt` is what it is owed, in tokens: it grows by its share of what others take while it waits, and shrinks by what
    it takes itself ahead of more urgent work.
    """

    def __init__(self, priority: Priority, share: float, room: int, weights: Mapping[str, float], idle: int) -> None:
        super().__init__(weights, idle)
        self.priority = priority
        self.rank = _CLASSES.index(priority)
        self.share = share
        self.room = room
        self.debt = 0.0

    def see_other_served(self, work: float) -> None:
        """Another class took so much."""
        self.debt += self.share * work
        if not self.entries and self.debt > 0:
            self.debt = 0.0

    def see_served(self, work: float, *, ahead: bool) -> None:
        """It took so much itself, `ahead` of more urgent work or not.

        Work that delayed nobody more urgent is free: capacity that others leave is no loan.
        """
        floor = -work if ahead else min(self.debt, 0.0)
        self.debt = max(self.debt - (1 - self.share) * work, floor)
        if not self.entries and self.debt > 0:
            self.debt = 0.0


class Backlog(Generic[E]):
    """At most `capacity` entries, each in it once."""

    def __init__(
        self,
        capacity: int,
        shares: Mapping[Priority, float],
        aging_s: float = inf,
        weights: Mapping[str, float] | None = None,
        most_idle_tenants: int = 4096,
    ) -> None:
        """
        Args:
            capacity: Entries; 0 refuses everything.
            shares: Of the work, guaranteed to a class while it waits; 0 for those not named. At most 1 together.
            aging_s: Who has waited so long is next.
            weights: Of tenants inside a class, 1 for those not named.
            most_idle_tenants: Remembered in each class.
        """
        if sum(shares.values()) > 1 + 1e-9:
            raise ValueError("guaranteed shares are more than the whole")
        self.capacity = capacity
        self.aging_s = aging_s
        self._numbers = 0
        self._classes = tuple(
            PriorityClass[E](
                p, shares.get(p, 0.0), int(shares.get(p, 0.0) * capacity), weights or {}, most_idle_tenants
            )
            for p in _CLASSES
        )
        self._of = {c.priority: c for c in self._classes}
        self._expiries: list[tuple[float, int, E]] = []
        self._expired: list[E] = []

    def __len__(self) -> int:
        return sum([len(c.entries) for c in self._classes])

    def __contains__(self, entry: Entry) -> bool:
        return self._of[entry.priority].entries.get(entry.number) is entry

    def of(self, priority: Priority) -> PriorityClass[E]:
        """A class, to look at."""
        return self._of[priority]

    def offer(self, entry: E, now: float) -> E | None:
        """Let it wait. Returns who has no room for that: nobody, another that was waiting, or the entry itself."""
        self._drop_expired(now)
        displaced = None
        if len(self) >= self.capacity:
            displaced = self._find_displaced(entry)
            if displaced is None:
                return entry
            self._remove(displaced)
        self._numbers += 1
        entry.number = self._numbers
        self._of[entry.priority].add(entry)
        if entry.start_by < inf:
            heappush(self._expiries, (entry.start_by, entry.number, entry))
        return displaced

    def take(self, now: float) -> E | None:
        """The next one, which waits no more; never one that may not start any more."""
        self._drop_expired(now)
        oldest = self.oldest()
        if oldest is None:
            return None
        if now - oldest.arrived >= self.aging_s:
            entry, chosen = oldest, self._of[oldest.priority]
            chosen.serve(entry)
        else:
            chosen = self._choose()
            entry = chosen.take()
        ahead = False
        for other in self._classes:
            if other is chosen:
                other.see_served(entry.work, ahead=ahead)
            else:
                ahead = ahead or len(other) > 0
                other.see_other_served(entry.work)
        return entry

    def cancel(self, entry: E) -> bool:
        """It waits no more; False when it did not."""
        if entry not in self:
            return False
        self._remove(entry)
        return True

    def expire(self, now: float) -> list[E]:
        """Those that waited until they may not start any more, each reported once; they wait no more."""
        self._drop_expired(now)
        expired, self._expired = self._expired, []
        return expired

    def settle(self, entry: E, used: float) -> None:
        """A taken entry is over; `used` is its work as it turned out."""
        self._of[entry.priority].settle(entry, used)

    def next_expiry(self) -> float:
        """When the next one expires, if it waits so long; infinite if none can. O(1)."""
        self._drop_dead_expiries()
        return self._expiries[0][0] if self._expiries else inf

    def oldest(self) -> E | None:
        """Who waits longest."""
        oldest: E | None = None
        for candidate in self._classes:
            if candidate.entries:
                entry = next(iter(candidate.entries.values()))
                if oldest is None or entry.number < oldest.number:
                    oldest = entry
        return oldest

    def _choose(self) -> PriorityClass[E]:
        waiting = [c for c in self._classes if c.entries]
        for candidate in waiting[1:]:
            if candidate.debt > 0:
                return candidate
        return waiting[0]

    def _find_displaced(self, entry: E) -> E | None:
        """Who makes room in a full backlog: of the least urgent class that is over its room, the heaviest tenant's
        last.

        For a class under its own room that may be a more urgent one: without room a guaranteed share is worth nothing.
        Its own class gives way if the heaviest tenant waits with more than the arrival's, the arrival included.
        """
        own = self._of[entry.priority]
        for candidate in reversed(self._classes):
            if candidate is own:
                heaviest = own.heaviest()
                if heaviest is not None and heaviest.load > self._load_with(own, entry):
                    return heaviest.latest()
                if len(own) >= own.room:
                    return None
            elif len(candidate) > candidate.room:
                heaviest = candidate.heaviest()
                return heaviest.latest() if heaviest else None
        return None

    @staticmethod
    def _load_with(own: PriorityClass[E], entry: E) -> float:
        tenant = own.tenants.get(entry.tenant)
        if tenant is None:
            return entry.work / own.weight(entry.tenant)
        return (tenant.work + entry.work) / tenant.weight

    def _remove(self, entry: E) -> None:
        chosen = self._of[entry.priority]
        chosen.remove(entry)
        if not chosen and chosen.debt > 0:
            chosen.debt = 0.0

    def _drop_expired(self, now: float) -> None:
        expiries = self._expiries
        while expiries and expiries[0][0] <= now:
            entry = heappop(expiries)[2]
            if entry in self:
                self._remove(entry)
                self._expired.append(entry)
        if len(expiries) > _SPARE and len(expiries) > 2 * len(self) + _SPARE:
            self._expiries = [item for item in expiries if item[2] in self]
            heapify(self._expiries)

    def _drop_dead_expiries(self) -> None:
        while self._expiries and self._expiries[0][2] not in self:
            heappop(self._expiries)
