"""The router under test and its upstream as processes, and what the system says of them."""

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import psutil
import yaml

from deploy.demo import ROOT
from loadtests.cores.upstream import Pace
from loadtests.ports import free_port
from loadtests.processes import ProcessError, serving
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
    port = free_port()
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
def running_upstream(folder: Path, pace: Pace, cores: Collection[int] | None = None) -> Iterator[int]:
    """The upstream; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.cores.upstream", str(port), msgspec.json.encode(pace).decode()]
    with serving("upstream", command, cores=cores, folder=folder) as process:
        process.wait_ready(f"http://127.0.0.1:{port}/health/ready", _START_S)
        yield port


@contextmanager
def running_router(
    folder: Path, upstream: int, cores: Collection[int] | None = None, *, tenants: int = 1, **sections: Any
) -> Iterator[Router]:
    """A router as `configure` has it, ready in all of its processes; stopped, and its exit status 0, at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path, keys, port = configure(folder, upstream, tenants=tenants, **sections)
    command = [sys.executable, "-m", "router", "serve", "--config", str(path)]
    with serving("router", command, cores=cores, folder=folder, stop_s=_STOP_S) as process:
        router = Router(psutil.Process(process.pid), port, keys, process.log)
        process.wait_ready(f"{router.url}/health/ready", _START_S)
        _wait_processes(router, sections.get("processes", 1))
        yield router
    if process.status:
        raise ProcessError(f"the router ended with status {process.status}: {process.last_words()}")


def asked(upstream: int) -> int:
    """How many answers the upstream was asked for."""
    return int(httpx.get(f"http://127.0.0.1:{upstream}/asked", timeout=10, trust_env=False).text)


def _wait_processes(router: Router, count: int) -> None:
    """Until each of several says what it counts."""
    end = time.monotonic() + _START_S
    while count > 1 and time.monotonic() < end:
        if up(router) == count:
            return
        time.sleep(0.1)
    if count > 1:
        raise ProcessError("not all processes of the router started")


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
