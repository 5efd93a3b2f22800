"""
A router process that counts its own work: `python -m tests.router.counted_router CONFIG`.

It obeys lines on stdin: `begin` starts to count, `end` stops. Each prints a line, `end` the `Counts` in JSON. Only what
the event loop does for requests counts: what a timer or a job does would differ with the machine's pace.
"""

import asyncio
import logging
import sys
import threading
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec
from msgspec import Struct

from edge.serving import Drain, serve
from router.app import create_app
from router.config import load_config

_JOBS = frozenset(
    {"RequestLog.run", "Health.watch", "ScoringService.watch", "Server.main_loop", "_set_result_unless_cancelled"}
)
"""What the loop runs whether or not a request is there; the last is what ends a sleep."""


class Counts(Struct, frozen=True):
    """Work since `begin`. `turns` are times that the loop called Python; `functions` tells calls apart by name."""

    python_calls: int
    c_calls: int
    turns: int
    tasks: int
    transfers: int
    functions: dict[str, int]


class Profile:
    """Counts calls of the thread that it is installed in, by `sys.setprofile`."""

    def __init__(self, loop: AbstractEventLoop, loop_frame: FrameType) -> None:
        """`loop_frame` is who runs `loop`: what it calls begins a turn."""
        self._loop = loop
        self._loop_frame = loop_frame

    def begin(self) -> None:
        """Count from now on."""
        self._codes: Counter[CodeType] = Counter()
        self._c_calls: Counter[str] = Counter()
        self._turns = 0
        self._in_job = False
        self._tasks = 0
        self._loop.set_task_factory(self._make_task)  # type: ignore[arg-type] # typeshed wants a generator's types
        self._transfers = _count_transfers()
        sys.setprofile(self._see)

    def end(self) -> Counts:
        """Count no more."""
        sys.setprofile(None)
        self._loop.set_task_factory(None)
        transfers = _count_transfers() - self._transfers
        named = Counter({_name(code): count for code, count in self._codes.items()})
        functions = dict((named + self._c_calls).most_common())
        return Counts(self._codes.total(), self._c_calls.total(), self._turns, self._tasks, transfers, functions)

    def _make_task(self, loop: AbstractEventLoop, coro: Coroutine[Any, Any, Any], **how: Any) -> asyncio.Task[Any]:
        self._tasks += not self._in_job
        return asyncio.Task(coro, loop=loop, **how)

    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            if frame.f_back is self._loop_frame:
                self._in_job = frame.f_code.co_qualname in _JOBS
                self._turns += not self._in_job
            if not self._in_job:
                self._codes[frame.f_code] += 1
        elif event == "c_call" and not self._in_job:
            self._c_calls[arg.__name__] += 1


def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    return f"{code.co_qualname} ({path.parent.name}/{path.name})"


def _count_transfers() -> int:
    """Reads and writes of this thread; its sockets' too, as libuv does them."""
    lines = Path(f"/proc/self/task/{threading.get_native_id()}/io").read_text().split()
    return sum(int(lines[at + 1]) for at, word in enumerate(lines) if word in {"syscr:", "syscw:"})


def _obey(loop: AbstractEventLoop, loop_frame: FrameType) -> None:
    profile = Profile(loop, loop_frame)

    def start() -> None:
        print(flush=True)
        profile.begin()

    def finish() -> None:
        print(msgspec.json.encode(profile.end()).decode(), flush=True)

    for line in sys.stdin:
        loop.call_soon_threadsafe(start if line == "begin\n" else finish)


def _find_loop_frame() -> FrameType:
    """Who called the loop that runs this."""
    frame = sys._getframe()
    while frame.f_code.co_qualname != "Runner.run":
        if frame.f_back is None:
            raise RuntimeError("asyncio's runner does not run this")
        frame = frame.f_back
    return frame


def _listen() -> None:
    orders = (asyncio.get_running_loop(), _find_loop_frame())
    threading.Thread(target=_obey, args=orders, daemon=True).start()


def main() -> int:
    """Serve until SIGTERM."""
    # each request's line is made; how many a write takes along differs with the machine's pace, so none is written
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, handlers=[errors])
    config = load_config(Path(sys.argv[1]))
    drain = Drain()
    app = create_app(config, drain)
    app.on_startup.append(_listen)
    return serve(app, drain, host=config.listen.host, port=config.listen.port, drain_s=1.0)


if __name__ == "__main__":
    sys.exit(main())
