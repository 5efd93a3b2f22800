"""
Synthetic traffic for policies, with every distribution stated, and what a policy does to it. Deterministic by seed.

Scores are calibrated by construction: the cloud is better (gain +1) with the score's own probability, and in 5% of the
other cases the edge is (gain -1).
"""

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Any

import numpy as np

from router.decision import Target, Tier
from router.policy import Budget, Policy, Reservation
from router.policy.money import Tariff
from router.query import Conversation, Message, Parameters, Query, Usage

Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

CLOUD = Target("cloud", Tier.CLOUD)
_KINDS = ((-2.5, 0.8), (-0.8, 1.0), (0.8, 1.0))
"""Easy, middling and hard questions: mean and deviation of the score's log-odds."""
_EDGE_BETTER = 0.05


class Drift(StrEnum):
    """How the part of hard questions moves around 30%: the easy ones make up for it, 30% are always middling."""

    STEADY = "steady"
    SWING = "swing"
    RAMP = "ramp"
    JUMP = "jump"

    def hard(self, when: Floats) -> Floats:
        """The part at each moment, from 0 to 1 over the whole traffic."""
        match self:
            case Drift.STEADY:
                return 0.3 + 0 * when
            case Drift.SWING:  # twice between 20% and 40%
                return np.asarray(0.3 + 0.1 * np.sin(4 * np.pi * when))
            case Drift.RAMP:
                return 0.2 + 0.2 * when
            case Drift.JUMP:
                return np.where(when < 0.5, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Scores in the order of arrival, and how much better the cloud's answer is."""

    scores: Floats
    gains: Floats

    @classmethod
    def draw(cls, drift: Drift, requests: int, seed: int) -> "Traffic":
        """Mixed questions whose difficulty drifts."""
        rng = np.random.default_rng(seed)
        hard = drift.hard(np.linspace(0, 1, requests))
        pick = rng.random(requests)
        kind = np.where(pick < hard, 2, np.where(pick < hard + 0.3, 1, 0))
        mean, deviation = np.array(_KINDS)[kind].T
        return cls.with_scores(1 / (1 + np.exp(-rng.normal(mean, deviation))), rng)

    @classmethod
    def constant(cls, requests: int, seed: int) -> "Traffic":
        """No artifact: every score is 0.5."""
        return cls.with_scores(np.full(requests, 0.5), np.random.default_rng(seed))

    @classmethod
    def with_scores(cls, scores: Floats, rng: np.random.Generator) -> "Traffic":
        """Gains as these scores say."""
        luck = rng.random(len(scores))
        gains = np.where(luck < scores, 1.0, np.where(luck > 1 - _EDGE_BETTER * (1 - scores), -1.0, 0.0))
        return cls(scores, gains)

    def recovered(self, sent: Flags) -> float:
        """The gain that sending these recovers, at their own share: 0 is random, 1 the best choice by true gain.

        NAPGR's definition at one share instead of over all: (gain - random) / (oracle - random).
        """
        share = sent.mean()
        random_gain = share * self.gains.mean()
        oracle_gain = np.sort(self.gains)[::-1][: int(sent.sum())].sum() / len(self.gains)
        return float(((self.gains * sent).mean() - random_gain) / (oracle_gain - random_gain))

    def best_fixed(self, sent: int) -> Flags:
        """The choice of the one threshold, known only in hindsight, that sends that many."""
        chosen = np.zeros(len(self.scores), bool)
        chosen[np.argsort(-self.scores, kind="stable")[:sent]] = True
        return chosen

    def best_in_blocks(self, share: float, block: int) -> Flags:
        """The choice of the best threshold for each block, in hindsight: what keeping the share costs in itself."""
        parts = [
            Traffic(self.scores[i : i + block], self.gains[i : i + block]) for i in range(0, len(self.scores), block)
        ]
        return np.concatenate([part.best_fixed(round(share * len(part.scores))) for part in parts])


def send(policy: Policy, traffic: Traffic, in_flight: int = 0) -> Flags:
    """Route the traffic; each decision is observed only when `in_flight` later ones have been made."""
    waiting: deque[tuple[float, Tier]] = deque()
    sent = []
    for score in traffic.scores.tolist():
        tier = Tier.CLOUD if score >= policy.threshold else Tier.EDGE
        sent.append(tier is Tier.CLOUD)
        waiting.append((score, tier))
        if len(waiting) > in_flight:
            policy.observe(*waiting.popleft())
    return np.array(sent)


def worst_deviation(sent: Flags, share: float, *, window: int, warm_up: int) -> float:
    """The largest distance of the share to the wanted one in any sliding window after the warm-up."""
    totals = np.concatenate([[0], np.cumsum(sent[warm_up:])])
    shares = (totals[window:] - totals[:-window]) / window
    return float(np.abs(shares - share).max())


class Answers(StrEnum):
    """How long the cloud's answers are; none is longer than the cut at 1,024 tokens."""

    SHORT = "short"
    MIXED = "mixed"
    LONGEST = "longest"

    def draw(self, rng: random.Random) -> int:
        """Completion tokens of one answer."""
        match self:
            case Answers.SHORT:  # a twentieth of what is set aside
                return rng.randint(20, 80)
            case Answers.MIXED:
                return min(max(int(rng.lognormvariate(5, 1)), 1), MOST_COMPLETION_TOKENS)
            case Answers.LONGEST:
                return MOST_COMPLETION_TOKENS


MOST_COMPLETION_TOKENS = 1024


@dataclass(slots=True)
class Clock:
    """Seconds since 1970, set by the simulation."""

    now: float = 1_700_000_000 // 86_400 * 86_400.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Spending:
    """What a simulated run did; `costs` are picos by the minute in which a call began, counted apart."""

    costs: Counter[int] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    sent: list[bool] = field(default_factory=list)
    refused: int = 0
    most_in_flight: int = 0

    def hours(self) -> list[int]:
        """Picos of each hour in turn."""
        by_hour: Counter[int] = Counter()
        for minute, cost in sorted(self.costs.items()):
            by_hour[minute // 60] += cost
        return list(by_hour.values())


@dataclass(frozen=True, slots=True)
class Crowd:
    """Clients that each ask, wait for the answer, think, and ask again.

    Times are exponential around their means. One call in a hundred ends without a token count, one never connects.
    """

    clients: int = 200
    think_s: float = 0.0
    edge_s: float = 8.0
    cloud_s: float = 20.0
    answers: Answers = Answers.MIXED
    unscored: float = 0.0
    constant: bool = False

    def spend(self, budget: Budget, tariff: Tariff, clock: Clock, *, hours: float, seed: int) -> Spending:
        """Ask for that long from the clock's start, then let the running calls end."""
        return _Run(self, budget, tariff, clock, random.Random(seed)).spend(hours)


class _Run:
    def __init__(self, crowd: Crowd, budget: Budget, tariff: Tariff, clock: Clock, rng: random.Random) -> None:
        self._crowd, self._budget, self._tariff, self._clock, self._rng = crowd, budget, tariff, clock, rng
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._in_flight = 0
        self._spending = Spending()

    def spend(self, hours: float) -> Spending:
        start = self._clock.now
        end = start + hours * 3600
        for _ in range(self._crowd.clients):
            self._later(self._rng.random() * (self._crowd.edge_s + self._crowd.think_s), self._ask)
        while self._events:
            at, _, act = heapq.heappop(self._events)
            self._clock.now = at
            if at < end or act != self._ask:
                act()
        return self._spending

    def _later(self, mean_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._clock.now + self._rng.expovariate(1 / mean_s), next(self._order), act))

    def _ask(self) -> None:
        score = None if self._rng.random() < self._crowd.unscored else self._score()
        wants = score is None or score >= self._budget.threshold
        query = _query(self._rng)
        reservation = self._budget.reserve(CLOUD, query) if wants else None
        self._spending.refused += wants and reservation is None
        if score is not None:
            self._budget.observe(score, Tier.CLOUD if reservation else Tier.EDGE)
            self._spending.scores.append(score)
            self._spending.sent.append(reservation is not None)
        self._in_flight += 1
        self._spending.most_in_flight = max(self._spending.most_in_flight, self._in_flight)
        if reservation is None:
            self._later(self._crowd.edge_s, self._end)
        else:
            begun = int(self._clock.now) // 60
            self._later(self._crowd.cloud_s, lambda: self._pay(reservation, begun))

    def _score(self) -> float:
        if self._crowd.constant:
            return 0.5
        mean, deviation = _KINDS[self._rng.choices((0, 1, 2), (0.4, 0.3, 0.3))[0]]
        return 1 / (1 + math.exp(-self._rng.gauss(mean, deviation)))

    def _pay(self, reservation: Reservation, begun: int) -> None:
        luck = self._rng.random()
        if luck < 0.01:
            reservation.release()
            cost = 0
        elif luck < 0.02:
            reservation.settle(None)
            cost = self._tariff.bound(reservation.query)
        else:
            words = len(reservation.query.prompt.text) // 4
            usage = Usage(words + 12, self._crowd.answers.draw(self._rng))
            reservation.settle(usage)
            cost = self._tariff.cost(usage)
        self._spending.costs[begun] += cost
        self._end()

    def _end(self) -> None:
        self._in_flight -= 1
        if self._crowd.think_s:
            self._later(self._crowd.think_s, self._ask)
        else:
            self._ask_again()

    def _ask_again(self) -> None:
        heapq.heappush(self._events, (self._clock.now, next(self._order), self._ask))


def _query(rng: random.Random) -> Query:
    return Query(Conversation((Message("user", "x" * rng.randint(20, 600)),)), Parameters())
