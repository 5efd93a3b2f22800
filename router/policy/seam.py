"""What the pipeline knows of a policy. Synchronous, for one thread; clocks are given."""

from dataclasses import dataclass
from typing import Protocol

from router.decision import Target, Tier
from router.policy.ledger import Balance
from router.query import Query, Usage


class Reservation(Protocol):
    """Money set aside for one call of a target. Only the first of `settle` and `release` counts."""

    @property
    def query(self) -> Query:
        """The query as it may be sent: its `max_tokens` keeps the call within what was set aside."""
        ...

    def settle(self, usage: Usage | None) -> None:
        """The call is over: pay for `usage` and give the rest back.

        Usage that is None, or counts no prompt token, is unknown: all is paid.
        """
        ...

    def release(self) -> None:
        """The call never reached the target: give all back."""
        ...


@dataclass(frozen=True, slots=True)
class Statistics:
    """A policy's state, for metrics.

    `cloud_share` is that of the last scored requests, None before the first; `warm` says that enough of them were seen
    for the policy to keep its promise.
    """

    threshold: float
    cloud_share: float | None = None
    warm: bool = True
    balances: tuple[Balance, ...] = ()


class Policy(Protocol):
    """Where the line between the tiers is now."""

    @property
    def threshold(self) -> float:
        """Scores from here up go to the cloud; in [0, 1], or just above 1 where nothing may go.

        Read it when a score is compared with it, not earlier. Where many scores are equal it changes from reading to
        reading, so that the right share of them goes.
        """
        ...

    def observe(self, score: float, tier: Tier) -> None:
        """A scored request's last score and the tier that it is sent to: once a request, as soon as that is decided."""
        ...

    def reserve(self, target: Target, query: Query) -> Reservation | None:
        """Set aside what a call can cost at most; None when that cannot be afforded now."""
        ...

    def statistics(self) -> Statistics:
        """The state now."""
        ...

    def close(self) -> None:
        """The router stops: write down what the next start needs."""
        ...


@dataclass(frozen=True, slots=True)
class FreeReservation:
    """Costs nothing."""

    query: Query

    def settle(self, usage: Usage | None) -> None:
        """Nothing to pay."""

    def release(self) -> None:
        """Nothing to give back."""
