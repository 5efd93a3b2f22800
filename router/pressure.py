"""
Load-aware routing: where answers would begin too late, the threshold moves and sends more of them to the other tier.

Pure: forecasts and times are given. The result is an offset to the threshold in log-odds, so that it means the same at
every threshold: below zero sends more to the cloud, above zero more to the edge.
"""

import math
from dataclasses import dataclass

from router.config.lanes import Pressure as PressureSection
from router.decision import log_odds

_LONGEST_STEP_S = 1.0
"""One forecast moves the threshold by no more than its speed allows in so long, however long there was none."""
_WORST_S = 1e6
_SHARPNESS = 4.0
"""At e**(1/4) times the objective (28% over it), and beyond, the threshold moves at full speed."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Where the threshold was moved to, and how often the movement turned round."""

    offset: float
    turns: int


class Pressure:
    """
    Three zones for each tier, by its predicted time to the first token: above `engage` of the objective it is under
    pressure, below `release` at rest, between them (the hysteresis) it neither asks for help nor lets go of it.

    Under pressure the offset moves away from that tier, the slower the less room the other one has; without any, it
    moves back: what neither tier can answer in time shall make only one of them late. At rest it goes back to zero. It
    moves at most at the configured speeds, and turns round at most once in any `window_s`.
    """

    def __init__(self, config: PressureSection) -> None:
        self._config = config
        self._offset = 0.0
        self._at: float | None = None
        self._heading = 0
        self._turned_at = -math.inf
        self._turns = 0

    @property
    def offset(self) -> float:
        """Now, in log-odds."""
        return self._offset

    def update(self, edge_first_s: float, cloud_first_s: float, now: float) -> float:
        """Learn what each tier promises for the next request; returns the offset for it.

        Args:
            edge_first_s: Predicted seconds to the first token at the edge, at its least loaded target.
            cloud_first_s: In the cloud.
            now: Seconds; calls may come at any pace.
        """
        elapsed_s = 0.0 if self._at is None else min(max(now - self._at, 0.0), _LONGEST_STEP_S)
        self._at = now
        move = self._wanted(min(edge_first_s, _WORST_S), min(cloud_first_s, _WORST_S)) * elapsed_s
        if move:
            self._move(move, now)
        return self._offset

    def shift(self, threshold: float) -> float:
        """A threshold under the present offset; 0 and 1 and beyond are meant, and stay."""
        if not 0 < threshold < 1 or not self._offset:
            return threshold
        return 1 / (1 + math.exp(-(log_odds(threshold) + self._offset)))

    def statistics(self) -> Statistics:
        """The state."""
        return Statistics(self._offset, self._turns)

    def _wanted(self, edge_s: float, cloud_s: float) -> float:
        """Log-odds a second."""
        config = self._config
        engage_s, release_s = config.engage * config.objective_s, config.release * config.objective_s
        worse, better = max(edge_s, cloud_s), min(edge_s, cloud_s)
        if worse > engage_s:
            urgency = min(_SHARPNESS * math.log(worse / engage_s), 1.0) * config.shift_per_s
            room = (engage_s - better) / (engage_s - release_s)
            if room > 0:
                return math.copysign(min(room, 1.0) * urgency, cloud_s - edge_s)
            return math.copysign(min(-room, 1.0) * urgency, -self._offset) if self._offset else 0.0
        helped = edge_s if self._offset < 0 else cloud_s
        if self._offset and helped < release_s:
            return math.copysign(config.return_per_s, -self._offset)
        return 0.0

    def _move(self, move: float, now: float) -> None:
        config = self._config
        heading = 1 if move > 0 else -1
        returning = self._offset * move < 0
        wanted = self._offset + move
        if returning and self._offset * wanted < 0:
            wanted = 0.0  # through zero only by a new decision
        wanted = min(max(wanted, -config.most_to_cloud), config.most_to_edge)
        if wanted == self._offset:
            return
        if self._heading and heading != self._heading:
            if now - self._turned_at < config.window_s:
                return
            self._turned_at = now
            self._turns += 1
        self._heading = heading
        self._offset = wanted
