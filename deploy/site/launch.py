"""`hybrid site up`: start a site and wait until it serves."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import msgspec
from msgspec import Struct

from deploy.site.check import Site
from deploy.site.compose import Compose, Port
from deploy.site.errors import SiteError

_POLL_S: Final = 0.5
_LAST_LINES: Final = 5
_ENGINE_S: Final = 30.0


class _Health(Struct, rename="pascal"):
    status: str


class _State(Struct, rename="pascal"):
    status: str
    running: bool
    exit_code: int
    health: _Health | None = None

    @property
    def word(self) -> str:
        """The health, where there is a check, else whether it runs."""
        return self.health.status if self.running and self.health else self.status


class _Readiness(Struct):
    ready: bool
    targets: dict[str, bool] = {}


def start(folder: Path, limit_s: float, say: Callable[[str], None]) -> str:
    """Bring a site up; returns the endpoint's URL, without `/v1`. `say` gets the progress, line by line.

    Raises:
        SiteError: compose failed, a part died, or something was not healthy within `limit_s`.
    """
    began = time.monotonic()
    site, compose = Site.open(folder), Compose(folder)
    compose.up()
    containers = {name: compose.containers(name) for name in site.services}
    while containers:
        for name, ids in list(containers.items()):
            states = _states(ids)
            if states and all(state.word in {"healthy", "running"} for state in states):
                say(f"{name} is {states[0].word} after {time.monotonic() - began:.1f} s")
                del containers[name]
            elif time.monotonic() - began > limit_s:
                raise SiteError(f"{name} is not healthy after {limit_s:.0f} s: {_last_words(ids)}")
        time.sleep(_POLL_S if containers else 0)
    url = endpoint(site)
    while (readiness := _ask(url)) is None or not readiness.ready:
        if time.monotonic() - began > limit_s:
            raise SiteError(f"{url} is not ready after {limit_s:.0f} s; `hybrid site check` may tell why")
        time.sleep(_POLL_S)
    for target, up in readiness.targets.items():
        say(f"target {target} is {'up' if up else 'down; its work goes to the others'}")
    return url


def endpoint(site: Site) -> str:
    """Where clients connect.

    Raises:
        SiteError: nothing is published.
    """
    for service in site.services.values():
        if service.part == "router" or service.name == "balancer":
            for port in service.ports:
                return _url(port)
    raise SiteError(f"{site.folder}: neither router nor balancer publishes a port")


def _url(port: Port) -> str:
    address = "127.0.0.1" if port.address == "0.0.0.0" else port.address  # noqa: S104 - compared, not bound
    return f"http://{address}:{port.published}"


def _ask(url: str) -> _Readiness | None:
    try:
        answer = httpx.get(f"{url}/health/ready", timeout=2, trust_env=False)
        return msgspec.json.decode(answer.content, type=_Readiness)
    except (httpx.HTTPError, msgspec.DecodeError):
        return None


def _states(containers: list[str]) -> list[_State]:
    if not containers:
        return []
    said = _docker("inspect", "--format", "{{json .State}}", *containers)
    return [msgspec.json.decode(line, type=_State) for line in said.splitlines() if line]


def _last_words(containers: list[str]) -> str:
    said = _docker("logs", "--tail", str(_LAST_LINES), containers[0]) if containers else ""
    return " ".join(said.split()) or "it said nothing"


def _docker(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - the engine's own command
        ["docker", *arguments],  # noqa: S607 - wherever the operator has it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_ENGINE_S,
        check=False,
    )
    return done.stdout
