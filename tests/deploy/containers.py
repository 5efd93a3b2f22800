"""Sites in containers for tests: made, started, looked into, and removed with all that they left."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.images.base import PACKAGES, make_base
from deploy.images.build import build_image, fill_wheelhouse, is_filled
from deploy.images.parts import BUILD_LOCK, Part
from deploy.site.compose import Compose
from deploy.site.launch import start
from deploy.site.scaffold import Answers, scaffold
from loadtests.ports import free_port
from loadtests.site import STORE

SERVERS = "hybrid-servers:local"
_ENGINE_S = 120.0
START_S = 180.0


def docker(*arguments: str, check: bool = True) -> str:
    """What the engine's command prints, errors too."""
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_ENGINE_S,
        check=False,
    )
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout}"
    return done.stdout.strip()


def missing_engine() -> str | None:
    """Why sites cannot run here; None if they can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    if shutil.which("docker-compose") is None and "Version" not in docker("compose", "version", check=False):
        return "no compose is installed"
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=_ENGINE_S, check=False)
    return None if asked.returncode == 0 else "no container engine answers; start dockerd"


def make_images() -> None:
    """Bases, wheels and images, as far as they are not there."""
    for name in PACKAGES:
        if "No such image" in docker("image", "inspect", name, check=False):
            make_base(name)
    for lock in (*(part.lock for part in Part), BUILD_LOCK):
        if not is_filled(lock):
            fill_wheelhouse(lock)
    for part in Part:
        build_image(part, version="dev")


def wait_until(holds: Callable[[], bool], what: str, limit_s: float = 60.0) -> float:
    """Seconds until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < limit_s, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.25)
    return time.monotonic() - began


class ContainerSite:
    """One site: its folder, and what runs of it."""

    def __init__(self, folder: Path, answers: Answers) -> None:
        self.folder = folder
        self.key = scaffold(folder, answers)
        self.url = ""
        self.took_s = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """Of a request by its first client."""
        return {"authorization": f"Bearer {self.key}"}

    @cached_property
    def compose(self) -> Compose:
        """Compose in its folder."""
        return Compose(self.folder)

    def edit(self, file: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change one of its YAML files before it starts."""
        path = self.folder / file
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def start(self) -> None:
        """Up, and every target of its router too."""
        began = time.monotonic()
        self.url = start(self.folder, START_S, print)
        self.took_s = time.monotonic() - began

    def container(self, service: str) -> str:
        """The id of a service's only container."""
        (container,) = self.compose.containers(service)
        return container

    def containers(self) -> dict[str, str]:
        """Ids by service."""
        return {name: self.container(name) for name in self.compose.services()}

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        (found,) = json.loads(docker("inspect", self.container(service)))
        return dict(found)

    def pid(self, service: str) -> int:
        """A service's first process, as this host sees it."""
        return int(self.inspect(service)["State"]["Pid"])

    def python(self, service: str, code: str, *, check: bool = True) -> str:
        """Run Python inside a container."""
        return docker("exec", self.container(service), "python", "-c", code, check=check)

    def ask(self, prompt: str, model: str = "auto", **more: Any) -> httpx.Response:
        """One chat request, always the same answer to the same prompt."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 100}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json=body | more, headers=self.headers, timeout=60, trust_env=False
        )

    def targets(self) -> dict[str, bool]:
        """What the router sees of its targets; nothing while it does not answer."""
        try:
            answer = httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return dict(answer["targets"])

    def wait_targets(self, limit_s: float = 60.0, **wanted: bool) -> float:
        """Seconds until the router sees its targets so; their names' dashes are underscores here."""
        by_name = {name.replace("_", "-"): up for name, up in wanted.items()}
        return wait_until(lambda: self.targets() == by_name, f"{by_name}, saw {self.targets()}", limit_s)

    def remove(self) -> None:
        """Containers, networks and volumes."""
        self.compose.down("--volumes")


@contextmanager
def container_site(
    folder: Path, answers: Answers, configure: Callable[[ContainerSite], None] | None = None
) -> Iterator[ContainerSite]:
    """A site around the body; `configure` may change it before it starts."""
    site = ContainerSite(folder, answers)
    if configure is not None:
        configure(site)
    try:
        site.start()
        yield site
    finally:
        site.remove()


def settings(**more: str) -> dict[str, str]:
    """`.env` of a site of tests: a free port on loopback, the store of this checkout, the local servers."""
    return {
        "ENDPOINT_ADDRESS": "127.0.0.1",
        "ENDPOINT_PORT": str(free_port()),
        "MODELS": str(STORE.resolve()),
        "VALKEY_IMAGE": SERVERS,
        "BALANCER_IMAGE": SERVERS,
        **more,
    }


def crash(pid: int) -> None:
    """SIGKILL from outside: `docker kill` would count as an operator's wish to stop."""
    os.kill(pid, 9)
