"""
`hybrid site check`: every file of a site against the others.

Each finder takes the site and yields faults, one line each with the file, what is wrong and what to do. A part's
configuration is read as its container will see it: paths in it are those of the container, and lead through the site's
mounts to the files of this host.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from cloud.config import ConfigError as TritonConfigError
from cloud.config import TritonConfig
from cloud.config import load_config as load_triton
from deploy.site.certificates import CertificateFiles, find_certificate_faults
from deploy.site.compose import ENDPOINT_LABEL, PORTS, Compose, Service
from deploy.site.errors import SiteError
from deploy.site.scaffold import CLOUD_EXAMPLE, valkey_user
from deploy.site.upgrade import QUESTIONS, read_questions
from edge.config import Config as EdgeConfig
from edge.config import load_config as load_edge
from edge.engine.artifact import Artifact, ArtifactError, ArtifactKind
from edge.engine.settings import ConfigError
from edge.serving import Drain
from router.app import create_app
from router.config import Config as RouterConfig
from router.config import OpenAITarget, TritonTarget, load_config

GRPC_PORT: Final = 8001
SOON_DAYS: Final = 14
_ETC = PurePosixPath("/etc/hybrid")
_FILES = {"router": "router.yaml", "edge": "edge.yaml", "cloud": "triton.yaml"}


@dataclass(frozen=True)
class Site:
    """A site's folder and its services."""

    folder: Path
    services: dict[str, Service]
    asleep: dict[str, Service] = field(default_factory=dict)
    """Those that run during an upgrade only."""

    @classmethod
    def open(cls, folder: Path) -> "Site":
        """
        Raises:
            SiteError: it is no site, or compose refuses it.
        """
        if not (folder / "compose.yaml").is_file():
            raise SiteError(f"{folder}: no compose.yaml here; `hybrid site new` makes a site")
        services, known = Compose(folder).services(), Compose(folder, profiles=("upgrade",)).services()
        return cls(folder, services, {name: each for name, each in known.items() if name not in services})

    def parts(self, part: str) -> list[Service]:
        """The services that run a part of ours."""
        return [service for service in self.services.values() if service.part == part]


def find_faults(site: Site) -> list[str]:
    """Everything wrong with a site; empty if it may start."""
    missing = list(_find_missing_files(site))
    if missing:  # the other finders would only say the same in other words
        return missing
    return [fault for find in _FINDERS for fault in find(site)]


def find_references(service: Service) -> Iterator[PurePosixPath]:
    """Every path of the container that a part's configuration names and a mount of it provides.

    Raises:
        SiteError: it mounts no configuration.
    """
    waiting: list[Any] = [_read_yaml(_config_file(service))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and service.on_host(_ETC / value) is not None:
            yield _ETC / value


def _find_missing_files(site: Site) -> Iterator[str]:
    for service in site.services.values():
        for target, source in service.mounts.items():
            if source is None:
                continue
            if not source.exists():
                hint = "`hybrid models pull --store` fills one" if target.name == "models" else "see the site's README"
                yield f"{source}: missing, and {service.name} mounts it at {target}; {hint}"
            elif target.is_relative_to("/run/secrets") and not (source.is_file() and source.read_bytes().strip()):
                # where a file was missing, the engine has left an empty folder
                yield f"{source}: this secret is empty; make the site anew or write it"
        if service.part is not None and service.on_host(_ETC / _FILES[service.part]) is None:
            yield f"{site.folder / 'compose.yaml'}: {service.name} has no {_ETC / _FILES[service.part]}; mount it"


def _find_open_secrets(site: Site) -> Iterator[str]:
    folders = {
        source.parent
        for service in site.services.values()
        for target, source in service.mounts.items()
        if source is not None and target.is_relative_to("/run/secrets")
    }
    for folder in sorted(folders):
        if folder.stat().st_mode & 0o077:
            yield f"{folder}: others on this host can look inside; chmod 700"


def _find_soft_containers(site: Site) -> Iterator[str]:
    file = site.folder / "compose.yaml"
    for service in site.services.values():
        said = service.settings
        if not said.get("read_only"):
            yield f"{file}: {service.name} is not read_only; extend it from common.yaml"
        if "ALL" not in said.get("cap_drop", []):
            yield f"{file}: {service.name} keeps capabilities; cap_drop ALL"
        if not any(str(option).startswith("no-new-privileges") for option in said.get("security_opt", [])):
            yield f"{file}: {service.name} may gain privileges; security_opt no-new-privileges:true"


def _find_open_ports(site: Site) -> Iterator[str]:
    """Published may be: the endpoint, and a Triton that asks for certificates."""
    file = site.folder / "compose.yaml"
    taken: dict[tuple[str, int], str] = {}
    for service in site.services.values():
        if service.in_host_network and not (service.part == "router" and service.ports):
            yield f"{file}: {service.name} is in the host's network; only a router may be, labelled {ENDPOINT_LABEL}"
        for port in service.ports:
            at = (port.address, port.published)
            if at in taken:
                yield f"{file}: {service.name} and {taken[at]} both publish port {port.published}; change one in .env"
            taken[at] = service.name
            endpoint = service.part == "router" or service.name == "balancer"
            if endpoint and port.target != PORTS["router"]:
                yield f"{file}: {service.name} publishes {port.target}, but the endpoint listens on {PORTS['router']}"
            if service.part == "cloud" and not (
                port.target == GRPC_PORT and _read_yaml(_config_file(service)).get("tls")
            ):
                yield f"{file}: {service.name} publishes {port.target} in the clear; publish gRPC, and set tls"
            if not endpoint and service.part != "cloud" and service.name != "grafana":
                yield f"{file}: {service.name} publishes {port.published}; only the endpoint should be reachable"


def _find_config_faults(site: Site) -> Iterator[str]:
    """Each part's own checks: schema, files, digests of its models."""
    for service in site.services.values():
        if service.part is None:
            continue
        with _seen_from_inside(service) as (path, spell):
            try:
                yield from map(spell, _CHECKS[service.part](path, service))
            except (ConfigError, TritonConfigError, ArtifactError) as exc:
                yield spell(str(exc))


def _check_router(path: Path, service: Service) -> Iterator[str]:
    config = load_config(path)
    create_app(config, Drain())
    if (config.listen.host, config.listen.port) != service.listens:
        host, port = service.listens
        where = ".env" if service.in_host_network else "compose.yaml"
        yield f"{path}: listen must be {host}:{port}; {where} says who reaches it"
    for name, target in config.targets.items():
        if isinstance(target, TritonTarget) and target.tls is not None:
            files = CertificateFiles(target.tls.ca_file, target.tls.certificate_file, target.tls.key_file)
            for fault in find_certificate_faults(files, [], soon_days=SOON_DAYS):
                yield f"{service.name}, targets.{name}.tls: {fault}"


def _check_edge(path: Path, _: Service) -> Iterator[str]:
    config: EdgeConfig = load_edge(path)
    Artifact.open(config.chat.artifact, ArtifactKind.CHAT)
    if config.embedding is not None:
        Artifact.open(config.embedding.artifact, ArtifactKind.EMBEDDING)
    if (config.listen.host, config.listen.port) != ("0.0.0.0", PORTS["edge"]):  # noqa: S104 - inside its container
        yield f"{path}: listen must be 0.0.0.0:{PORTS['edge']} in a container; only the site's network reaches it"


def _check_triton(path: Path, service: Service) -> Iterator[str]:
    config: TritonConfig = load_triton(path)
    if config.chat is not None:
        Artifact.open(Path(config.chat.artifact), ArtifactKind.CHAT)
    if config.embed is not None:
        Artifact.open(Path(config.embed.artifact), ArtifactKind.EMBEDDING)
    said = (config.host, config.http_port, config.grpc_port)
    if said != ("0.0.0.0", PORTS["cloud"], GRPC_PORT):  # noqa: S104 - inside its container
        yield f"{path}: host, http_port, grpc_port must be 0.0.0.0, {PORTS['cloud']}, {GRPC_PORT} in a container"
    if config.tls is not None:
        files = CertificateFiles(*map(Path, config.tls.files()))
        yield from find_certificate_faults(files, [service.name], soon_days=SOON_DAYS)


def _find_target_faults(site: Site) -> Iterator[str]:
    """Routers against what their targets are."""
    for service in site.parts("router"):
        with _seen_from_inside(service) as (path, spell):
            try:
                config = load_config(path)
            except ConfigError:  # told by `_find_config_faults`
                continue
            for name in config.targets:
                yield from (
                    spell(f"{path}: targets.{name}{fault}") for fault in _target_faults(site, service, config, name)
                )


def _target_faults(site: Site, router: Service, config: RouterConfig, name: str) -> Iterator[str]:
    target = config.targets[name]
    if isinstance(target, OpenAITarget):
        at = urlsplit(target.url)
        host, port, encrypted = at.hostname or "", at.port, at.scheme == "https"
        expected = PORTS["edge"]
    else:
        host, _, digits = target.address.rpartition(":")
        port, encrypted, expected = int(digits), target.tls is not None, GRPC_PORT
    if f"{host}:{port}" == CLOUD_EXAMPLE:
        yield f": {CLOUD_EXAMPLE} is an example; give the cloud's address"
    elsewhere = site.services.get(host) or site.asleep.get(host)
    if elsewhere is None:
        if not encrypted:
            yield f": {host} is no service of this site and not encrypted; prompts would cross the network in the clear"
        return
    if not router.reaches(elsewhere):
        yield f": {router.name} and {host} share no network in compose.yaml"
    if port != expected:
        yield f": port {port}, but {host} listens on {expected}"
    yield from _model_faults(elsewhere, target)


def _model_faults(service: Service, target: OpenAITarget | TritonTarget) -> Iterator[str]:
    """Names, templates and slots against the part that serves them."""
    if service.part is None:
        return
    served = _read_yaml(_config_file(service))
    chat = served.get("chat") or {}
    if isinstance(target, OpenAITarget):
        name = PurePosixPath(str(chat.get("artifact", ""))).parent.name
        if target.chat_model not in {None, name}:
            yield f".chat_model: {target.chat_model}, but {service.name} serves {name}"
        embedding = PurePosixPath(str((served.get("embedding") or {}).get("artifact", ""))).parent.name
        if target.embedding_model not in {None, embedding}:
            yield f".embedding_model: {target.embedding_model}, but {service.name} serves {embedding or 'none'}"
    else:
        expected = service.on_host(PurePosixPath(str(chat.get("artifact", ""))))
        if target.template and expected and target.template.resolve().parent != expected.resolve():
            yield f".template: not of the model that {service.name} serves ({chat['artifact']})"
        if target.tls is None and served.get("tls"):
            yield f".tls: missing, but {service.name} asks for certificates"
    slots = chat.get("slots", 8)
    if target.chat_model and target.lane.adaptive is None and target.lane.slots != slots:
        yield f".lane.slots: {target.lane.slots}, but {service.name} has {slots}"


def _find_valkey_faults(site: Site) -> Iterator[str]:
    for service in site.services.values():
        users = service.mounts.get(PurePosixPath("/run/secrets/valkey_users"))
        if users is None:
            continue
        for router in site.parts("router"):
            password = router.mounts.get(PurePosixPath("/run/secrets/valkey_password"))
            if password is not None and valkey_user(password.read_text().strip()) not in users.read_text().splitlines():
                yield f"{users}: does not know the password in {password}; make the site's secrets anew"


def _find_upgrade_faults(site: Site) -> Iterator[str]:
    """What `hybrid site upgrade` would stumble over."""
    if any(service.part == "edge" for service in site.asleep.values()):
        try:
            read_questions(site.folder / QUESTIONS)
        except SiteError as exc:
            yield str(exc)


_CHECKS: Final[dict[str, Callable[[Path, Service], Iterator[str]]]] = {
    "router": _check_router,
    "edge": _check_edge,
    "cloud": _check_triton,
}
_FINDERS: Final[tuple[Callable[[Site], Iterator[str]], ...]] = (
    _find_open_secrets,
    _find_soft_containers,
    _find_open_ports,
    _find_config_faults,
    _find_target_faults,
    _find_valkey_faults,
    _find_upgrade_faults,
)


@contextmanager
def _seen_from_inside(service: Service) -> Iterator[tuple[Path, Callable[[str], str]]]:
    """A part's configuration with the container's paths led to this host's files; and how to name it in a fault."""
    source = _config_file(service)
    with tempfile.TemporaryDirectory(prefix="hybrid-check-") as scratch:
        path = Path(scratch) / source.name
        path.write_text(yaml.safe_dump(_led_out(_read_yaml(source), service, Path(scratch)), sort_keys=False))
        yield path, lambda fault: fault.replace(str(path), str(source))


def _led_out(value: Any, service: Service, volumes: Path) -> Any:
    match value:
        case dict():
            return {key: _led_out(each, service, volumes) for key, each in value.items()}
        case list():
            return [_led_out(each, service, volumes) for each in value]
        case str():
            inside = _ETC / value
            place = next((place for place in (inside, *inside.parents) if place in service.mounts), None)
            if place is None:
                return value
            # a volume's content is the engine's; an empty folder stands for it
            return str(service.on_host(inside) or volumes)
    return value


def _config_file(service: Service) -> Path:
    file = service.on_host(_ETC / _FILES[service.part or ""])
    if file is None:
        raise SiteError(f"{service.name}: mounts no {_FILES[service.part or '']}")
    return file


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as exc:
        raise SiteError(f"{path}: not YAML: {' '.join(str(exc).split())}") from exc
    return content if isinstance(content, dict) else {}
