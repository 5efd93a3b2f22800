"""The contestants, started and ready before one upstream, and the turns that they take."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from loadtests.peers.bodies import make_bodies, request_head, write_lua
from loadtests.peers.cases import Case
from loadtests.peers.contestants import Contestant, Place, Start
from loadtests.peers.counters import Counters, read_counters
from loadtests.peers.latency import is_whole
from loadtests.peers.upstream import CHUNKS, WORD, Asked
from loadtests.peers.wrk import Load, Wrk
from loadtests.ports import free_port
from loadtests.processes import Cores, ProcessError, ServerProcess, read_busy_s, serving

_GLANCE_S: Final = 0.1
_MOST_GLANCES: Final = 40
_QUIET: Final = 0.1
_START_S: Final = 120.0
_BODIES: Final = 512
_NUMBERS_A_TURN: Final = 1_000_000
_FIRST_TRIAL: Final = 999_000_000
"""Numbers from here on are for the requests that try a contestant before it is measured."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contestant did in one turn, what its process took for it, and how busy both cores were with anything."""

    load: Load
    answers: float
    """Of streams also the broken parts at the turn's end, by their bytes: a slow stream may last as long as a turn."""
    server_cpu_s: float
    server_busy_s: float
    load_busy_s: float
    resident_bytes: int
    asked: int

    @property
    def us(self) -> float:
        """Microseconds of the server's processor time for an answer."""
        return self.server_cpu_s / self.answers * 1e6 if self.answers else 0.0

    @property
    def for_s(self) -> float:
        """How long the load lasted."""
        return self.load.for_us / 1e6

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.for_s

    @property
    def own_busy(self) -> float:
        """Share of the turn for which the server itself ran."""
        return min(self.server_cpu_s / self.for_s, 1.0)

    @property
    def server_busy(self) -> float:
        """Share of the turn for which anything ran on the server's core."""
        return min(self.server_busy_s / self.for_s, 1.0)

    @property
    def load_busy(self) -> float:
        """The same of the load's core."""
        return min(self.load_busy_s / self.for_s, 1.0)


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant that answers."""

    contestant: Contestant
    process: ServerProcess
    place: Place
    start: Start
    stream_bytes: int
    """What a whole stream takes on the wire, head and chunk sizes included."""

    def counters(self) -> Counters:
        """All zero where it is not ours."""
        return read_counters(self.place.url, self.start.headers) if self.contestant.is_router else Counters()


@dataclass(slots=True)
class Arena:
    """Who runs, who does not and why; the numbers already used for bodies."""

    folder: Path
    cores: Cores
    wrk: Wrk
    upstream: ServerProcess
    upstream_port: int
    running: dict[str, Running] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _next_number: int = 0

    @property
    def upstream_url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.upstream_port}"

    def take_numbers(self) -> int:
        """The first of a million that no body had yet."""
        first = self._next_number
        self._next_number += _NUMBERS_A_TURN
        return first

    def members(self, case: Case) -> list[Running]:
        """Who of a case's contestants runs, and can take part."""
        chosen = (self.running.get(one.name) for one in case.contestants)
        return [one for one in chosen if one is not None and case.connections <= one.contestant.most_connections]

    def prepare(self, case: Case) -> None:
        """Write the case's bodies for each of its contestants."""
        count = 1 if case.repeated else _BODIES
        bodies = make_bodies(count, stream=case.stream, least_characters=case.least_characters)
        for running in self.members(case):
            write_lua(self._lua(running, case), bodies, running.start.headers)

    def play(self, case: Case, running: Running, *, first: int, for_s: int) -> Turn:
        """One turn.

        Raises:
            ProcessError: the contestant, the upstream or wrk died.
        """
        step = 0 if case.repeated else 1
        self._settle()
        before = self._look(running)
        load = self.wrk.load(
            running.place.url, self._lua(running, case), first=first, step=step, connections=case.connections,
            for_s=for_s,
        )  # fmt: skip
        after = self._look(running)
        self.upstream.check()
        running.process.check()
        return Turn(
            load,
            load.bytes / running.stream_bytes if case.stream else float(load.answers),
            after.cpu_s - before.cpu_s,
            after.server_s - before.server_s,
            after.load_s - before.load_s,
            running.process.resident_bytes(),
            after.asked.all - before.asked.all,
        )

    def _settle(self) -> None:
        """Until nothing runs on the server's core: who had the last turn may not be done with what was asked of it."""
        for _ in range(_MOST_GLANCES):
            busy_s = read_busy_s(self.cores.server)
            time.sleep(_GLANCE_S)
            if read_busy_s(self.cores.server) - busy_s <= _QUIET * _GLANCE_S:
                return

    def keep(self, contestants: Collection[Contestant]) -> None:
        """End all others: what they do while nobody asks them would be in the times of those that are asked."""
        for name in self.running.keys() - {one.name for one in contestants}:
            self.running.pop(name).process.stop()

    def drop(self, name: str, reason: str) -> None:
        """It takes no further part."""
        self.running.pop(name, None)
        self.missing[name] = reason

    def _lua(self, running: Running, case: Case) -> Path:
        return running.place.folder / f"{case.name}.lua"

    def _look(self, running: Running) -> "_Glance":
        answer = fetch(self.upstream_port, b"GET /asked HTTP/1.1\r\n\r\n")
        asked = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=Asked)
        cores = read_busy_s(self.cores.server), read_busy_s(self.cores.load)
        return _Glance(*cores, running.process.cpu_s(), asked)


@dataclass(frozen=True, slots=True)
class _Glance:
    server_s: float
    load_s: float
    cpu_s: float
    asked: Asked


@contextmanager
def opened(contestants: Sequence[Contestant], say: Say) -> Iterator[Arena]:
    """An arena with those of the contestants that start; all of them are stopped when the block ends, however it does.

    Raises:
        ProcessError: there is no wrk, no second core, or the upstream does not start.
    """
    cores = Cores.choose()
    wrk = Wrk.find(cores.load)
    mine = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        stack.callback(partial(os.sched_setaffinity, 0, mine))
        os.sched_setaffinity(0, {cores.load})
        port = free_port()
        command = [sys.executable, "-m", "loadtests.peers.upstream", str(port)]
        upstream = stack.enter_context(serving("upstream", command, cores={cores.load}, folder=folder))
        arena = Arena(folder, cores, wrk, upstream, port)
        upstream.wait_ready(f"{arena.upstream_url}/health", _START_S)
        for contestant in contestants:
            try:
                arena.running[contestant.name] = _start(contestant, arena, stack)
                say(f"  {contestant.name} is ready")
            except ProcessError as exc:
                arena.missing[contestant.name] = str(exc)
                say(f"  {contestant.name} takes no part: {exc}")
        yield arena


def _start(contestant: Contestant, arena: Arena, stack: ExitStack) -> Running:
    folder = arena.folder / contestant.name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    place = Place(folder, free_port(), arena.upstream_url)
    start = contestant.prepare(place)
    with ExitStack() as attempt:
        process = attempt.enter_context(
            serving(
                contestant.name, start.command, cores={arena.cores.server}, folder=folder, environment=start.environment
            )
        )
        process.wait_ready(start.ready_url, _START_S)
        running = Running(contestant, process, place, start, try_out(contestant, place.port, start.headers))
        stack.push(attempt.pop_all())
    return running


def try_out(contestant: Contestant, port: int, headers: Mapping[str, str]) -> int:
    """Ask once for a whole answer and, of one that dispatches, for a stream, whose bytes are returned.

    Raises:
        ProcessError: an answer is not what the upstream says.
    """
    streamed = b""
    for stream in (False, True) if contestant.dispatches else (False,):
        body = make_bodies(1, stream=stream)[0]
        request = request_head(body.length, headers) + body.fill(_FIRST_TRIAL + stream)
        try:
            streamed = fetch(port, request)
        except OSError as exc:
            raise ProcessError(f"{contestant.name} did not answer: {exc}") from exc
        words = streamed.count(f'"{WORD}"'.encode())
        if not streamed.startswith(b"HTTP/1.1 200") or words != (CHUNKS if stream else 0):
            said = streamed.partition(b"\r\n\r\n")[2][:200].decode(errors="replace")
            raise ProcessError(f"{contestant.name} answered {streamed[9:12].decode()}, {words} chunks: {said}")
    return len(streamed)


def fetch(port: int, request: bytes) -> bytes:
    """A server's answer as it came over the wire.

    Raises:
        OSError: there is none, or it does not end in half a minute.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        while not is_whole(answer):
            if not (piece := connection.recv(65_536)):
                raise ConnectionError("the connection was closed before the answer's end")
            answer += piece
    return answer
