"""One turn of closed load by wrk (https://github.com/wg/wrk), on the load's core."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from loadtests.processes import ProcessError

_SCRIPT: Final = Path(__file__).with_name("turn.lua")
_GRACE_S: Final = 30


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """wrk's counts of what went wrong: with sockets, with statuses beyond 399, with patience."""

    connect: int = 0
    read: int = 0
    write: int = 0
    status: int = 0
    timeout: int = 0

    @property
    def all(self) -> int:
        """Of every kind."""
        return self.connect + self.read + self.write + self.status + self.timeout

    def __str__(self) -> str:
        """Those that there were."""
        return ", ".join(f"{name}: {count}" for name, count in msgspec.structs.asdict(self).items() if count)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk saw: answers, microseconds in all, bytes, and percentiles of the answers' times."""

    answers: int
    for_us: int
    bytes: int
    p50_us: int
    p99_us: int
    p999_us: int
    errors: Errors


@dataclass(frozen=True, slots=True)
class Wrk:
    """wrk on a core."""

    program: str
    core: int

    @classmethod
    def find(cls, core: int) -> "Wrk":
        """
        Raises:
            ProcessError: it is not installed.
        """
        program = shutil.which("wrk")
        if program is None:
            raise ProcessError("wrk is not installed (Debian: apt-get install wrk)")
        return cls(program, core)

    def load(self, url: str, bodies: Path, *, first: int, step: int, connections: int, for_s: int) -> Load:
        """Every connection asks again as soon as it is answered; the bodies are those from number `first` on,
        or with a `step` of 0 that one again and again.

        Raises:
            ProcessError: wrk failed.
        """
        result = bodies.with_suffix(".json")
        result.unlink(missing_ok=True)
        command = [
            self.program, "-t1", f"-c{connections}", f"-d{for_s}s", f"--timeout={_GRACE_S}s", f"-s{_SCRIPT}", url,
            "--", str(bodies), str(first), str(step), str(result),
        ]  # fmt: skip
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=for_s + _GRACE_S,
            check=False,
            preexec_fn=partial(os.sched_setaffinity, 0, {self.core}),
        )
        if done.returncode or not result.exists():
            raise ProcessError(f"wrk failed: {(done.stderr or done.stdout).decode(errors='replace').strip()[-300:]}")
        return msgspec.json.decode(result.read_bytes(), type=Load)
