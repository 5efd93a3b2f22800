"""Money an hour or a day, spent evenly on the hardest queries, and never more."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from router.config import BudgetPolicy
from router.decision import Target, Tier
from router.policy.ledger import Allowance, Clock, Hold, Ledger, Memory, Period
from router.policy.money import Tariff, picos
from router.policy.recent import Dither, RecentScores
from router.policy.seam import FreeReservation, Reservation, Statistics
from router.query import Query, Usage

_SCORES = 512
"""How many of the last scores say where the line is and how fast requests come."""
_FEWEST = 20
"""Fewer scores say neither."""
_COSTS = 256
"""Over about how many calls the mean cost is taken."""
_DOUBT = 1.0
"""Standard deviations by which requests may come slower than counted: chance alone shall withhold nothing. That this
spends a little early is what the ledger's rate makes good."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A scored request's time, and how many calls were reserved and scored requests sent to the cloud before it."""

    at: float
    calls: int
    sent: int


class Mean:
    """A running mean over about the last `span` values, exact until there are as many; `start` before the first."""

    def __init__(self, span: int, start: float) -> None:
        self._span = span
        self._count = 0
        self.value = start

    def add(self, value: float) -> None:
        """One more value."""
        self._count = min(self._count + 1, self._span)
        self.value += (value - self.value) / self._count


class Budget:
    """The ledger refuses what the money cannot pay; the threshold keeps that rare.

    The rate at which the money lasts, over the mean cost of a call, is how many calls are affordable a second. Those
    that no score decides (`model=cloud`) come off first; over the rate of scored requests, the rest is the share that
    may go, and the quantile of the last scores at that share is the threshold. When all may go it is `least_score`.
    """

    def __init__(
        self, config: BudgetPolicy, tariffs: Mapping[str, Tariff], clock: Clock, memory: Memory | None
    ) -> None:
        """
        Args:
            config: Limits in the currency of the prices.
            tariffs: By target's name; a target without one is free.
            clock: Seconds since 1970, UTC.
            memory: Where the ledger survives a restart.
        """
        self._ledger = Ledger(_allowances(config), clock, memory)
        self._tariffs = tariffs
        self._clock = clock
        self._least = config.least_score
        self._shortest_s = (Period.HOUR if config.per_hour is not None else Period.DAY).seconds
        self._scores = RecentScores(_SCORES)
        self._moments: deque[Moment] = deque(maxlen=_SCORES)
        self._cost = Mean(_COSTS, start=0.0)
        self._part = Mean(_COSTS, start=1.0)
        self._calls = 0
        self._sent = 0
        self._dither = Dither()

    @property
    def threshold(self) -> float:
        """The line for the next score, as the money is now."""
        return max(self._least, self._scores.line(self._affordable_share(), self._dither.draw()))

    def observe(self, score: float, tier: Tier) -> None:
        """Learn the score and the pace of the requests."""
        now = self._clock()
        while self._moments and not 0 <= now - self._moments[0].at <= self._shortest_s:
            self._moments.popleft()
        self._moments.append(Moment(now, self._calls, self._sent))
        self._scores.add(score)
        self._sent += tier is Tier.CLOUD

    def reserve(self, target: Target, query: Query) -> Reservation | None:
        """Set aside the call's upper bound; the query comes back with an end to its answer."""
        tariff = self._tariffs.get(target.name)
        if tariff is None:
            return FreeReservation(query)
        limited = tariff.limit(query)
        bound = tariff.bound(limited)
        hold = self._ledger.hold(bound, min(round(bound * self._part.value), bound))
        if hold is None:
            return None
        self._calls += 1
        return BudgetReservation(self, hold, tariff, limited)

    def pay(self, hold: Hold, cost: int) -> None:
        """A call is over."""
        if hold.open:
            self._cost.add(cost)
            self._part.add(cost / hold.amount if hold.amount else 0.0)
        self._ledger.settle(hold, cost)

    def drop(self, hold: Hold) -> None:
        """A call was never made."""
        self._ledger.settle(hold, 0)

    def statistics(self) -> Statistics:
        """Warm once the scores say something."""
        seen = len(self._moments)
        return Statistics(
            threshold=max(self._least, self._scores.line(self._affordable_share(), 0.0)),
            cloud_share=(self._sent - self._moments[0].sent) / seen if seen else None,
            warm=seen >= _FEWEST,
            balances=self._ledger.balances(),
        )

    def close(self) -> None:
        """Save what was spent."""
        self._ledger.close()

    def _affordable_share(self) -> float:
        """Of the scored requests; 1 while too little is known to withhold anything."""
        seen, cost = len(self._moments), self._cost.value
        if seen < _FEWEST or not cost:
            return 1.0
        first = self._moments[0]
        elapsed_s = self._clock() - first.at
        if elapsed_s <= 0:
            return 1.0
        affordable = self._ledger.rate() / cost * elapsed_s
        unscored = max(self._calls - first.calls - (self._sent - first.sent), 0)
        return max(affordable - unscored, 0.0) / (seen - _DOUBT * math.sqrt(seen))


class BudgetReservation:
    """A call's hold on the ledger."""

    def __init__(self, budget: Budget, hold: Hold, tariff: Tariff, query: Query) -> None:
        self._budget = budget
        self._hold = hold
        self._tariff = tariff
        self.query = query

    def settle(self, usage: Usage | None) -> None:
        """Pay for the tokens used; for all that they could have been when the target gave no count."""
        if usage is None or not usage.prompt_tokens:
            self._budget.pay(self._hold, self._hold.amount)
        else:
            self._budget.pay(self._hold, self._tariff.cost(usage))

    def release(self) -> None:
        """The call never reached the target."""
        self._budget.drop(self._hold)


def _allowances(config: BudgetPolicy) -> list[Allowance]:
    limits = {Period.HOUR: config.per_hour, Period.DAY: config.per_day}
    return [
        Allowance(period, picos(limit), int(picos(limit) * Decimal(str(config.burst_share))))
        for period, limit in limits.items()
        if limit is not None
    ]
