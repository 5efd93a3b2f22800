"""Server processes of benchmarks: started on their cores, watched, measured and stopped, whatever happens."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from deploy.demo import ROOT

_STOP_S: Final = 5.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG: Final = 1


class ProcessError(Exception):
    """A process did not start, or died; one line with its name and its last words."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the server under test has to itself, and which one load and upstream share."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """The first and the last of those that this process may use.

        Raises:
            ProcessError: there is but one.
        """
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise ProcessError("Two cores are needed: one for the server, one for load and upstream.")
        return cls(cores[0], cores[-1])


def read_busy_s(core: int) -> float:
    """Seconds since boot in which a core did anything, from /proc/stat, to a hundredth of a second. See proc(5)."""
    lines = Path("/proc/stat").read_text().splitlines()
    fields = next(line for line in lines if line.startswith(f"cpu{core} ")).split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


class ServerProcess:
    """A running process, with all that it started."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its own."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """With which it ended; None: it runs."""
        return self._process.poll()

    def cpu_s(self) -> float:
        """Processor time of all its threads and of its children, as the scheduler counts it."""
        return sum(_thread_s(thread) for pid in self.pids() for thread in _threads(pid))

    def resident_bytes(self) -> int:
        """Memory of it and its children; what they share counts for each."""
        return sum(int(content.split()[1]) * _PAGE_BYTES for pid in self.pids() if (content := _read(pid, "statm")))

    def check(self) -> None:
        """
        Raises:
            ProcessError: it died.
        """
        if self._process.poll() is not None:
            raise ProcessError(f"{self.name} stopped with status {self._process.returncode}: {self.last_words()}")

    def wait_ready(self, url: str, limit_s: float) -> None:
        """
        Raises:
            ProcessError: it died, or did not answer in time with anything but a server's error.
        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self.check()
            try:
                if not httpx.get(url, timeout=2, trust_env=False).is_server_error:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise ProcessError(f"{self.name} was not ready within {limit_s:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else "it said nothing"

    def stop(self, limit_s: float = _STOP_S) -> None:
        """SIGTERM; after `limit_s`, SIGKILL to what is left of its process group."""
        if self._process.poll() is None:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(limit_s)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_STOP_S)

    def pids(self) -> Iterator[int]:
        """Its own, then those of its children."""
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            for thread in _threads(pid):
                waiting += [int(child) for child in _read(thread, "children").split()]


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it ended meanwhile
        return []


def _read(of: Path | int, name: str) -> str:
    try:
        return (of if isinstance(of, Path) else Path(f"/proc/{of}")).joinpath(name).read_text()
    except OSError:
        return ""


def _thread_s(thread: Path) -> float:
    fields = _read(thread, "schedstat").split()
    return int(fields[0]) / 1e9 if fields else 0.0


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    *,
    cores: Collection[int] | None,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stop_s: float = _STOP_S,
) -> Iterator[ServerProcess]:
    """The process while the block runs; its output goes to `NAME.log` in the folder, and it has `stop_s` to stop.

    It is on its cores (None: on those of this process) from before its first instruction, so that what counts cores to
    size itself counts them.

    Raises:
        ProcessError: the program is missing.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=partial(_settle, cores),  # noqa: PLW1509 - it calls the system and nothing else
            )
        except FileNotFoundError as exc:
            raise ProcessError(f"{name}: {exc.filename} is missing") from exc
    running = ServerProcess(name, process, log)
    try:
        yield running
    finally:
        running.stop(stop_s)


def _settle(cores: Collection[int] | None) -> None:
    """To the cores, and to die with the benchmark even where that is killed."""
    if cores is not None:
        os.sched_setaffinity(0, cores)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
