"""Load-aware routing: the lanes' forecasts, as pressure on the policy's threshold."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from router.config.lanes import Pressure as PressureSection
from router.decision import Target, Tier
from router.lanes import TargetLane
from router.pressure import Pressure, Statistics
from router.query import Priority, Query


class Steering:
    """For one thread. Without pressure configured it moves nothing."""

    def __init__(
        self,
        config: PressureSection,
        lanes: Mapping[str, TargetLane],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pressure = Pressure(config) if config.enabled else None
        self._lanes = lanes
        self._clock = clock

    @property
    def shift(self) -> float:
        """By how much every threshold is moved now, in log-odds: below zero more goes to the cloud."""
        return self._pressure.offset if self._pressure is not None else 0.0

    def look(self, query: Query, targets: Sequence[Target], up: Collection[str]) -> None:
        """Learn from what the tiers promise this query; batch work has no objective to miss."""
        if self._pressure is None or query.priority is Priority.BATCH:
            return
        first_s: dict[Tier, float] = {}
        for target in targets:
            if target.name in up:
                promised_s = self._lanes[target.name].forecast(query).first_s
                first_s[target.tier] = min(promised_s, first_s.get(target.tier, promised_s))
        if len(first_s) == len(Tier):  # else there is nowhere to move anything
            self._pressure.update(first_s[Tier.EDGE], first_s[Tier.CLOUD], self._clock())

    def apply(self, threshold: float) -> float:
        """A policy's threshold, moved."""
        return self._pressure.shift(threshold) if self._pressure is not None else threshold

    def statistics(self) -> Statistics:
        """The state."""
        return self._pressure.statistics() if self._pressure is not None else Statistics(0.0, 0)
