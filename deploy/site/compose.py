"""Compose as the host has it, v2 (`docker compose`) or 1.29 (`docker-compose`), and the services that it sees."""

import shutil
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from deploy.site.errors import SiteError

PORTS = {"router": 8080, "edge": 8081, "cloud": 8000}
"""Where each part listens in its container, and the images' health checks look."""
ENDPOINT_LABEL = "hybrid.endpoint"
"""ADDRESS:PORT of an endpoint in the host's own network, which publishes nothing."""
_CONFIG_S = 60.0
_UP_S = 600.0
_PROFILES = "COMPOSE_PROFILES="


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service that the host publishes."""

    address: str
    published: int
    target: int


@dataclass(frozen=True, slots=True)
class Service:
    """One service, with everything merged and filled in."""

    name: str
    image: str
    ports: tuple[Port, ...] = ()
    mounts: dict[PurePosixPath, Path | None] = field(default_factory=dict)
    """By path in the container, the file or folder on this host; None for a named volume."""
    networks: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)
    """All of it, as compose says it."""

    @property
    def part(self) -> str | None:
        """`router`, `edge` or `cloud`, if it is one of ours."""
        name = self.image.rpartition("/")[2].partition(":")[0].partition("@")[0].removesuffix("-gpu")
        return name.removeprefix("hybrid-") if name in {"hybrid-router", "hybrid-edge", "hybrid-cloud"} else None

    @property
    def in_host_network(self) -> bool:
        """Whether it has no network of its own; its ports are then what its label `hybrid.endpoint` says."""
        return bool(self.settings.get("network_mode") == "host")

    @property
    def listens(self) -> tuple[str, int]:
        """Address and port that a part of ours listens on, inside its container."""
        if self.in_host_network and self.ports:
            return self.ports[0].address, self.ports[0].published
        return "0.0.0.0", PORTS[self.part or ""]  # noqa: S104 - inside its container

    def reaches(self, other: "Service") -> bool:
        """Whether it finds another service by name."""
        if not self.in_host_network:
            return not self.networks.isdisjoint(other.networks)
        fixed = {(network or {}).get("ipv4_address") for network in other.attached.values()}
        return _pairs(self.settings.get("extra_hosts", {})).get(other.name) in fixed - {None}

    @property
    def attached(self) -> dict[str, dict[str, str] | None]:
        """Its networks, with what it asks of each."""
        said = self.settings.get("networks") or {}
        return said if isinstance(said, dict) else dict.fromkeys(said)

    def on_host(self, path: PurePosixPath) -> Path | None:
        """Where a file of the container is on this host; None if it is not mounted, or in a volume."""
        for place in (path, *path.parents):
            if place in self.mounts:
                source = self.mounts[place]
                return source / path.relative_to(place) if source else None
        return None


class Compose:
    """The compose command for one site's folder."""

    def __init__(self, folder: Path, profiles: Collection[str] = ()) -> None:
        """
        Args:
            folder: The site's.
            profiles: Turned on besides those of `.env`.

        Raises:
            SiteError: there is no compose on this host.
        """
        self._folder = folder
        self._on = frozenset(profiles)
        self._command = [*_find_command(), *(word for name in profiles for word in ("--profile", name))]

    def services(self) -> dict[str, Service]:
        """The services that run here by name: all but those of profiles that `.env` does not turn on.

        Raises:
            SiteError: compose refuses the files; its own words.
        """
        document = yaml.safe_load(self._run("config", limit_s=_CONFIG_S))
        secrets = {name: Path(secret["file"]) for name, secret in (document.get("secrets") or {}).items()}
        on = self._profiles()
        return {
            name: _read(name, settings, secrets)
            for name, settings in document["services"].items()
            if not settings.get("profiles") or on.intersection(settings["profiles"])
        }

    def up(self, *options: str) -> None:
        """Create and start what is not running.

        Raises:
            SiteError: compose failed; its last words.
        """
        self._run("up", "-d", "--remove-orphans", *options, limit_s=_UP_S)

    def stop(self) -> None:
        """Stop the containers and keep them.

        Raises:
            SiteError: compose failed; its last words.
        """
        self._run("stop", limit_s=_UP_S)

    def down(self, *options: str) -> None:
        """Stop and remove the containers and networks.

        Raises:
            SiteError: compose failed; its last words.
        """
        self._run("down", "--remove-orphans", *options, limit_s=_UP_S)

    def remove(self, service: str) -> None:
        """Stop and remove one service's containers.

        Raises:
            SiteError: compose failed; its last words.
        """
        self._run("stop", service, limit_s=_UP_S)
        self._run("rm", "-f", service, limit_s=_UP_S)

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers, running or not.

        Raises:
            SiteError: compose failed; its last words.
        """
        return self._run("ps", "-q", service, limit_s=_CONFIG_S).split()

    def _profiles(self) -> frozenset[str]:
        file = self._folder / ".env"
        lines = file.read_text().splitlines() if file.is_file() else []
        return self._on | {
            name for line in lines if line.startswith(_PROFILES) for name in line.removeprefix(_PROFILES).split(",")
        }

    def _run(self, *arguments: str, limit_s: float) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - compose, on the operator's own files
                [*self._command, *arguments],
                cwd=self._folder,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise SiteError(f"{self._folder}: `compose {arguments[0]}` took over {limit_s:.0f} s") from exc
        if done.returncode:
            said = " ".join(done.stderr.split()[-60:]) or "it said nothing"
            raise SiteError(f"{self._folder}: `compose {arguments[0]}` failed: {said}")
        return done.stdout


def _find_command() -> list[str]:
    docker, alone = shutil.which("docker"), shutil.which("docker-compose")
    if docker:
        asked = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)  # noqa: S603
        if asked.returncode == 0:
            return [docker, "compose"]
    if alone:
        return [alone]
    raise SiteError("no compose on this host; install Docker's compose plugin, or Debian's docker-compose")


def _read(name: str, settings: dict[str, Any], secrets: dict[str, Path]) -> Service:
    mounts = dict(_mounts(settings))
    for secret in settings.get("secrets", []):
        source = secret if isinstance(secret, str) else secret["source"]
        target = source if isinstance(secret, str) else secret.get("target") or source
        mounts[PurePosixPath("/run/secrets") / target] = secrets[source]
    return Service(
        name,
        settings["image"],
        tuple(_ports(settings)),
        mounts,
        frozenset(settings.get("networks") or ["default"]),
        settings,
    )


def _mounts(settings: dict[str, Any]) -> Iterator[tuple[PurePosixPath, Path | None]]:
    for volume in settings.get("volumes", []):
        if isinstance(volume, str):  # 1.29: SOURCE:TARGET[:MODE]
            source, target = volume.split(":")[:2]
            yield PurePosixPath(target), Path(source) if source.startswith("/") else None
        else:
            yield PurePosixPath(volume["target"]), Path(volume["source"]) if volume["type"] == "bind" else None


def _ports(settings: dict[str, Any]) -> Iterator[Port]:
    yield from map(_port, settings.get("ports", []))
    if settings.get("network_mode") == "host" and (at := _pairs(settings.get("labels", {})).get(ENDPOINT_LABEL)):
        yield _port(f"{at}:{PORTS['router']}")


def _pairs(said: dict[str, str] | list[str]) -> dict[str, str]:
    """1.29 prints a mapping, v2 a list of NAME=VALUE."""
    return said if isinstance(said, dict) else dict(pair.split("=", 1) for pair in said)


def _port(port: str | dict[str, Any]) -> Port:
    if isinstance(port, str):  # 1.29: [ADDRESS:]PUBLISHED:TARGET[/PROTOCOL]
        address, _, rest = port.partition("/")[0].rpartition(":")
        host, _, published = address.rpartition(":")
        return Port(host or "0.0.0.0", int(published), int(rest))  # noqa: S104 - what compose means by none
    return Port(port.get("host_ip", "0.0.0.0"), int(port["published"]), int(port["target"]))  # noqa: S104
