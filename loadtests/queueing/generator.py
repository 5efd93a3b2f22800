"""An open or closed loop of requests with answers of known lengths, none of them from a cache."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np

from router.decision import Tier
from router.query import Priority

SHORTEST: Final = 200
LONGEST: Final = 480
"""Tokens of an answer: long enough that a target ends at most some twenty a second, and apart enough that slots do not
come free all at once.
"""
LOADS = {Priority.INTERACTIVE: 0.5, Priority.STANDARD: 1.0, Priority.BATCH: 1.5}
"""Of capacity: three times it, half of that batch."""
PATIENCE = {Priority.INTERACTIVE: 5.0, Priority.STANDARD: 10.0, Priority.BATCH: 20.0}
"""Until the deadline, in mean services."""
_URL = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Planned:
    """A request to come, in seconds from the start."""

    at: float
    priority: Priority
    tokens: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of it; seconds since it was due."""

    planned: Planned
    status: int
    took_s: float
    queue_s: float
    lag_s: float
    ended: float

    @property
    def service_s(self) -> float:
        """In its slot, and on the way there and back."""
        return self.took_s - self.queue_s - self.lag_s

    @property
    def in_time(self) -> bool:
        """Whether it was of use."""
        return self.status == 200 and self.took_s <= self.planned.patience_s


class Generator:
    """Asks the router for answers of known lengths, none of them from a cache."""

    def __init__(self, client: httpx.AsyncClient, tier: Tier, seed: int) -> None:
        self._client = client
        self._tier = tier
        self._rng = np.random.default_rng(seed)
        self._number = 0

    def tokens(self) -> int:
        """Of the next answer."""
        return int(self._rng.integers(SHORTEST, LONGEST))

    def plan(self, capacity_per_s: float, service_s: float, duration_s: float) -> list[Planned]:
        """Poisson arrivals of all classes."""
        planned = [
            Planned(at, priority, self.tokens(), PATIENCE[priority] * service_s)
            for priority, load in LOADS.items()
            for at in self._rng.uniform(0.0, duration_s, self._rng.poisson(load * capacity_per_s * duration_s)).tolist()
        ]
        return sorted(planned, key=lambda one: one.at)

    async def ask(self, planned: Planned, due: float) -> Answered:
        """One request, timed from when it was due (`time.perf_counter()`)."""
        self._number += 1
        lag_s = time.perf_counter() - due
        headers = {
            "x-priority": planned.priority.value,
            "x-deadline-ms": f"{max((planned.patience_s - lag_s) * 1e3, 1.0):.0f}",
            "cache-control": "no-store",
        }
        answer = await self._client.post(_URL, json=_body(self._tier, self._number, planned.tokens), headers=headers)
        ended = time.perf_counter()
        queue_s = float(answer.headers.get("x-queue-ms", 0)) / 1e3
        return Answered(planned, answer.status_code, ended - due, queue_s, lag_s, ended)

    async def saturate(self, clients: int, duration_s: float, priority: Priority) -> list[Answered]:
        """Each client asks again as soon as it is answered."""
        end = time.perf_counter() + duration_s
        answered: list[Answered] = []

        async def keep_asking() -> None:
            while (now := time.perf_counter()) < end:
                answered.append(await self.ask(Planned(0.0, priority, self.tokens(), 100.0), now))

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(keep_asking())
        return answered

    async def play(self, planned: Sequence[Planned]) -> list[Answered]:
        """Open loop: each is sent when it is due, whatever became of the others."""
        answered: list[Answered] = []

        async def send(one: Planned, due: float) -> None:
            answered.append(await self.ask(one, due))

        started = time.perf_counter() + 0.1
        async with asyncio.TaskGroup() as group:
            for one in planned:
                due = started + one.at
                await asyncio.sleep(max(due - time.perf_counter(), 0.0))
                group.create_task(send(one, due))
        return answered


def _body(tier: Tier, number: int, tokens: int) -> dict[str, Any]:
    """An answer that cannot end early, and must at so many tokens."""
    schema = {"name": "long", "schema": {"type": "string", "minLength": 10 * tokens}}
    return {
        "model": tier.value,
        "messages": [{"role": "user", "content": f"Hello {number}"}],
        "temperature": 0,
        "max_tokens": tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
