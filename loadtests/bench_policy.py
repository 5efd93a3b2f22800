"""
`make bench-policy`: whether the policies keep their promises, on synthetic traffic with stated distributions
(`policy_traffic.py`): the share of `cloud_share` and what it costs in quality, and the money of `budget`.
"""

import sys
from collections.abc import Iterator
from itertools import product

import numpy as np

from loadtests.bench import Row, report
from loadtests.policy_traffic import (
    CLOUD,
    MOST_COMPLETION_TOKENS,
    Answers,
    Clock,
    Crowd,
    Drift,
    Spending,
    Traffic,
    send,
    worst_deviation,
)
from router.config import BudgetPolicy, Price
from router.policy import Budget, CloudShare
from router.policy.money import PICOS, Tariff

SHARE, WINDOW, REQUESTS = 0.3, 1000, 5000
WARM_UP = 250
SEEDS = 20
PRICES = (
    Price(prompt_per_mtok=0.0375, completion_per_mtok=0.15, most_completion_tokens=MOST_COMPLETION_TOKENS),
    Price(prompt_per_mtok=15, completion_per_mtok=75, most_completion_tokens=MOST_COMPLETION_TOKENS),
)
"""A cheap and a dear one, in a currency a million tokens."""
LONGEST_CALLS = (100, 500, 2000)
"""Limits, as the number of calls that they pay if each costs all that is set aside for it."""


def share_rows() -> Iterator[Row]:
    """`cloud_share` under every drift, decided one at a time and 64 at a time."""
    for drift, in_flight in product(Drift, (0, 64)):
        deviations, ratios, limits = [], [], []
        for seed in range(SEEDS):
            traffic = Traffic.draw(drift, REQUESTS, seed)
            sent = send(CloudShare(SHARE, WINDOW), traffic, in_flight)
            best = traffic.recovered(traffic.best_fixed(int(sent.sum())))
            deviations.append(worst_deviation(sent, SHARE, window=WINDOW, warm_up=WARM_UP))
            ratios.append(traffic.recovered(sent) / best)
            limits.append(traffic.recovered(traffic.best_in_blocks(SHARE, WINDOW)) / best)
        late = f", observed {in_flight} late" if in_flight else ""
        most = 0.04 if in_flight else 0.02
        worst = max(deviations)
        yield Row(f"{drift}{late}: worst window off by", f"{worst:.3f}", f"<= {most}", worst <= most)
        mean = float(np.mean(ratios))
        value = f"{mean:.3f} (worst seed {min(ratios):.3f})"
        yield Row(f"{drift}{late}: NAPGR / best fixed", value, ">= 0.9", mean >= 0.9)
        if not in_flight:
            yield Row(f"{drift}: best line of each 1,000 / best fixed", f"{np.mean(limits):.3f}", "-", holds=True)


def constant_row(in_flight: int) -> Row:
    """Without an artifact every score is equal."""
    sent = send(CloudShare(SHARE, WINDOW), Traffic.constant(REQUESTS, 0), in_flight)
    worst = worst_deviation(sent, SHARE, window=WINDOW, warm_up=WARM_UP)
    return Row(f"all scores 0.5, observed {in_flight} late: off by", f"{worst:.3f}", "<= 0.02", worst <= 0.02)


def spend(crowd: Crowd, price: Price, longest_calls: float, *, seed: int, hours: float = 1) -> tuple[Spending, float]:
    """One run, and the limit of an hour in the currency."""
    tariff = Tariff.of(price)
    limit = longest_calls * tariff.completion * MOST_COMPLETION_TOKENS / PICOS
    clock = Clock()
    budget = Budget(BudgetPolicy(per_hour=limit), {CLOUD.name: tariff}, clock, None)
    return crowd.spend(budget, tariff, clock, hours=hours, seed=seed), limit


def spent_parts(spending: Spending, limit: float) -> list[float]:
    """Of the limit, hour by hour."""
    return [cost / PICOS / limit for cost in spending.hours()]


def quality(spending: Spending, seed: int) -> float:
    """Gain recovered, against the best fixed threshold at the same share."""
    traffic = Traffic.with_scores(np.array(spending.scores), np.random.default_rng(seed))
    sent = np.array(spending.sent)
    return traffic.recovered(sent) / traffic.recovered(traffic.best_fixed(int(sent.sum())))


def budget_rows() -> Iterator[Row]:
    """`budget` with 200 clients that never think, for every length of answers, size of limit and price."""
    for answers, longest_calls in product(Answers, LONGEST_CALLS):
        parts: list[float] = []
        ratios = []
        busiest = 0
        for price, seed in product(PRICES, range(2)):
            spending, limit = spend(Crowd(answers=answers), price, longest_calls, seed=seed)
            parts += spent_parts(spending, limit)
            ratios.append(quality(spending, seed))
            busiest = max(busiest, spending.most_in_flight)
        name = f"{answers} answers, limit of {longest_calls:,} longest calls"
        value = f"{min(parts):.4f} to {max(parts):.4f}"
        yield Row(f"{name}: spent", value, "0.95 to 1.00", min(parts) >= 0.95 and max(parts) <= 1)
        yield Row(f"{name}: NAPGR / best fixed", f"{min(ratios):.3f}", "-", holds=True)
    yield Row("budgets: most requests at once", f"{busiest}", "-", holds=True)


def plenty_row() -> Row:
    """Less demand than money: what the threshold withholds once the first hour has shown it."""
    crowd = Crowd(think_s=60)
    withheld = []
    for seed in range(3):
        wanted, limit = spend(crowd, PRICES[0], 1e6, seed=seed)
        cost = sum(spent_parts(wanted, limit)) * 1e6
        spending, _ = spend(crowd, PRICES[0], cost / 0.8, seed=seed, hours=2)
        late = spending.sent[len(spending.sent) // 2 :]
        withheld.append(1 - float(np.mean(late)))
    return Row("demand of 80% of the limit: withheld", f"{max(withheld):.4f}", "<= 0.001", max(withheld) <= 0.001)


def unscored_row() -> Row:
    """Some requests name the cloud: they are paid first, and the scored ones get what they leave."""
    spending, limit = spend(Crowd(unscored=0.05), PRICES[0], 1000, seed=0)
    part = spent_parts(spending, limit)[0]
    return Row("5% of requests name the cloud: spent", f"{part:.4f}", "0.95 to 1.00", 0.95 <= part <= 1)


def main() -> int:
    """All tables."""
    rows = [
        *share_rows(),
        constant_row(0),
        constant_row(64),
        *budget_rows(),
        unscored_row(),
        plenty_row(),
    ]
    return report("policy", rows)


if __name__ == "__main__":
    sys.exit(main())
