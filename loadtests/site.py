"""A site of real processes for tests and benchmarks: edge, Triton, router on free ports, each stoppable by itself."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.demo import ROOT, SITE, Part, Ports, write_parts
from edge.engine.events import Statistics
from edge.engine.metrics import COUNTERS, GAUGES
from loadtests.ports import free_port
from router.api.lanes import LanesReport
from router.lanes import Kind
from router.tickets import LaneStatistics

DEMO_ARTIFACT = SITE / "pair.score.json"
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

    def __init__(self, work: Path, ports: Ports | None = None) -> None:
        self.work = work
        self.ports = ports or free_ports()
        self._parts: dict[str, Part] = {part.name.lower(): part for part in write_parts(self.ports, STORE, work)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._metrics = httpx.Client(timeout=15, trust_env=False)
        self.url = f"http://127.0.0.1:{self.ports.router}"
        self.edge_url = f"http://127.0.0.1:{self.ports.edge}"
        self.triton_metrics_url = f"http://127.0.0.1:{self.ports.triton_metrics}/metrics"

    def configure(self, name: str, section: str, **settings: Any) -> None:
        """Change a part's configuration before it starts."""
        path = self.work / f"{name}.yaml"
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        content.setdefault(section, {}).update(settings)
        path.write_text(yaml.safe_dump(content))

    def set_lane(self, target: str, **lane: Any) -> None:
        """Change a target's lane before the router starts."""
        targets = yaml.safe_load((self.work / "router.yaml").read_text())["targets"]
        self.configure("router", "targets", **{target: {**targets[target], "lane": lane}})

    def lane(self, target: str) -> LaneStatistics:
        """A target's chat lane, as the router sees it."""
        answer = self._metrics.get(f"{self.url}/v1/lanes").raise_for_status()
        report = msgspec.json.decode(answer.content, type=LanesReport)
        return next(lane.now for lane in report.lanes if (lane.target, lane.kind) == (target, Kind.CHAT))

    def add_router(self, name: str) -> str:
        """Another replica of the router, configured as that is now, to be started by name; returns its URL."""
        port = free_port()
        content: dict[str, Any] = yaml.safe_load((self.work / "router.yaml").read_text())
        content["listen"]["port"] = port
        (self.work / f"{name}.yaml").write_text(yaml.safe_dump(content))
        file = str(self.work / "router.yaml")
        command = [str(self.work / f"{name}.yaml") if one == file else one for one in self._parts["router"].command]
        url = f"http://127.0.0.1:{port}"
        self._parts[name] = Part(name, command, f"{url}/health/ready")
        return url

    def statistics(self, tier: str) -> Statistics:
        """What the chat model of `edge` or `cloud` says itself of its sequences."""
        url = f"{self.edge_url}/metrics" if tier == "edge" else self.triton_metrics_url
        families = {family.name: family for family in (*COUNTERS, *GAUGES)}
        found: dict[str, int] = {}
        for metric in text_string_to_metric_families(self._metrics.get(url).raise_for_status().text):
            for sample in metric.samples:
                if (family := families.get(sample.name)) is not None:
                    found[family.members[sample.labels[family.label]]] = int(sample.value)
        return Statistics(**found)

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
        self._metrics.close()
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
def running_site(
    work: Path, configure: Callable[[Site], None] | None = None, ports: Ports | None = None
) -> Iterator[Site]:
    """A whole site, ready; `configure` may change it before it starts."""
    site = Site(work, ports)
    if configure is not None:
        configure(site)
    try:
        site.start("edge", "triton")
        site.start("router")
        for target in ("edge-demo", "cloud-demo"):
            site.wait_target(target, up=True)
        yield site
    finally:
        site.close()
