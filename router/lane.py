"""A target's lane: waiting for one of its slots. All rules are in `router.slots`; here is only the waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from router.config.lanes import Lane as LaneSection
from router.errors import DeadlineError, OverloadedError
from router.forecast import Forecast
from router.rates import Rates, Sample, Work
from router.slots import Slots
from router.tickets import Demand, LaneStatistics, Refusal, State, Ticket

Clock = Callable[[], float]
_LEAST_NAP_S = 0.001
"""A loop's timers may be early by its clock's resolution."""


class Turn:
    """A slot while it is held."""

    def __init__(self, ticket: Ticket, clock: Clock) -> None:
        self.ticket = ticket
        self._clock = clock
        self.sample: Sample | None = None

    @property
    def wait_s(self) -> float:
        """How long it took to get it."""
        return self.ticket.wait_s

    def finish(self, work: Work, first_s: float | None = None) -> None:
        """The answer came to its end: what it took, and when its first token came, in seconds since the slot was had.

        Without this the slot's time teaches nothing of the target.
        """
        self.sample = Sample(work, self._clock() - self.ticket.started, first_s)


class Lane:
    """For one event loop."""

    def __init__(
        self,
        name: str,
        config: LaneSection,
        weights: Mapping[str, float] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """
        Args:
            name: The target's.
            config: Bounds and guarantees.
            weights: Of tenants; 1 for others.
            clock: That of the deadlines.
        """
        self.name = name
        self._clock = clock
        self._slots = Slots(config, Rates(), self._wake, weights)
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    @asynccontextmanager
    async def slot(self, demand: Demand) -> AsyncIterator[Turn]:
        """Hold a slot while the context is open; wait for it first.

        Raises:
            OverloadedError: refused at once, or displaced while waiting.
            DeadlineError: it became too late to start.
        """
        turn = await self.take(demand)
        try:
            yield turn
        finally:
            self.leave(turn)

    async def take(self, demand: Demand) -> Turn:
        """A slot, which must be left; otherwise as `slot`."""
        turn = Turn(self._slots.offer(demand, self._clock()), self._clock)
        try:
            if turn.ticket.state is State.WAITING:
                await self._wait(turn.ticket)
            self._check(turn.ticket)
        except BaseException:
            self.leave(turn)
            raise
        return turn

    def leave(self, turn: Turn) -> None:
        """Whatever happened, wherever: a slot that came while its owner left goes to the next."""
        self._slots.leave(turn.ticket, self._clock(), turn.sample)

    def forecast(self, demand: Demand) -> Forecast:
        """When it would begin and end if it came now."""
        return self._slots.forecast(demand, self._clock())

    def statistics(self) -> LaneStatistics:
        """The state now."""
        return self._slots.statistics(self._clock())

    async def _wait(self, ticket: Ticket) -> None:
        turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
        self._set_alarm()
        try:
            await turn
        finally:
            del self._turns[ticket]
            if not self._turns and self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

    def _wake(self, ticket: Ticket) -> None:
        turn = self._turns.get(ticket)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _set_alarm(self) -> None:
        """One timer for the earliest expiry of all."""
        at = self._slots.next_expiry()
        if at == float("inf") or (self._alarm is not None and self._alarm_at <= at):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        delay_s = max(at - self._clock(), _LEAST_NAP_S)
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._slots.expire(self._clock())
        self._set_alarm()

    def _check(self, ticket: Ticket) -> None:
        if ticket.state is State.EXPIRED:
            raise DeadlineError(f"The deadline passed before {self.name} had a free slot.")
        if ticket.state is not State.RUNNING:
            said = _SAID[ticket.refusal or Refusal.FULL]
            raise OverloadedError(f"{self.name} {said}", retry_after_s=ticket.retry_after_s)


_SAID = {
    Refusal.FULL: "has no room: its backlog is full; try later, or raise targets.*.lane.backlog.",
    Refusal.WAIT: "has no room: the wait would be longer than targets.*.lane.most_wait or aging_s allow.",
    Refusal.DEADLINE: "cannot answer before the deadline; try later or allow more time.",
}
