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
from router.tenants import SPARE, Entry, FairQueue

E = TypeVar("E", bound=Entry)
_CLASSES = tuple(Priority)
_LOAN_TURNS = 4
"""A class owes at most so many of its turns: capacity that others left counts against it a little, so that work more
urgent need not make way for it in the next turns already, but for no longer.
"""


class PriorityClass(FairQueue[E]):
    """A class with its guarantees: `share` of the work taken while it waits, and `room` in a full backlog.

    `debt` is what it is owed, in tokens: it grows by its share of what others take, and shrinks by what it takes itself
    beyond its share of that; below zero it has had more.
    """

    def __init__(self, share: float, room: int, weights: Mapping[str, float], most_idle: int) -> None:
        super().__init__(weights, most_idle)
        self.share = share
        self.room = room
        self.debt = 0.0

    def forgive(self) -> None:
        """Nothing is owed to a class that wants nothing."""
        if self.debt > 0 and not self.count:
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
        self._count = 0
        self._aged_at = inf
        """Nobody has waited for the aging bound before."""
        self._of = {
            p: PriorityClass[E](share, int(share * capacity), weights or {}, most_idle_tenants)
            for p in _CLASSES
            for share in (shares.get(p, 0.0),)
        }
        self._classes = tuple(self._of.values())
        self._expiries: list[tuple[float, int, E]] = []
        self.expired: list[E] = []
        """Those not reported yet."""

    def __len__(self) -> int:
        return self._count

    def of(self, priority: Priority) -> PriorityClass[E]:
        """A class, to look at."""
        return self._of[priority]

    def offer(self, entry: E, now: float) -> E | None:
        """Let it wait. Returns who has no room for that: nobody, another that was waiting, or the entry itself."""
        expiries = self._expiries
        if expiries and expiries[0][0] <= now:
            self._drop_expired(now)
        displaced = None
        if self._count >= self.capacity:
            displaced = self._find_displaced(entry)
            if displaced is None:
                return entry
            self._remove(displaced)
        if not self._count:
            self._aged_at = entry.arrived + self.aging_s
        self._numbers += 1
        self._count += 1
        entry.number = self._numbers
        self._of[entry.priority].add(entry)
        if entry.start_by < inf:
            heappush(self._expiries, (entry.start_by, entry.number, entry))
            if len(self._expiries) > 2 * self._count + SPARE:
                self._expiries = [item for item in self._expiries if item[2].waits]
                heapify(self._expiries)
        return displaced

    def take(self, now: float) -> E | None:
        """The next one, which waits no more; never one that may not start any more."""
        expiries = self._expiries
        if expiries and expiries[0][0] <= now:
            self._drop_expired(now)
        if not self._count:
            return None
        aged = self._find_aged(now) if now >= self._aged_at else None
        if aged is None:
            chosen = self._choose()
            entry = chosen.take()
        else:
            chosen, entry = self._of[aged.priority], aged
            chosen.serve(entry)
        self._count -= 1
        self._account(chosen, entry.work)
        return entry

    def cancel(self, entry: E) -> bool:
        """It waits no more; False when it did not."""
        if not entry.waits:
            return False
        self._remove(entry)
        return True

    def expire(self, now: float) -> list[E]:
        """Those that waited until they may not start any more, each reported once; they wait no more."""
        self._drop_expired(now)
        expired, self.expired = self.expired, []
        return expired

    def settle(self, entry: E, used: float) -> None:
        """A taken entry is over; `used` is its work as it turned out, for which its class and tenant answer."""
        difference = used - entry.work
        if not difference:
            return
        chosen = self._of[entry.priority]
        chosen.settle(entry, difference)
        for other in self._classes:
            other.debt += other.share * difference
        chosen.debt -= difference
        for other in self._classes:
            other.forgive()

    def next_expiry(self) -> float:
        """When the next one expires, if it waits so long; infinite if none can."""
        expiries = self._expiries
        while expiries and not expiries[0][2].waits:
            heappop(expiries)
        return expiries[0][0] if expiries else inf

    def _find_aged(self, now: float) -> E | None:
        """The oldest, if its time has come."""
        heads = [head for c in self._classes if (head := c.oldest()) is not None]
        oldest = min(heads, key=_arrived)
        self._aged_at = oldest.arrived + self.aging_s
        return oldest if now >= self._aged_at else None

    def _choose(self) -> PriorityClass[E]:
        first = None
        for candidate in self._classes:
            if candidate.count:
                if first is None:
                    first = candidate
                elif candidate.debt > 0:
                    return candidate
        return first or self._classes[0]

    def _account(self, chosen: PriorityClass[E], work: float) -> None:
        """What a class took, and what the others are owed for that."""
        for other in self._classes:
            debt = other.debt + other.share * work
            if other is chosen:
                debt -= work
                if debt < -_LOAN_TURNS * work:
                    debt = -_LOAN_TURNS * work
            other.debt = debt if other.count or debt < 0 else 0.0

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
                if heaviest is not None and heaviest.work / heaviest.weight > own.load_with(entry):
                    return heaviest.latest()
                if own.count >= own.room:
                    return None
            elif candidate.count > candidate.room:
                heaviest = candidate.heaviest()
                return heaviest.latest() if heaviest else None
        return None

    def _remove(self, entry: E) -> None:
        self._count -= 1
        chosen = self._of[entry.priority]
        chosen.remove(entry)
        chosen.forgive()

    def _drop_expired(self, now: float) -> None:
        expiries = self._expiries
        while expiries and expiries[0][0] <= now:
            entry = heappop(expiries)[2]
            if entry.waits:
                self._remove(entry)
                self.expired.append(entry)


def _arrived(entry: Entry) -> tuple[float, int]:
    return entry.arrived, entry.number
