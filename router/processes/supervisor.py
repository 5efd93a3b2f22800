"""
The parent of a router's processes: it starts them, restarts those that die, and passes a stop on.

It does nothing else: no threads, no event loop, so that it can fork at any time, and no request depends on it.
"""

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

Work = Callable[[int], int]
"""What a process does, by its index; returns its exit status."""

_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_LOOK_S: Final = 0.05
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_MOST_DEATHS: Final = 6
_DEATHS_S: Final = 120.0

_logger = logging.getLogger(__name__)


class Phase(Enum):
    """Of the whole: `PROVING` until the first process has started, so that a mistake is said by one alone."""

    PROVING = auto()
    SERVING = auto()
    STOPPING = auto()


@dataclass(slots=True)
class Child:
    """One process. `starts_at` counts while it does not run: when to start it (None: not any more)."""

    index: int
    pid: int | None = None
    starts_at: float | None = None
    deaths: deque[float] = field(default_factory=deque)

    def pause_s(self, now: float) -> float | None:
        """After one more death: how long to wait, or None when it died too often."""
        self.deaths.append(now)
        while self.deaths[0] < now - _DEATHS_S:
            self.deaths.popleft()
        count = len(self.deaths)
        return None if count >= _MOST_DEATHS else min(_FIRST_PAUSE_S * 2.0 ** (count - 1), _LONGEST_PAUSE_S)


class Supervisor:
    """For the main thread of a process that has no other."""

    def __init__(
        self, count: int, work: Work, is_proven: Callable[[], bool], release: Callable[[], None], *, stop_s: float
    ) -> None:
        """
        Args:
            count: How many processes.
            work: Run in each of them, after a fork.
            is_proven: Whether the first one has started, so that the others may.
            release: Give up what is kept for processes that are yet to be started; called when none will be.
            stop_s: How long a stop may last before what still runs is killed.
        """
        self._children = [Child(index) for index in range(count)]
        self._work = work
        self._is_proven = is_proven
        self._release = release
        self._stop_s = stop_s
        self._phase = Phase.PROVING
        self._kill_at = float("inf")
        self._status = 0

    def run(self) -> int:
        """Until all have ended after SIGTERM or SIGINT; the exit status, 1 if one failed at the start or too often."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._children[0].starts_at = time.monotonic()
        while any(child.pid is not None or child.starts_at is not None for child in self._children):
            self._start_due()
            caught = signal.sigtimedwait(_SIGNALS, self._patience_s())
            if caught is not None and caught.si_signo != signal.SIGCHLD:
                self._stop(signal.Signals(caught.si_signo))
            self._reap()
            self._prove()
            if time.monotonic() >= self._kill_at:
                self._kill()
        return self._status

    def _start_due(self) -> None:
        for child in self._children:
            if child.starts_at is not None and child.starts_at <= time.monotonic():
                child.starts_at = None
                child.pid = self._fork(child.index)

    def _fork(self, index: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            # Ctrl-C reaches the whole terminal: what it means is for the parent to say
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            status = self._work(index)
        except BaseException:
            _logger.exception("Process %d failed.", index)
        finally:
            os._exit(status)  # not back into what the parent is doing

    def _patience_s(self) -> float:
        if self._phase is Phase.PROVING:
            return _LOOK_S
        times = [child.starts_at for child in self._children if child.starts_at is not None]
        return max(min([self._kill_at, *times, time.monotonic() + 60.0]) - time.monotonic(), 0.0)

    def _prove(self) -> None:
        if self._phase is Phase.PROVING and self._is_proven():
            self._phase = Phase.SERVING
            for child in self._children[1:]:
                child.starts_at = time.monotonic()

    def _reap(self) -> None:
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = None
                self._see_end(child, os.waitstatus_to_exitcode(status))

    def _see_end(self, child: Child, status: int) -> None:
        if self._phase is Phase.STOPPING:
            if status not in {0, -signal.SIGTERM}:  # by SIGTERM: it had hardly started
                _logger.error("Process %d ended with status %d.", child.index, status)
                self._status = 1
            return
        if self._phase is Phase.PROVING:
            if status < 0:  # else it has said why
                _logger.error("Process %d died with status %d before it had started.", child.index, status)
            self._status = 1
            child.starts_at = None
            return
        pause_s = child.pause_s(time.monotonic())
        if pause_s is None:
            _logger.error("Process %d died %d times in %g s; stopping.", child.index, _MOST_DEATHS, _DEATHS_S)
            self._status = 1
            self._stop(signal.SIGTERM)
            return
        _logger.error("Process %d ended with status %d; restarting it in %g s.", child.index, status, pause_s)
        child.starts_at = time.monotonic() + pause_s

    def _stop(self, by: signal.Signals) -> None:
        """The second Ctrl-C is passed on as one, and cuts the drain short."""
        again = self._phase is Phase.STOPPING and by is signal.SIGINT
        if self._phase is not Phase.STOPPING:
            self._phase = Phase.STOPPING
            self._kill_at = time.monotonic() + self._stop_s
            self._release()
        for child in self._children:
            child.starts_at = None
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT if again else signal.SIGTERM)

    def _kill(self) -> None:
        self._kill_at = float("inf")
        for child in self._children:
            if child.pid is not None:
                _logger.error("Process %d did not stop in time; killing it.", child.index)
                os.kill(child.pid, signal.SIGKILL)
