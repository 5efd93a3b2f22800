"""The router's configuration: one strict YAML file, read once into a frozen value."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from edge.engine.settings import ConfigError, read_settings
from router.decision import AUTO, Target, Tier
from router.query import Capability

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every part of the file: a misspelt key stops the start."""


class Listen(Section, frozen=True):
    """Where the endpoint is served."""

    host: str = "127.0.0.1"
    port: Port = 8080

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"127.0.0.1", "::1", "localhost"}


class Limits(Section, frozen=True):
    """What one request may take, and how long a stop may last."""

    body_bytes: Annotated[int, Meta(ge=1024)] = 1_048_576
    deadline_s: Seconds = 120.0
    drain_s: Seconds = 20.0


class Probe(Section, frozen=True):
    """How a target's readiness is watched."""

    every_s: Seconds = 1.0
    timeout_s: Seconds = 1.0
    failures_to_down: Annotated[int, Meta(ge=1)] = 2
    successes_to_up: Annotated[int, Meta(ge=1)] = 1


class Policy(Section, frozen=True):
    """Scores from `threshold` up go to the cloud; without an artifact every score is 0.5."""

    artifact: Path | None = None
    threshold: Share = 0.5


class TargetSection(Section, frozen=True, kw_only=True, tag_field="backend"):
    """What every target says of itself."""

    tier: Tier
    supports: frozenset[Capability] = frozenset()
    connect_s: Seconds = 1.0


class OpenAITarget(TargetSection, frozen=True, kw_only=True, tag="openai"):
    """`edge/`, or any OpenAI-compatible server. `url` ends before `/v1`."""

    url: Annotated[str, Meta(pattern=r"^https?://[^/]+(/.*[^/])?$")]
    chat_model: str | None = None
    embedding_model: str | None = None
    key_file: Path | None = None
    ready_path: str = "/health/ready"
    connections: Annotated[int, Meta(ge=1)] = 256


class Cancel(StrEnum):
    """How a running request is ended early: by a request that only our own `chat` knows, or by cancelling its call.

    Up to Triton 25.03 a cancelled call can kill the server, so `request` is right for our `chat` there; the stock vLLM
    backend needs `call`.
    """

    REQUEST = "request"
    CALL = "call"


class TritonTarget(TargetSection, frozen=True, kw_only=True, tag="triton"):
    """A Triton server with a `chat` model that speaks the vLLM backend's contract, and/or an `embed` model.

    `template` is the tokenizer_config.json that holds the chat model's template; `temperature` is for requests that
    give none.
    """

    address: Annotated[str, Meta(pattern=r"^[^/]+:\d+$")]
    chat_model: str | None = "chat"
    embedding_model: str | None = "embed"
    template: Path | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    cancel: Cancel = Cancel.CALL


AnyTarget = OpenAITarget | TritonTarget


class Config(Section, frozen=True):
    """The whole file."""

    targets: Annotated[dict[Name, AnyTarget], Meta(min_length=1)]
    listen: Listen = Listen()
    limits: Limits = Limits()
    probe: Probe = Probe()
    policy: Policy = Policy()
    keys_file: Path | None = None

    def chat_targets(self) -> list[Target]:
        """Targets that generate, in the order of the file."""
        return [Target(name, t.tier, t.supports) for name, t in self.targets.items() if t.chat_model]

    def embedding_targets(self) -> list[Target]:
        """Targets that embed, in the order of the file."""
        return [Target(name, t.tier, t.supports) for name, t in self.targets.items() if t.embedding_model]


def load_config(path: Path) -> Config:
    """Read and check a file; relative paths inside it start at its folder.

    Raises:
        ConfigError: one line naming file, key, value and fix.
    """
    config = read_settings(path, Config, fix="`hybrid schema` prints what is allowed")
    complaint = next((c for check in _CHECKS if (c := check(config))), None)
    if complaint:
        raise ConfigError(f"{path}: {complaint}")
    return config


def read_secret(path: Path) -> str:
    """A secret from its file, without the newline at its end.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot read this secret ({exc}); check the path and its permissions") from exc
    if not secret:
        raise ConfigError(f"{path}: this secret is empty; write it on one line")
    return secret


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema, for editors and `hybrid schema`."""
    return msgspec.json.schema(Config, schema_hook=_path_schema)


def _path_schema(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "description": "a path; relative ones start at this file's folder"}
    raise NotImplementedError(f"no JSON Schema for {kind}")


def _check_open(config: Config) -> str | None:
    if config.keys_file is None and not config.listen.loopback:
        return (
            f"listen.host: {config.listen.host!r} is not loopback and no keys_file is set; "
            "set keys_file, or listen on 127.0.0.1"
        )
    return None


def _check_names(config: Config) -> str | None:
    reserved = {AUTO, *Tier}
    taken = next((name for name in config.targets if name in reserved), None)
    if taken is None:
        return None
    return f"targets.{taken}: this name is reserved; choose another than {', '.join(sorted(reserved))}"


def _check_templates(config: Config) -> str | None:
    for name, target in config.targets.items():
        if isinstance(target, TritonTarget) and target.chat_model and target.template is None:
            return f"targets.{name}.template: missing; give the chat model's tokenizer_config.json"
    return None


def _check_supports(config: Config) -> str | None:
    for name, target in config.targets.items():
        for capability in sorted(target.supports):
            if not capability.carried:
                return f"targets.{name}.supports: this router cannot carry {capability!r} to a target; leave it out"
    return None


def _check_files(config: Config) -> str | None:
    files = {"keys_file": config.keys_file, "policy.artifact": config.policy.artifact}
    for name, target in config.targets.items():
        if isinstance(target, TritonTarget):
            files[f"targets.{name}.template"] = target.template
        else:
            files[f"targets.{name}.key_file"] = target.key_file
    for key, file in files.items():
        if file is not None and not file.is_file():
            return f"{key}: {file} is not a file; give an existing one"
    return None


_CHECKS: tuple[Callable[[Config], str | None], ...] = (
    _check_open,
    _check_names,
    _check_supports,
    _check_templates,
    _check_files,
)
