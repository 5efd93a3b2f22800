"""
A target's slots over its backlog: who runs, who waits, who is refused. Synchronous and pure: times are given, and the
simulator in `loadtests/queueing` runs this very code.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf

from router.backlog import Backlog
from router.concurrency import Gradient
from router.config.lanes import Lane as LaneSection
from router.forecast import Forecast, Forecaster
from router.query import Priority
from router.rates import Rates, Sample
from router.tickets import (
    OTHERS,
    ClassStatistics,
    Demand,
    LaneStatistics,
    Refusal,
    State,
    Tally,
    TenantStatistics,
    Ticket,
)

_LEARN_EVERY_S = 0.005
"""More answers than that teach the rates nothing new, and learning is a fifth of what a request costs."""
_MOST_TALLIES = 128
"""Of tenants, each by class; those that come later share one."""
_UNKNOWN_RETRY_S = 1.0
"""Until a first answer was measured."""


Notify = Callable[[Ticket], None]


class Slots:
    """Between calls either all slots are taken or nobody waits."""

    def __init__(
        self, config: LaneSection, rates: Rates, notify: Notify, weights: Mapping[str, float] | None = None
    ) -> None:
        """
        Args:
            config: Bounds and guarantees.
            rates: What is known of the target; learns from every answer.
            notify: Told of each waiting ticket whose state changed, but not by its owner. May not call back.
            weights: Of tenants.
        """
        shares = config.shares.by_class()
        self._doomed_part = config.doomed_part
        self._notify = notify
        self._backlog = Backlog[Ticket](config.backlog, shares, config.aging_s, weights)
        self._forecaster = Forecaster(rates, self._backlog, shares)
        self._rates = rates
        adaptive = config.adaptive
        self._gradient = (
            Gradient(adaptive.least, adaptive.most, adaptive.queue, adaptive.tolerance) if adaptive else None
        )
        self.slots = adaptive.least if adaptive else config.slots
        """How many may run."""
        self._running = 0
        self._ends: list[float] = []
        """When those that run are predicted to end, sorted."""
        self._learns_at = -inf
        self._promises: deque[float] = deque()
        """When those refused were told to come, if that is still to be."""
        self._most_wait_s = {p: min(config.most_wait.of(p) or inf, config.aging_s) for p in Priority}
        self._tallies: dict[tuple[str, Priority], Tally] = {}
        """Of each tenant and class."""

    @property
    def running(self) -> int:
        """How many do; more than `slots` only after those became fewer."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many do."""
        return len(self._backlog)

    def offer(self, demand: Demand, now: float) -> Ticket:
        """Ask for a slot. The ticket waits, runs, is refused, or is expired."""
        service_s = self._rates.predict(demand.work)
        deadline = demand.deadline
        start_by = deadline - self._doomed_part * service_s
        ticket = Ticket(demand, now, service_s, start_by, self._find_tally(demand.tenant, demand.priority))
        if deadline <= now:
            self._end(ticket, State.EXPIRED)
        elif start_by <= now:
            self._refuse(ticket, Refusal.DEADLINE, None)
        elif self._running < self.slots:
            self._start(ticket, now)
        else:
            self._queue(ticket, now)
        return ticket

    def leave(self, ticket: Ticket, now: float, sample: Sample | None = None) -> None:
        """The owner is done with it, whatever its state: the slot, if it holds one, goes to the next.

        Args:
            ticket: Of this lane; may be given back more than once.
            now: The time.
            sample: What the answer took; None when it did not come to its end.
        """
        if ticket.state is State.WAITING:
            self._backlog.cancel(ticket)
            self._forecaster.see_gone(ticket)
            self._end(ticket, State.CANCELLED)
        elif ticket.state is State.RUNNING:
            ticket.state = State.DONE
            self._running -= 1
            del self._ends[bisect_left(self._ends, ticket.ends)]
            ticket.tally.done += 1
            ticket.tally.service_s += now - ticket.started
            if sample is not None:
                self._learn(ticket, sample, now)
            self._fill(now)

    def expire(self, now: float) -> None:
        """Drop those that waited until it was too late to start."""
        self._report(self._backlog.expire(now))

    def _report(self, expired: Sequence[Ticket]) -> None:
        for ticket in expired:
            self._forecaster.see_gone(ticket)
            self._end(ticket, State.EXPIRED)
            self._notify(ticket)

    def next_expiry(self) -> float:
        """When to call `expire`, at the latest."""
        return self._backlog.next_expiry()

    def forecast(self, demand: Demand, now: float) -> Forecast:
        """When it would begin and end if it came now."""
        return self._forecaster.forecast(demand.priority, demand.tenant, demand.work, self._free(), self.slots, now)

    def statistics(self, now: float) -> LaneStatistics:
        """The state; O(tenants)."""
        classes = {}
        for priority in Priority:
            queue = self._backlog.of(priority)
            oldest = queue.oldest()
            waited = now - oldest.arrived if oldest else 0.0
            total = Tally.total(tally for (_, of), tally in self._tallies.items() if of is priority)
            classes[priority] = ClassStatistics(queue.count, queue.work, waited, total)
        return LaneStatistics(self.slots, self._running, self.waiting, classes, self._tenant_statistics())

    def _tenant_statistics(self) -> tuple[TenantStatistics, ...]:
        waiting = {key: [0, 0.0] for key in self._tallies}
        for priority in Priority:
            for tenant in self._backlog.of(priority).tenants.values():
                sums = waiting.get((tenant.name, priority)) or waiting[OTHERS, priority]
                sums[0] += tenant.count
                sums[1] += tenant.work
        found = (TenantStatistics(*key, int(count), work, self._tallies[key]) for key, (count, work) in waiting.items())
        return tuple(sorted(found, key=lambda one: one.waiting_tokens, reverse=True))

    def _free(self) -> int:
        return max(self.slots - self._running, 0)

    def _queue(self, ticket: Ticket, now: float) -> None:
        """All slots are taken: wait, unless that is hopeless or there is no room."""
        wait_s = self._forecaster.wait_s(ticket.priority, ticket.tenant, ticket.service_s, self.slots, now)
        in_time_s = ticket.deadline - now - ticket.service_s
        most_s = self._most_wait_s[ticket.priority]
        if wait_s > in_time_s or wait_s > most_s:
            # a queue that nobody joins gets shorter by a second a second
            refusal = Refusal.DEADLINE if in_time_s < most_s else Refusal.WAIT
            allowed_s = min(in_time_s, most_s)
            self._refuse(ticket, refusal, wait_s - allowed_s if allowed_s > 0 else None)
            return
        displaced = self._backlog.offer(ticket, now)
        if self._backlog.expired:
            self.expire(now)
        if displaced is ticket:
            self._refuse(ticket, Refusal.FULL, self._promise_room(now))
            return
        self._forecaster.see_waiting(ticket)
        if displaced is not None:
            displaced.refusal = Refusal.FULL
            displaced.retry_after_s = self._promise_room(now)
            self._forecaster.see_gone(displaced)
            self._end(displaced, State.SHED)
            self._notify(displaced)

    def _fill(self, now: float) -> None:
        """Free slots go to those who wait."""
        while self._running < self.slots and (ticket := self._backlog.take(now)) is not None:
            self._forecaster.see_gone(ticket)
            self._start(ticket, now)
            self._notify(ticket)
        if self._backlog.expired:
            self.expire(now)

    def _start(self, ticket: Ticket, now: float) -> None:
        self._running += 1
        ticket.state = State.RUNNING
        ticket.started = now
        ticket.ends = now + ticket.service_s
        insort(self._ends, ticket.ends)
        self._forecaster.see_started(ticket, now)
        ticket.tally.started += 1
        ticket.tally.wait_s += now - ticket.arrived

    def _learn(self, ticket: Ticket, sample: Sample, now: float) -> None:
        work = sample.work
        self._backlog.settle(ticket, work.prompt_tokens + work.completion_tokens)
        if now >= self._learns_at:
            self._rates.add(sample)
            if self._rates.known:
                self._learns_at = now + _LEARN_EVERY_S
        if self._gradient is not None and sample.service_s > 0:
            latency = sample.service_s / max(sample.work.completion_tokens, 1.0)
            self._gradient.add(latency, self._running + 1)
            self.slots = self._gradient.slots

    def _refuse(self, ticket: Ticket, refusal: Refusal, retry_after_s: float | None) -> None:
        ticket.refusal = refusal
        ticket.retry_after_s = retry_after_s
        self._end(ticket, State.REFUSED)

    def _end(self, ticket: Ticket, state: State) -> None:
        ticket.state = state
        match state:
            case State.REFUSED:
                ticket.tally.refused += 1
            case State.SHED:
                ticket.tally.shed += 1
            case State.EXPIRED:
                ticket.tally.expired += 1
            case _:
                ticket.tally.cancelled += 1

    def _find_tally(self, tenant: str, priority: Priority) -> Tally:
        tallies = self._tallies
        tally = tallies.get((tenant, priority))
        if tally is None:
            name = tenant if len(tallies) < _MOST_TALLIES else OTHERS
            tally = tallies.setdefault((name, priority), Tally())
        return tally

    def _promise_room(self, now: float) -> float:
        """Seconds until a place in the backlog gets free that was not promised to another one refused before.

        A place gets free whenever a slot does. Nobody keeps the promises, and not everybody comes back: they reach no
        further than until all that waits now is gone.
        """
        if not self._rates.known:
            return _UNKNOWN_RETRY_S
        service_s, ends, promises = self._rates.service_s, self._ends, self._promises
        while promises and promises[0] <= now:
            promises.popleft()
        turns, which = divmod(min(len(promises), self.waiting), len(ends) or 1)
        ends_at = ends[which] if ends else now
        if ends_at <= now:  # takes longer than predicted
            ends_at = now + service_s / self.slots
        at = max(ends_at + turns * service_s, promises[-1] if promises else now)
        if len(promises) <= self.waiting:
            promises.append(at)
        return at - now
