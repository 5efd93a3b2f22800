"""The router under test and its upstream as processes, and what the system says of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import psutil
import yaml

from deploy.demo import ROOT
from loadtests.cores.upstream import Pace
from loadtests.site import free_ports
from router.admission import digest, new_key

_START_S: Final = 60.0
_STOP_S: Final = 40.0
_SLOTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Router:
    """A running router. `keys` are its tenants'."""

    process: psutil.Process
    port: int
    keys: list[str]
    log: Path

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[psutil.Process]:
        """The processes that serve: the one there is, or the parent's children."""
        return self.process.children() or [self.process]

    def cpu_s(self) -> float:
        """Processor time of all its processes."""
        return sum(sum(one.cpu_times()[:2]) for one in (self.process, *self.process.children()))

    def resident_bytes(self) -> int:
        """Memory of all that serve."""
        return sum(int(one.memory_info().rss) for one in self.workers())


def configure(folder: Path, upstream: int, *, tenants: int = 1, **sections: Any) -> tuple[Path, list[str], int]:
    """A router's file with all of the pipeline that needs no model: keys, exact cache, stage one's features, decision,
    lanes, metrics, log; two tiers, both the upstream. Returns the file, the tenants' keys and the port.
    """
    keys = [new_key() for _ in range(tenants)]
    entries = {digest(key): {"tenant": f"tenant-{i}", "operator": i == 0} for i, key in enumerate(keys)}
    (folder / "keys.yaml").write_text(yaml.safe_dump(entries))
    target = {
        "backend": "openai",
        "url": f"http://127.0.0.1:{upstream}",
        "chat_model": "m",
        "connections": _SLOTS,
        "lane": {"slots": _SLOTS, "backlog": _SLOTS},
    }
    port = free_ports().router
    content: dict[str, Any] = {
        "listen": {"port": port},
        "keys_file": str(folder / "keys.yaml"),
        "scoring": {"artifact": str(ROOT / "router/scoring/general.score.json"), "use_embedding": "never"},
        "targets": {f"{tier}-one": {**target, "tier": tier} for tier in ("edge", "cloud")},
        **sections,
    }
    path = folder / "router.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path, keys, port


@contextmanager
def running_upstream(pace: Pace, cores: set[int] | None = None) -> Iterator[int]:
    """The upstream; yields its port."""
    port = free_ports().edge
    command = [sys.executable, "-m", "loadtests.cores.upstream", str(port), msgspec.json.encode(pace).decode()]
    with _running(command, cores, subprocess.DEVNULL) as process:
        _wait_ready(process, f"http://127.0.0.1:{port}/health/ready")
        yield port


@contextmanager
def running_router(
    folder: Path, upstream: int, cores: set[int] | None = None, *, tenants: int = 1, **sections: Any
) -> Iterator[Router]:
    """A router as `configure` has it, ready in all of its processes; stopped, and its exit status 0, at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path, keys, port = configure(folder, upstream, tenants=tenants, **sections)
    log = folder / "router.log"
    command = [sys.executable, "-m", "router", "serve", "--config", str(path)]
    with log.open("wb") as sink, _running(command, cores, sink) as process:
        router = Router(psutil.Process(process.pid), port, keys, log)
        try:
            _wait_ready(process, f"{router.url}/health/ready")
        except RuntimeError as exc:
            raise RuntimeError(f"{exc}: {log.read_text()[-500:]}") from exc
        _wait_processes(router, sections.get("processes", 1))
        yield router
    if process.returncode:
        raise RuntimeError(f"the router ended with status {process.returncode}: {log.read_text()[-500:]}")


def asked(upstream: int) -> int:
    """How many answers the upstream was asked for."""
    return int(httpx.get(f"http://127.0.0.1:{upstream}/asked", timeout=10, trust_env=False).text)


@contextmanager
def _running(command: list[str], cores: set[int] | None, sink: Any) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink, start_new_session=True)
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)  # before it starts threads or processes, which inherit it
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_S)


def _wait_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{url} is not ready, status {process.poll()}")


def _wait_processes(router: Router, count: int) -> None:
    """Until each of several says what it counts."""
    end = time.monotonic() + _START_S
    while count > 1 and time.monotonic() < end:
        if up(router) == count:
            return
        time.sleep(0.1)
    if count > 1:
        raise RuntimeError("not all processes of the router started")


def up(router: Router) -> int:
    """How many of several processes answer."""
    page = httpx.get(f"{router.url}/metrics", timeout=10, trust_env=False).text
    return sum(line.startswith("hybrid_process_up{") and line.endswith(" 1") for line in page.splitlines())


def counts(router: Router, metric: str) -> Mapping[str, float]:
    """A metric's sum by process."""
    page = httpx.get(f"{router.url}/metrics", timeout=10, trust_env=False).text
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith(f'{metric}{{process="'):
            index = line.split('"', 2)[1]
            found[index] = found.get(index, 0.0) + float(line.rsplit(" ", 1)[1])
    return found
