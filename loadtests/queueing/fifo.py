"""What lanes are measured against: first come, first served, with the same bound and the same dropping of late work."""

from collections import deque
from heapq import heappop, heappush

from router.config.lanes import Lane as LaneSection
from router.rates import Rates, Sample
from router.slots import Notify
from router.tickets import Demand, Refusal, State, Tally, Ticket


class FifoSlots:
    """The same calls as `router.slots.Slots`."""

    def __init__(self, config: LaneSection, rates: Rates, notify: Notify) -> None:
        self._config = config
        self._rates = rates
        self._notify = notify
        self._waiting: deque[Ticket] = deque()
        self._expiries: list[tuple[float, int, Ticket]] = []
        self._count = 0
        self._number = 0
        self._tally = Tally()
        self.running = 0

    def offer(self, demand: Demand, now: float) -> Ticket:
        """Ask for a slot."""
        self._expire(now)
        service_s = self._rates.predict(demand.work)
        start_by = demand.deadline - self._config.doomed_part * service_s
        ticket = Ticket(demand, now, service_s, start_by, self._tally)
        if start_by <= now:
            ticket.state = State.EXPIRED
        elif self.running < self._config.slots:
            self._start(ticket, now)
        elif self._count >= self._config.backlog:
            ticket.state, ticket.refusal = State.REFUSED, Refusal.FULL
        else:
            self._number += 1
            self._count += 1
            self._waiting.append(ticket)
            heappush(self._expiries, (start_by, self._number, ticket))
        return ticket

    def leave(self, ticket: Ticket, now: float, sample: Sample | None = None) -> None:
        """The owner is done with its slot."""
        ticket.state = State.DONE
        self.running -= 1
        if sample is not None:
            self._rates.add(sample)
        self._expire(now)
        while self._waiting and self.running < self._config.slots:
            following = self._waiting.popleft()
            if following.state is State.WAITING:
                self._count -= 1
                self._start(following, now)
                self._notify(following)

    def _start(self, ticket: Ticket, now: float) -> None:
        self.running += 1
        ticket.state, ticket.started = State.RUNNING, now

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            ticket = heappop(self._expiries)[2]
            if ticket.state is State.WAITING:
                ticket.state = State.EXPIRED
                self._count -= 1
