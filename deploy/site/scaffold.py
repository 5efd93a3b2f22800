"""A new site from a few answers: the files of its kind, copied, with the answers in their places, and fresh secrets."""

import secrets
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import msgspec

from deploy.site.certificates import issue
from deploy.site.errors import SiteError
from deploy.site.files import write, write_private
from router.admission import digest, new_key

SITES = Path(__file__).parents[1] / "sites"
OBSERVABILITY = Path(__file__).parents[1] / "observability"
HOST_COMPOSE = "compose.host.yaml"
CLOUD_EXAMPLE = "cloud.example:8001"


class Kind(StrEnum):
    """What a site is for; each is a folder of `deploy/sites`."""

    DEMO = "demo"
    DEV = "dev"
    EDGE_SITE = "edge-site"
    CLOUD_SITE = "cloud-site"
    REGIONAL = "regional"

    @property
    def encrypted(self) -> bool:
        """Whether a cloud and an edge of it are in different places."""
        return self in {Kind.EDGE_SITE, Kind.CLOUD_SITE, Kind.REGIONAL}

    @property
    def shares_a_cache(self) -> bool:
        """Whether it has a Valkey."""
        return self in {Kind.EDGE_SITE, Kind.REGIONAL}


@dataclass(frozen=True, slots=True)
class Answers:
    """What distinguishes one site from another of its kind.

    `settings` go to `.env`. `hosts` are the names and addresses that others reach a cloud site by.
    """

    kind: Kind
    name: str
    settings: dict[str, str]
    cloud: str | None = None
    authority: Path | None = None
    hosts: tuple[str, ...] = ()
    days: int = 365
    host_network: bool = False
    """Whether the endpoint is in the host's own network."""


def scaffold(folder: Path, answers: Answers) -> str:
    """Write a site into the new `folder`; returns the first client's API key, which is kept nowhere.

    Raises:
        SiteError: the folder is not empty, cannot be written, or an answer is missing.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SiteError(f"{folder}: is not empty; name another folder")
    if answers.kind.encrypted and answers.authority is None:
        raise SiteError(f"a site of kind {answers.kind} needs --authority, the folder of who signs its certificate")
    if answers.kind in {Kind.EDGE_SITE, Kind.REGIONAL} and answers.cloud is None:
        raise SiteError(f"a site of kind {answers.kind} needs --cloud, the HOST:PORT of its cloud's gRPC")
    if answers.host_network and not (SITES / answers.kind / HOST_COMPOSE).is_file():
        raise SiteError(f"a site of kind {answers.kind} has no {HOST_COMPOSE}; --host-network is for edge-site")
    for source in _sources(answers.kind):
        write(folder / source.name, _fill(source, answers).encode())
    _copy_observability(folder)
    write(folder / ".env", _environment(answers).encode())
    key = write_keys(folder / "secrets")
    write_private(folder / "secrets" / "grafana_password", f"{secrets.token_urlsafe(24)}\n".encode())
    if answers.kind.shares_a_cache:
        write_valkey_password(folder / "secrets")
    if answers.authority is not None and answers.kind.encrypted:
        hosts = ["triton", *answers.hosts] if answers.kind is Kind.CLOUD_SITE else list(answers.hosts)
        issue(answers.authority, folder / "secrets", answers.name, hosts, days=answers.days)
    return key


def write_keys(folder: Path) -> str:
    """A fresh keys file with one client, who may do everything; returns the key.

    Raises:
        SiteError: it cannot be written.
    """
    key = new_key()
    entry = {digest(key): {"tenant": "operator", "operator": True}}
    write_private(folder / "keys.yaml", msgspec.yaml.encode(entry))
    return key


def write_valkey_password(folder: Path) -> None:
    """A fresh password for the routers, and for Valkey the list of users that knows only its digest.

    Raises:
        SiteError: it cannot be written.
    """
    password = secrets.token_urlsafe(32)
    write_private(folder / "valkey_password", f"{password}\n".encode())
    write_private(folder / "valkey_users", f"{valkey_user(password)}\n".encode())


def valkey_user(password: str) -> str:
    """Valkey's line for the routers' user."""
    return f"user default on #{sha256(password.encode()).hexdigest()} ~* &* +@all"


def _sources(kind: Kind) -> list[Path]:
    # dev is the demo with other sources under it, and has no configuration of its own
    folders = [SITES / kind, *([SITES / Kind.DEMO] if kind is Kind.DEV else [])]
    found: dict[str, Path] = {"common.yaml": SITES / "common.yaml"}
    for folder in folders:
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name != ".env":
                found.setdefault(file.name, file)
    return list(found.values())


def _fill(source: Path, answers: Answers) -> str:
    """In a site's own folder everything lies side by side."""
    text = source.read_text()
    if source.name.startswith("compose"):
        text = text.replace("../common.yaml", "common.yaml").replace("../demo/", "./")
        text = text.replace("../../observability/", "./observability/")
    if source.name == "router.yaml" and answers.host_network:
        text = text.replace("  host: 0.0.0.0\n", f"  host: {answers.settings.get('ENDPOINT_ADDRESS', '127.0.0.1')}\n")
        text = text.replace("  port: 8080\n", f"  port: {answers.settings.get('ENDPOINT_PORT', '8080')}\n", 1)
    return text.replace(CLOUD_EXAMPLE, answers.cloud) if answers.cloud else text


def _copy_observability(folder: Path) -> None:
    for file in sorted(OBSERVABILITY.rglob("*")) if OBSERVABILITY.is_dir() else ():
        if file.is_file() and file.suffix in {".yml", ".yaml", ".json"}:
            write(folder / "observability" / file.relative_to(OBSERVABILITY), file.read_bytes())


def _environment(answers: Answers) -> str:
    text = (SITES / answers.kind / ".env.example").read_text()
    text = text.replace("# Copied to .env by `hybrid site new`. Each", "# Each")
    lines = text.splitlines()
    chosen = {"COMPOSE_FILE": HOST_COMPOSE} if answers.host_network else {}
    for name, value in (answers.settings | chosen).items():
        place = next((at for at, line in enumerate(lines) if line.startswith(f"{name}=")), None)
        if place is None:
            lines.append(f"{name}={value}")
        else:
            lines[place] = f"{name}={value}"
    return "\n".join([f"COMPOSE_PROJECT_NAME={answers.name}", *lines, ""])
