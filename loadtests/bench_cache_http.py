"""
What a hit costs through the whole HTTP path: auth, key, memory tier, headers, metrics and log, beside a bare Litestar
handler with the same server, on the same core, in turns.

Throughput needs a quiet machine; the processor time a request takes is shown beside it, and hardly minds neighbours.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import httpx
import msgspec

from loadtests.bench import Row, report
from loadtests.closed_loop import Load, ask_in_a_loop, post
from loadtests.ports import free_port
from loadtests.processes import serving
from loadtests.site import running_site

PATH = "/v1/chat/completions"
QUESTION = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": "What is 3 plus 4?"}]}
_BAR = 0.5
_CONNECTIONS = 32
_START_S = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """A load, and the processor time of the server's event loop in it."""

    load: Load
    busy_s: float

    @property
    def us(self) -> float:
        """Microseconds of a core for a request."""
        return self.busy_s / len(self.load.took_s) * 1e6


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers on a port."""

    pid: int
    port: int

    def pin(self, core: int) -> None:
        """All of its threads to one core."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    def busy_s(self) -> float:
        """Processor time of its main thread, where the event loop runs."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def serve(self, request: bytes, *, for_s: float) -> Served:
        """Load it for a while."""
        before = self.busy_s()
        load = ask_in_a_loop(self.port, request, connections=_CONNECTIONS, for_s=for_s)
        return Served(load, self.busy_s() - before)


@contextmanager
def bare_server(folder: Path) -> Iterator[Server]:
    """The yardstick, ready."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.bare_app", str(port)]
    with serving("bare", command, cores=None, folder=folder) as process:
        process.wait_ready(f"http://127.0.0.1:{port}{PATH}", _START_S)
        yield Server(process.pid, port)


def measure(rounds: int, for_s: float) -> list[Row]:
    """Both in turns, first one, then the other."""
    request = post(PATH, msgspec.json.encode(QUESTION))
    with tempfile.TemporaryDirectory() as name, running_site(Path(name)) as site, bare_server(Path(name)) as bare:
        ours = Server(site.pid("router"), site.ports.router)
        statuses = [httpx.post(site.url + PATH, json=QUESTION, timeout=20).headers["x-cache"] for _ in range(2)]
        if statuses != ["miss", "hit"]:
            raise RuntimeError(f"the second answer was to come from the cache: {statuses}")
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1]})
        pairs = []
        for server in (bare, ours):
            server.pin(cores[0])
            server.serve(request, for_s=0.5)
        for turn in range(rounds):
            order = (bare, ours) if turn % 2 == 0 else (ours, bare)
            served = {server.pid: server.serve(request, for_s=for_s) for server in order}
            pairs.append((served[bare.pid], served[ours.pid]))
        os.sched_setaffinity(0, set(cores))
    return _rows(pairs)


def _rows(pairs: list[tuple[Served, Served]]) -> list[Row]:
    ratios = sorted(ours.load.per_s / bare.load.per_s for bare, ours in pairs)
    times = sorted(bare.us / ours.us for bare, ours in pairs)
    ratio = median(ratios)
    per_s = [median(served.load.per_s for served in side) for side in zip(*pairs, strict=True)]
    spread = f"{ratio:.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    return [
        Row("exact hit / bare Litestar, requests/s", spread, f">= {_BAR}", ratio >= _BAR),
        Row("the same in processor time", f"{median(times):.2f} [{times[0]:.2f}, {times[-1]:.2f}]", "-", True),
        Row("requests/s, bare and hit", f"{per_s[0]:,.0f} and {per_s[1]:,.0f}", "-", True),
        Row(
            "p50 of a hit at 32 connections", f"{median(ours.load.took_ms(50) for _, ours in pairs):.1f} ms", "-", True
        ),
    ]


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Turns of each server.")
@click.option("--seconds", default=2.0, show_default=True, help="How long a turn is.")
def main(rounds: int, seconds: float) -> None:
    """What an exact hit costs through HTTP."""
    sys.exit(report("cache-http", measure(rounds, seconds)))


if __name__ == "__main__":
    main()
