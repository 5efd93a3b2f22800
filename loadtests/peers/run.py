"""All turns of a run, interleaved over the contestants, and what came of them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import httpx

from loadtests.peers.arena import Arena, Running, Turn
from loadtests.peers.bodies import make_bodies
from loadtests.peers.cases import CLOSED, LATENCY, Case
from loadtests.peers.contestants import BARE_DISPATCH, BARE_OWN_DISPATCH, ROUTER, VLLM
from loadtests.peers.counters import Counters
from loadtests.peers.latency import Timings, ask_on_schedule, draw_arrivals
from loadtests.processes import ProcessError

DIRECT: Final = "the upstream itself"
RATE: Final = 200.0
STREAM_RATE: Final = 20.0
OPEN_CONTESTANTS: Final = (ROUTER, BARE_DISPATCH, BARE_OWN_DISPATCH, VLLM)
_BODIES: Final = 512
_WARM_UP_S: Final = 1
_LATENCY_SECONDS: Final = 3
_STREAM_SECONDS: Final = 3
Say = Callable[[str], None]
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Results:
    """Turns by case and contestant, a turn a repeat; timings of the open load by contestant; our counters by case."""

    turns: dict[tuple[str, str], list[Turn]] = field(default_factory=lambda: defaultdict(list))
    whole: dict[str, list[Timings]] = field(default_factory=lambda: defaultdict(list))
    streams: dict[str, list[Timings]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[tuple[str, str], Counters] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def per_s(self, case: Case, name: str) -> list[float]:
        """Requests or chunks a second of every repeat."""
        return [turn.per_s * case.units for turn in self.turns.get((case.name, name), [])]


def play(arena: Arena, names: Sequence[str], *, repeats: int, turn_s: int, say: Say) -> Results:
    """Every case in turns.

    Raises:
        ProcessError: the upstream or wrk died: without them nobody can go on.
    """
    results = Results()
    for case in CLOSED:
        if case.name in names and arena.members(case):
            say(f"{case.title}: {', '.join(one.contestant.name for one in arena.members(case))}")
            _play_case(arena, case, results, repeats=repeats, turn_s=turn_s, say=say)
    if LATENCY in names:
        arena.keep(OPEN_CONTESTANTS)
        say(f"Added latency: {RATE:.0f} requests/s and {STREAM_RATE:.0f} streams/s, open loop")
        _play_latency(arena, results, repeats=repeats, say=say)
    results.missing = arena.missing
    return results


def _play_case(arena: Arena, case: Case, results: Results, *, repeats: int, turn_s: int, say: Say) -> None:
    arena.prepare(case)
    trial = _Trial(arena, say)
    warm_up = arena.take_numbers()
    for running in arena.members(case):
        trial.run(running, partial(arena.play, case, running, first=warm_up, for_s=_WARM_UP_S))
    before = {one.contestant.name: trial.run(one, one.counters) for one in arena.members(case)}
    for repeat in range(repeats):
        first = warm_up if case.repeated else arena.take_numbers()
        for running in _rotate(arena.members(case), repeat):
            turn = trial.run(running, partial(arena.play, case, running, first=first, for_s=turn_s * case.longer))
            if turn is not None:
                results.turns[case.name, running.contestant.name].append(turn)
                say(f"  {repeat + 1}/{repeats} {running.contestant.name:<28} {_describe(case, turn)}")
    for contestant in case.contestants:
        _keep_whole(results.turns, (case.name, contestant.name), repeats)
    for one in arena.members(case):
        earlier, later = before.get(one.contestant.name), trial.run(one, one.counters)
        if one.contestant.is_router and earlier is not None and later is not None:
            results.counters[case.name, one.contestant.name] = later.since(earlier)


def _describe(case: Case, turn: Turn) -> str:
    text = f"{turn.per_s * case.units:>10,.0f} {case.unit}, {turn.us:,.0f} µs of the core"
    return text if not turn.load.errors.all else f"{text}, ERRORS {turn.load.errors}"


def _play_latency(arena: Arena, results: Results, *, repeats: int, say: Say) -> None:
    trial = _Trial(arena, say)
    parts = (
        (results.whole, make_bodies(_BODIES), RATE, _LATENCY_SECONDS),
        (results.streams, make_bodies(_BODIES, stream=True), STREAM_RATE, _STREAM_SECONDS),
    )
    for repeat in range(repeats):
        for timings, bodies, rate, for_s in parts:
            arrivals = draw_arrivals(rate, _WARM_UP_S + for_s, seed=repeat)
            first = arena.take_numbers()
            ask = partial(ask_on_schedule, bodies=bodies, arrivals=arrivals, first=first, warm_up_s=_WARM_UP_S)
            timings[DIRECT].append(ask(arena.upstream_port, headers={}))
            members = [one for c in OPEN_CONTESTANTS if (one := arena.running.get(c.name)) is not None]
            for running in _rotate(members, repeat):
                timing = trial.run(running, partial(ask, running.place.port, headers=running.start.headers))
                if timing is not None:
                    timings[running.contestant.name].append(timing)
        say(f"  {repeat + 1}/{repeats}")
    for contestant in OPEN_CONTESTANTS:
        for timings in (results.whole, results.streams):
            _keep_whole(timings, contestant.name, repeats)


def _keep_whole(series: dict[K, list[V]], key: K, repeats: int) -> None:
    """The repeats of one that died in their midst do not match those of the others."""
    if len(series.get(key, ())) < repeats:
        series.pop(key, None)


def _rotate(members: Sequence[Running], by: int) -> list[Running]:
    """Another begins in every repeat."""
    by %= max(len(members), 1)
    return [*members[by:], *members[:by]]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A contestant that dies is named, and the others go on."""

    arena: Arena
    say: Say

    def run(self, running: Running, turn: Callable[[], T]) -> T | None:
        """
        Raises:
            ProcessError: the upstream died.
        """
        try:
            return turn()
        except (ProcessError, httpx.HTTPError, OSError, ExceptionGroup) as exc:
            self.arena.upstream.check()
            name, reason = running.contestant.name, _reason(running, exc)
            self.arena.drop(name, reason)
            self.say(f"  {name} takes no further part: {reason}")
            return None


def _reason(running: Running, exc: Exception) -> str:
    try:
        running.process.check()
    except ProcessError as death:
        return str(death)
    return f"it gave no answer: {exc}"
