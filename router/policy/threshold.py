"""The simplest policy."""

from router.decision import Target, Tier
from router.policy.seam import FreeReservation, Reservation, Statistics
from router.query import Query


class FixedThreshold:
    """One threshold for ever, money no object."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def observe(self, score: float, tier: Tier) -> None:
        """Learns nothing."""

    def reserve(self, target: Target, query: Query) -> Reservation | None:
        """Always."""
        return FreeReservation(query)

    def statistics(self) -> Statistics:
        """The threshold."""
        return Statistics(self.threshold)

    def close(self) -> None:
        """Remembers nothing."""
