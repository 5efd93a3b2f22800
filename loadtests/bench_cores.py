"""
What a second process costs and brings: the same requests to a router of one process on one core, and to one of two
processes on two cores, in turns. Processor time is that of the router's processes alone; the load and the upstream run
on the same cores, and take what the idle share does not show.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import click
import psutil

from loadtests.bench import Row, report
from loadtests.cores.servers import Router, counts, running_router, running_upstream
from loadtests.cores.traffic import ask, complain, questions
from loadtests.cores.upstream import Pace

_BAR: Final = 1.1
_TOKENS: Final = 8
_CONNECTIONS: Final = 64
_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One router's turn: processor time a request, requests a second, each core's idle share."""

    us: float
    per_s: float
    idle: tuple[float, ...]


class Contest:
    """Both routers, and numbers that are never asked twice."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._next = 1

    def take_turn(self, router: Router, cores: Sequence[int]) -> Turn:
        """The next requests.

        Raises:
            RuntimeError: an answer is wrong or missing.
        """
        numbers = range(self._next, self._next + self._requests)
        self._next += self._requests
        source = iter(list(questions(numbers, tokens=_TOKENS, keys=router.keys)))
        before, idle, busy_s = time.perf_counter(), _idle_s(cores), router.cpu_s()
        outcome = ask(router.port, source, connections=_CONNECTIONS, limit_s=_LIMIT_S)
        busy_s = router.cpu_s() - busy_s
        took_s = time.perf_counter() - before
        shares = tuple((now - then) / took_s for now, then in zip(_idle_s(cores), idle, strict=True))
        if (complaint := complain(outcome, self._requests)) is not None:
            raise RuntimeError(complaint)
        return Turn(busy_s / self._requests * 1e6, self._requests / outcome.took_s, shares)


def measure(rounds: int, requests: int) -> list[Row]:
    """Both in turns, the first one first in every other round."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < len({0, 1}):
        raise click.ClickException("two cores are needed")
    with (
        tempfile.TemporaryDirectory() as name,
        running_upstream(Path(name), Pace(_TOKENS)) as upstream,
        running_router(Path(name) / "one", upstream, {cores[0]}) as one,
        running_router(Path(name) / "two", upstream, processes=2) as two,
    ):
        for worker, core in zip(two.workers(), cores, strict=True):
            _pin(worker, core)
        contest = Contest(requests)
        for router in (one, two):
            contest.take_turn(router, cores)
        turns: dict[int, list[Turn]] = {one.port: [], two.port: []}
        for turn in range(rounds):
            for router in (one, two) if turn % 2 == 0 else (two, one):
                turns[router.port].append(contest.take_turn(router, cores))
            click.echo(f"round {turn + 1} of {rounds}: {_say(turns[one.port][-1])}; {_say(turns[two.port][-1])}")
        return _rows(turns[one.port], turns[two.port], counts(two, "hybrid_requests_total"))


def _rows(one: list[Turn], two: list[Turn], served: object) -> list[Row]:
    cost = sorted(b.us / a.us for a, b in zip(one, two, strict=True))
    speed = sorted(b.per_s / a.per_s for a, b in zip(one, two, strict=True))
    shares = list(served.values()) if isinstance(served, dict) else []
    rows = [
        Row("processor time a request, two processes / one", _spread(cost), f"<= {_BAR}", median(cost) <= _BAR),
        Row("requests/s, two processes / one", _spread(speed), "-", True),
    ]
    for name, turns in (("one process", one), ("two processes", two)):
        idle = " and ".join(f"{median(turn.idle[core] for turn in turns):.0%}" for core in (0, 1))
        time_us, per_s = median(turn.us for turn in turns), median(turn.per_s for turn in turns)
        rows.append(Row(f"{name}: processor time a request, requests/s", f"{time_us:.0f} us, {per_s:,.0f}", "-", True))
        rows.append(Row(f"{name}: idle share of the first and the second core", idle, "-", True))
    rows.append(Row("of the two: the busier one's requests", f"{max(shares) / sum(shares):.0%}", "-", True))
    return rows


def _say(turn: Turn) -> str:
    return f"{turn.us:.0f} us a request, {turn.per_s:,.0f}/s"


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} [{values[0]:.2f}, {values[-1]:.2f}]"


def _idle_s(cores: Sequence[int]) -> list[float]:
    times = psutil.cpu_times(percpu=True)
    return [times[core].idle for core in cores]


def _pin(process: psutil.Process, core: int) -> None:
    for thread in process.threads():
        os.sched_setaffinity(thread.id, {core})


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Turns of each router.")
@click.option("--requests", default=3000, show_default=True, help="How many a turn.")
def main(rounds: int, requests: int) -> None:
    """What two processes cost and bring beside one."""
    sys.exit(report("cores", measure(rounds, requests)))


if __name__ == "__main__":
    main()
