"""What upgrades work on, as a site's folder says it."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from deploy.site.compose import Service
from deploy.site.errors import SiteError
from deploy.site.rolling import GoodFiles, Roll
from deploy.site.services import ComposeServices
from deploy.site.upgrade import QUESTIONS, Edge, Upgrade, read_questions
from deploy.site.waiting import Limits

_ETC: Final = PurePosixPath("/etc/hybrid")


def plan_roll(folder: Path, limits: Limits, say: Callable[[str], None]) -> Roll:
    """The site's router replicas.

    Raises:
        SiteError: compose refuses the site.
    """
    services = ComposeServices(folder)
    return Roll(services, _find_routers(services), GoodFiles(folder), limits, say)


def plan_upgrade(folder: Path, limits: Limits, say: Callable[[str], None]) -> Upgrade:
    """The site's edge, and the one that its routers have as canary beside it.

    Raises:
        SiteError: its routers have none, or a file is missing.
    """
    services = ComposeServices(folder)
    routers = _find_routers(services)
    router = services.services[routers[0]]
    targets: dict[str, Any] = (yaml.safe_load(_on_host(router, "router.yaml").read_bytes()) or {}).get("targets", {})
    name = next((name for name, target in targets.items() if target.get("canary") and target.get("url")), None)
    if name is None:
        raise SiteError(f"{folder / 'router.yaml'}: no target has a canary; this kind of site cannot upgrade its edge")
    section = targets[name]
    canary, stable = (_find_edge(services, one, targets[one]["url"]) for one in (name, section["canary"]["of"]))

    def lead_to_host(path: str) -> Path:
        found = services.services[stable.service].on_host(PurePosixPath(path))
        if found is None:
            raise SiteError(f"{path}: is in no folder of this host; mount the model store from one")
        return found

    return Upgrade(
        services=services,
        routers=routers,
        stable=stable,
        canary=canary,
        share_file=_on_host(router, section["canary"].get("share_file", "")),
        model=section["chat_model"],
        questions=read_questions(folder / QUESTIONS),
        on_host=lead_to_host,
        limits=limits,
        say=say,
    )


def _find_routers(services: ComposeServices) -> list[str]:
    return [name for name, service in services.services.items() if service.part == "router"]


def _find_edge(services: ComposeServices, target: str, url: str) -> Edge:
    host = urlsplit(url).hostname or ""
    service = services.services.get(host)
    if service is None or service.part != "edge":
        raise SiteError(f"targets.{target}.url: {host} is no edge of this site")
    return Edge(host, target, _on_host(service, "edge.yaml"))


def _on_host(service: Service, file: str) -> Path:
    found = service.on_host(_ETC / file)
    if found is None or not found.is_file():
        raise SiteError(f"{service.name}: mounts no {_ETC / file}; see the site's README")
    return found
