"""Who is measured, and how each is started: as its makers ship it, on one core, before the same upstream."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.demo import ROOT, SITE
from edge.models.errors import StoreError
from edge.models.store import Store
from loadtests.peers.bare_dispatch import OWN_TRANSPORT
from loadtests.peers.upstream import CHAT_URL, MODEL
from loadtests.ports import free_port
from loadtests.processes import ProcessError
from loadtests.site import STORE
from router.admission import digest, new_key

ENVIRONMENTS: Final = Path(".bench/peers")
"""Each peer's own, made by `loadtests.peers.environments`."""
_TARGET_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Start:
    """A command, where it says that it is ready, and the headers that its requests need."""

    command: list[str]
    ready_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contestant may write, the port it is to listen on, and the URL of the upstream, without a path."""

    folder: Path
    port: int
    upstream: str

    @property
    def url(self) -> str:
        """The contestant's own."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Contestant:
    """`prepare` writes its files and says how to start it, or raises `ProcessError` with the reason why not."""

    name: str
    prepare: Callable[[Place], Start]
    most_connections: int = 4096
    """With more of them a turn would be over before the first answers."""
    dispatches: bool = True
    """Whether it asks the upstream at all."""
    is_router: bool = False
    """Whether it is ours, with metrics to read."""


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _bare(place: Place) -> Start:
    return Start([*_module("loadtests.bare_app"), str(place.port)], place.url + CHAT_URL)


def _bare_dispatch(place: Place) -> Start:
    command = [*_module("loadtests.peers.bare_dispatch"), str(place.port), place.upstream]
    return Start(command, place.url + CHAT_URL)


def _bare_own_dispatch(place: Place) -> Start:
    start = _bare_dispatch(place)
    return replace(start, command=[*start.command, OWN_TRANSPORT])


def _router(place: Place) -> Start:
    return _unchecked(_start_router(place, {}))


def _unchecked(start: Start) -> Start:
    """A dispatch is one call: nearly all of the demo's scores put the edge's answer on trial, most of them for a second
    call.
    """
    return replace(start, headers={**start.headers, "x-answer-check": "off"})


def _checking_router(place: Place) -> Start:
    return _start_router(place, {})


def _embedding_router(place: Place) -> Start:
    return _start_router(place, {"check": {"enabled": False}})


def _semantic_router(place: Place) -> Start:
    return _unchecked(
        _start_router(place, {"scoring": {"use_embedding": "always"}, "cache": {"semantic": {"enabled": True}}})
    )


def _start_router(place: Place, changes: Mapping[str, Mapping[str, Any]]) -> Start:
    """The demo's router as it ships, but for addresses, for the keys, for lanes as wide as the upstream, and for
    `changes`. Its caches are the schema's: in memory, as in `make demo`.
    """
    key = new_key()
    keys = place.folder / "keys.yaml"
    keys.write_text(yaml.safe_dump({digest(key): {"tenant": "bench", "operator": True}}))
    content: dict[str, Any] = yaml.safe_load((SITE / "router.yaml").read_text())
    content |= {"listen": {"host": "127.0.0.1", "port": place.port}, "keys_file": str(keys), "cache": {}}
    content["scoring"] = {
        "artifact": str(SITE / content["scoring"]["artifact"]),
        "embedding": str(_find_embedding()),
    }
    lane = {"slots": _TARGET_CONNECTIONS, "backlog": 1024}
    target = {"backend": "openai", "url": place.upstream, "chat_model": MODEL, "lane": lane}
    content["targets"] = {f"{tier}-demo": {**target, "tier": tier} for tier in ("edge", "cloud")}
    for section, change in changes.items():
        content[section] = {**content.get(section, {}), **change}
    file = place.folder / "router.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return Start(
        [*_module("router"), "serve", "--config", str(file)],
        place.url + "/health/ready",
        {"Authorization": f"Bearer {key}"},
    )


def _find_embedding() -> Path:
    try:
        return Store(STORE).find("all-minilm-l6-v2-fast")
    except StoreError as exc:
        raise ProcessError(f"{exc} `make models` brings it.") from exc


_NGINX = """
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 64k;
  keepalive_requests 1000000;
  upstream backend {{
    server {address};
    keepalive 1024;
    keepalive_requests 1000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def find_nginx() -> str | None:
    """Its program, which is not on everybody's path."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def _nginx(place: Place) -> Start:
    program = find_nginx()
    if program is None:
        raise ProcessError("nginx is not installed (Debian: apt-get install nginx-light)")
    file = place.folder / "nginx.conf"
    address = place.upstream.removeprefix("http://")
    file.write_text(_NGINX.format(folder=place.folder, address=address, port=place.port))
    return Start([program, "-c", str(file), "-p", str(place.folder), "-e", "stderr"], place.url + "/health")


def _peer_python(name: str) -> str:
    python = ROOT / ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        raise ProcessError(f"{name} is not installed (python -m loadtests.peers.environments {name})")
    return str(python)


def _vllm_router(place: Place) -> Start:
    program = Path(_peer_python("vllm-router")).with_name("vllm-router")
    return Start([str(program), *_rust_options(place)], place.url + "/health")


def _sglang_router(place: Place) -> Start:
    command = [_peer_python("sglang-router"), "-m", "sglang_router.launch_router", *_rust_options(place)]
    return Start(command, place.url + "/health")


def _rust_options(place: Place) -> list[str]:
    """With one server behind them any policy is the same choice; this one looks at the least."""
    options = {
        "--host": "127.0.0.1",
        "--port": str(place.port),
        "--worker-urls": place.upstream,
        "--policy": "round_robin",
        "--log-level": "error",
        "--prometheus-port": str(free_port()),
    }
    return [word for option in options.items() for word in option]


def _litellm(place: Place) -> Start:
    program = Path(_peer_python("litellm")).with_name("litellm")
    key = f"sk-{new_key()}"
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{place.upstream}/v1", "api_key": "none"}
    content = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
    file = place.folder / "litellm.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return Start(
        [str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(place.port)],
        place.url + "/health/liveliness",
        {"Authorization": f"Bearer {key}"},
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    )


BARE: Final = Contestant("bare Litestar", _bare, dispatches=False)
BARE_DISPATCH: Final = Contestant("bare Litestar + transport", _bare_dispatch)
BARE_OWN_DISPATCH: Final = Contestant("bare Litestar + own transport", _bare_own_dispatch)
ROUTER: Final = Contestant("this router", _router, is_router=True)
CHECKING_ROUTER: Final = Contestant("this router, answers checked", _checking_router, is_router=True)
EMBEDDING_ROUTER: Final = Contestant("this router, unchecked", _embedding_router, is_router=True)
SEMANTIC_ROUTER: Final = Contestant("this router, semantic", _semantic_router, is_router=True)
NGINX: Final = Contestant("nginx", _nginx)
VLLM: Final = Contestant("vllm-router", _vllm_router)
SGLANG: Final = Contestant("sglang-router", _sglang_router)
LITELLM: Final = Contestant("LiteLLM", _litellm, most_connections=64)
CONTESTANTS: Final = (
    ROUTER, CHECKING_ROUTER, EMBEDDING_ROUTER, SEMANTIC_ROUTER,
    BARE, BARE_DISPATCH, BARE_OWN_DISPATCH, NGINX, VLLM, SGLANG, LITELLM,
)  # fmt: skip
