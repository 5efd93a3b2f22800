"""
`make demo`: edge, Triton and router as real processes on loopback, started together and stopped together.

A busy port or a part that dies is named in one line, and everything else is stopped.
"""

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import yaml

from edge.models.errors import StoreError
from edge.models.store import Store

ROOT = Path(__file__).parent.parent
SITE = ROOT / "deploy" / "sites" / "demo"
START_S = 90.0
STOP_S = 25.0
_POLL_S = 0.1


class DemoError(Exception):
    """The demo cannot run; one line that names the cause."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each part listens."""

    router: int
    edge: int
    triton_http: int
    triton_grpc: int
    triton_metrics: int

    def check_free(self) -> None:
        """
        Raises:
            DemoError: a port is taken.
        """
        for name in self.__slots__:
            port = getattr(self, name)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as exc:
                    option = f"--{name.replace('_', '-')}-port"
                    raise DemoError(f"Port {port} is busy; stop its owner, or choose another with {option}.") from exc


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the demo."""

    name: str
    command: list[str]
    ready_url: str


class RunningPart:
    """A started part and its log."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process, log: Path) -> None:
        self.part = part
        self.process = process
        self.log = log

    async def wait_ready(self, client: httpx.AsyncClient) -> None:
        """
        Raises:
            DemoError: the part took over `START_S`.
        """
        started = time.monotonic()
        while time.monotonic() - started < START_S:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(self.part.ready_url)).is_success:
                    click.echo(f"  {self.part.name} is ready after {time.monotonic() - started:.1f} s")
                    return
            await asyncio.sleep(_POLL_S)
        raise DemoError(f"{self.part.name} was not ready within {START_S:.0f} s; its log: {self.log}")

    async def watch(self) -> None:
        """
        Raises:
            DemoError: the part ended by itself.
        """
        status = await self.process.wait()
        last = (self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise DemoError(f"{self.part.name} stopped with status {status}: {last} (log: {self.log})")

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `STOP_S`."""
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


def write_parts(ports: Ports, store: Path, work: Path) -> list[Part]:
    """The parts, with their configuration written to `work`.

    Raises:
        DemoError: a model is missing.
    """
    try:
        shelf = Store(store)
        edge_chat, cloud_chat = shelf.find("demo-edge"), shelf.find("demo-cloud")
        embedding, scoring_embedding = shelf.find("all-minilm-l6-v2"), shelf.find("all-minilm-l6-v2-fast")
    except StoreError as exc:
        raise DemoError(f"{exc} `hybrid models pull --all` brings the demo's models.") from exc
    work.mkdir(parents=True, exist_ok=True)
    edge: dict[str, Any] = yaml.safe_load((SITE / "edge.yaml").read_text())
    # the site's files are for containers: here all is open to this machine only, and nothing is kept between runs
    edge["listen"] = {"host": "127.0.0.1", "port": ports.edge}
    edge["chat"]["artifact"] = str(edge_chat)
    edge["embedding"]["artifact"] = str(embedding)
    router: dict[str, Any] = yaml.safe_load((SITE / "router.yaml").read_text())
    router["listen"] = {"host": "127.0.0.1", "port": ports.router}
    del router["keys_file"], router["cache"]
    router["scoring"]["artifact"] = str(SITE / router["scoring"]["artifact"])
    router["scoring"]["embedding"] = str(scoring_embedding)
    router["targets"]["edge-demo"]["url"] = f"http://127.0.0.1:{ports.edge}"
    router["targets"]["cloud-demo"] |= {
        "address": f"127.0.0.1:{ports.triton_grpc}",
        "template": str(cloud_chat / "tokenizer_config.json"),
    }
    triton: dict[str, Any] = {
        "chat": {"artifact": str(cloud_chat), "threads": 1},
        "embed": {"artifact": str(embedding)},
        "http_port": ports.triton_http,
        "grpc_port": ports.triton_grpc,
        "metrics_port": ports.triton_metrics,
    }
    for name, content in (("edge", edge), ("triton", triton), ("router", router)):
        (work / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    python = [*_dying_with_us(), sys.executable, "-m"]
    return [
        Part(
            "edge",
            [*python, "edge", "--config", str(work / "edge.yaml")],
            f"http://127.0.0.1:{ports.edge}/health/ready",
        ),
        Part(
            "Triton",
            [*python, "cloud", "--config", str(work / "triton.yaml")],
            f"http://127.0.0.1:{ports.triton_http}/v2/health/ready",
        ),
        Part(
            "router",
            [*python, "router", "serve", "--config", str(work / "router.yaml")],
            f"http://127.0.0.1:{ports.router}/health/ready",
        ),
    ]


async def run(ports: Ports, store: Path, work: Path) -> None:
    """The demo until it is cancelled.

    Raises:
        DemoError: see the module.
    """
    ports.check_free()
    parts = write_parts(ports, store, work)
    click.echo(f"Starting {', '.join(part.name for part in parts)}; logs are in {work}")
    started: list[RunningPart] = []
    error: BaseException | None = None
    try:
        for part in parts:
            started.append(await _start(part, work))  # noqa: PERF401 - one that fails must not hide those before it
        async with asyncio.TaskGroup() as group:
            for one in started:
                group.create_task(one.watch())
            await _wait_all_ready(started)
            click.echo(_GREETING.format(url=f"http://127.0.0.1:{ports.router}"))
    except* DemoError as failed:
        error = failed.exceptions[0]
    finally:
        await asyncio.gather(*(one.stop() for one in started))
    if error is not None:  # raised in there, Python 3.11.2 would wrap it in a group
        raise error from None


async def _start(part: Part, work: Path) -> RunningPart:
    log = work / f"{part.name.lower()}.log"
    with log.open("wb") as sink:
        # a session of its own: Ctrl-C reaches this process alone, which then stops the parts in order
        process = await asyncio.create_subprocess_exec(
            *part.command, stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=ROOT, start_new_session=True
        )
    return RunningPart(part, process, log)


async def _wait_all_ready(started: list[RunningPart]) -> None:
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        async with asyncio.TaskGroup() as group:
            for one in started:
                group.create_task(one.wait_ready(client))
        # the router may have been up before the targets; its probes find them within a second or two
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            targets = (await client.get(started[-1].part.ready_url)).json()["targets"]
            if all(targets.values()):
                return
            await asyncio.sleep(_POLL_S)
        raise DemoError(f"The router does not reach all of its targets: {targets}")


def _dying_with_us() -> list[str]:
    """A prefix that sends SIGTERM to a part whose parent was killed: no orphans even then."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


async def _run_until_signal(ports: Ports, store: Path, work: Path) -> None:
    task = asyncio.current_task()
    if task is not None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    try:
        await run(ports, store, work)
    except asyncio.CancelledError:
        click.echo("Stopped.")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the models are.")
@click.option("--work", type=click.Path(path_type=Path), default=Path(".demo"), help="Where configuration and logs go.")
@click.option("--router-port", default=8080, help="The endpoint.")
@click.option("--edge-port", default=8081)
@click.option("--triton-http-port", default=8000)
@click.option("--triton-grpc-port", default=8001)
@click.option("--triton-metrics-port", default=8002)
def main(store: Path, work: Path, **listen: int) -> None:
    """Run edge, Triton and router on this machine until Ctrl-C.

    \b
    Example:
      make demo DEMO="--router-port 9080"
    """
    ports = Ports(**{name.removesuffix("_port"): port for name, port in listen.items()})
    try:
        asyncio.run(_run_until_signal(ports, store.resolve(), work.resolve()))
    except DemoError as exc:
        raise click.ClickException(str(exc)) from exc


_GREETING = """
Ready: {url}/v1  (open to this machine only: no keys are set). Ctrl-C stops everything. Three things to try:

  curl -si {url}/v1/chat/completions \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "What is 3 plus 4?"}}]}}'
  curl -si {url}/v1/chat/completions \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "What is 4817 minus 3956?"}}]}}'
  .venv/bin/hybrid route "What is 4817 minus 3956?"
"""

if __name__ == "__main__":
    main()
