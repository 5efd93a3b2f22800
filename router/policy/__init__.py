"""From scores to tiers, and what that may cost. Synchronous, for one thread; the only I/O is a budget's state file."""

import time

from router.config import BudgetPolicy, CloudSharePolicy, Config, ThresholdPolicy
from router.policy.budget import Budget
from router.policy.cloud_share import CloudShare
from router.policy.ledger import Balance, Clock, Period
from router.policy.money import Tariff
from router.policy.seam import FreeReservation, Policy, Reservation, Statistics
from router.policy.state import StateFile
from router.policy.threshold import FixedThreshold

__all__ = [
    "Balance",
    "Budget",
    "CloudShare",
    "FixedThreshold",
    "FreeReservation",
    "Period",
    "Policy",
    "Reservation",
    "Statistics",
    "make_policy",
]


def make_policy(config: Config, clock: Clock = time.time) -> Policy:
    """The policy that a configuration describes.

    Raises:
        ConfigError: the budget's state file is wrong.
    """
    match config.policy:
        case ThresholdPolicy(threshold=threshold):
            return FixedThreshold(threshold)
        case CloudSharePolicy(share=share, window_requests=window):
            return CloudShare(share, window)
        case BudgetPolicy() as budget:
            tariffs = {name: Tariff.of(target.price) for name, target in config.targets.items() if target.price}
            return Budget(budget, tariffs, clock, StateFile(budget.state_file) if budget.state_file else None)
