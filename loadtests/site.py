"""A site of real processes for tests and benchmarks: edge, Triton, router on free ports, each stoppable by itself."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from deploy.demo import ROOT, Part, Ports, write_parts

STORE = Path(os.environ.get("HYBRID_MODELS", ROOT / ".models"))
_START_S = 90.0
_STOP_S = 25.0


def free_ports() -> Ports:
    """Five ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    numbers = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return Ports(*numbers)


class Site:
    """The three parts. `url` is the router's, without `/v1`."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.ports = free_ports()
        self._parts: dict[str, Part] = {part.name.lower(): part for part in write_parts(self.ports, STORE, work)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{self.ports.router}"
        self.edge_url = f"http://127.0.0.1:{self.ports.edge}"
        self.triton_metrics_url = f"http://127.0.0.1:{self.ports.triton_metrics}/metrics"

    def start(self, *names: str) -> None:
        """Start parts and wait until each is ready."""
        for name in names:
            log: IO[bytes]
            with (self.work / f"{name}.log").open("ab") as log:
                self._running[name] = subprocess.Popen(
                    self._parts[name].command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
                )
        for name in names:
            self._wait_ready(name)

    def stop(self, name: str) -> int:
        """SIGTERM; returns the exit status."""
        process = self._running.pop(name)
        process.terminate()
        return process.wait(_STOP_S)

    def kill(self, name: str) -> None:
        """SIGKILL to the part's whole process group, as a crash would."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_S)

    def pid(self, name: str) -> int:
        """The part's process."""
        return self._running[name].pid

    def log(self, name: str) -> str:
        """What the part said so far."""
        return (self.work / f"{name}.log").read_text(errors="replace")

    def wait_target(self, target: str, *, up: bool, limit_s: float = 15.0) -> None:
        """Wait until the router sees a target up or down."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if httpx.get(f"{self.url}/health/ready", timeout=5).json()["targets"][target] is up:
                return
            time.sleep(0.05)
        raise AssertionError(f"{target} was not {'up' if up else 'down'} within {limit_s} s")

    def close(self) -> None:
        """Stop what runs, in reverse."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def _wait_ready(self, name: str) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._running[name].poll() is not None:
                raise AssertionError(f"{name} died:\n{self.log(name)[-2000:]}")
            try:
                if httpx.get(self._parts[name].ready_url, timeout=2).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{name} is not ready:\n{self.log(name)[-2000:]}")


@contextmanager
def running_site(work: Path) -> Iterator[Site]:
    """A whole site, ready."""
    site = Site(work)
    try:
        site.start("edge", "triton")
        site.start("router")
        for target in ("edge-demo", "cloud-demo"):
            site.wait_target(target, up=True)
        yield site
    finally:
        site.close()
