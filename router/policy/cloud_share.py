"""A wanted share of cloud calls, kept while the difficulty drifts."""

from collections import deque

from router.decision import Target, Tier
from router.policy.recent import Dither, RecentScores
from router.policy.seam import FreeReservation, Reservation, Statistics
from router.query import Query

_QUANTILE_PART = 0.25
"""Of the window: scores that old still say where the line is. Fewer are noisy, more lag behind a drift."""
_SLACK = 0.08
"""Of the window: an excess that lowers the aimed share by 1. Half of it swings when requests are observed 64 late."""
_LEAST_SLACK = 80.0
"""In requests, for the same reason: windows under 1,000 are kept less tightly."""


class CloudShare:
    """The hardest `share` of the scored requests, by two forces.

    A quantile of the last scores follows the drift, and the running excess, the sum of (sent - wanted), moves the aimed
    share against itself. Whatever the scores, an excess of `share` slacks stops all sending and a lack of `1 - share`
    slacks all holding back, so no window is ever off by more than one slack; usually it is a tenth of that.
    """

    def __init__(self, share: float, window: int) -> None:
        """
        Args:
            share: Wanted, in [0, 1].
            window: Requests over which the share shall hold.
        """
        self._share = share
        self._slack = max(_SLACK * window, _LEAST_SLACK)
        self._scores = RecentScores(max(round(window * _QUANTILE_PART), 1))
        self._sent: deque[bool] = deque(maxlen=window)
        self._sent_count = 0
        self._excess = 0.0
        self._dither = Dither()

    @property
    def threshold(self) -> float:
        """The line for the next score."""
        return self._scores.line(self._aim(), self._dither.draw())

    def observe(self, score: float, tier: Tier) -> None:
        """Learn the score, and count where it went."""
        sent = tier is Tier.CLOUD
        if len(self._sent) == self._sent.maxlen:
            self._sent_count -= self._sent[0]
        self._sent.append(sent)
        self._sent_count += sent
        self._scores.add(score)
        # what was decided over our head (the cloud was down, say) is made good up to one slack, not for hours
        self._excess = max(-self._slack, min(self._slack, self._excess + sent - self._share))

    def reserve(self, target: Target, query: Query) -> Reservation | None:
        """Always: money is no object."""
        return FreeReservation(query)

    def statistics(self) -> Statistics:
        """Warm once the quantile's window is full."""
        seen = len(self._sent)
        return Statistics(
            threshold=self._scores.line(self._aim(), 0.0),
            cloud_share=self._sent_count / seen if seen else None,
            warm=self._scores.full,
        )

    def close(self) -> None:
        """Remembers nothing: a new start is warm soon."""

    def _aim(self) -> float:
        if self._share in {0.0, 1.0}:
            return self._share
        return self._share - self._excess / self._slack
