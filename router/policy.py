"""From scores to tiers: the seam, and the simplest policy. Synchronous, no I/O; clocks are given."""

from dataclasses import dataclass
from typing import Protocol

from router.config import AnyPolicy, ThresholdPolicy
from router.decision import Target, Tier
from router.query import Query, Usage


class Reservation(Protocol):
    """Money set aside for one call of a target."""

    @property
    def query(self) -> Query:
        """The query as it may be sent: its `max_tokens` keeps the call within what was set aside."""
        ...

    def settle(self, usage: Usage | None) -> None:
        """The call is over: pay for `usage` (None: unknown, pay all) and give the rest back. Only the first counts."""
        ...


class Policy(Protocol):
    """Where the line between the tiers is now."""

    @property
    def threshold(self) -> float:
        """Scores from here up go to the cloud."""
        ...

    def observe(self, score: float, tier: Tier) -> None:
        """A scored request's last score and the tier that it was sent to: once a request, in the order of decisions."""
        ...

    def reserve(self, target: Target, query: Query) -> Reservation | None:
        """Set aside what a call can cost at most; None when that cannot be afforded now."""
        ...


@dataclass(frozen=True, slots=True)
class FreeReservation:
    """Costs nothing."""

    query: Query

    def settle(self, usage: Usage | None) -> None:
        """Nothing to pay."""


class FixedThreshold:
    """One threshold for ever, money no object."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def observe(self, score: float, tier: Tier) -> None:
        """Learns nothing."""

    def reserve(self, target: Target, query: Query) -> Reservation | None:
        """Always."""
        return FreeReservation(query)


def make_policy(config: AnyPolicy) -> Policy:
    """The policy that a configuration describes."""
    match config:
        case ThresholdPolicy(threshold=threshold):
            return FixedThreshold(threshold)
        case _:
            raise NotImplementedError(f"policy.kind: {type(config).__name__}")
