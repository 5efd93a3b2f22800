"""What `hybrid triton` is told: one strict YAML file, read once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct

from cloud.wire import MODEL_VERSION

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, key and value."""


class Provider(StrEnum):
    """ONNX Runtime's execution provider. `auto` takes CUDA where it is present, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ChatConfig(Struct, frozen=True, forbid_unknown_fields=True):
    artifact: str
    """Folder of a chat artifact: `<store>/<name>/<version>`."""
    provider: Provider = Provider.AUTO
    threads: Annotated[int, Meta(ge=0)] = 0
    """Threads of one inference; 0 lets ONNX Runtime choose."""
    slots: Annotated[int, Meta(ge=1, le=256)] = 8
    """Sequences that are generated at once."""
    backlog: Annotated[int, Meta(ge=0)] = 64
    """Requests that may wait for a slot before more are refused."""


class EmbedConfig(Struct, frozen=True, forbid_unknown_fields=True):
    artifact: str
    """Folder of an embedding artifact: `<store>/<name>/<version>`."""
    provider: Provider = Provider.AUTO
    threads: Annotated[int, Meta(ge=0)] = 1


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """Mutual TLS for gRPC (PEM files): this server's certificate, and who must have signed its clients'."""

    ca_file: str
    certificate_file: str
    key_file: str

    def files(self) -> tuple[str, str, str]:
        """All three."""
        return self.ca_file, self.certificate_file, self.key_file


class TritonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    chat: ChatConfig | None = None
    embed: EmbedConfig | None = None
    repositories: tuple[str, ...] = ()
    """Folders of further models, served as they are (the stock vLLM backend's `chat`, for one)."""
    host: str = "127.0.0.1"
    http_port: Port = 8000
    """A port of 0 takes a free one."""
    grpc_port: Port = 8001
    metrics_port: Port = 8002
    start_timeout_s: Seconds = 120.0
    exit_timeout_s: Seconds = 10.0
    """Time that running requests get to finish after SIGTERM."""
    log_info: bool = False
    """Show tritonserver's own progress messages, not only its warnings."""
    tls: Tls | None = None
    """For gRPC; HTTP and metrics are never encrypted: publish only gRPC."""

    def __post_init__(self) -> None:
        if self.chat is None and self.embed is None and not self.repositories:
            raise ValueError("no model to serve; set chat, embed or repositories")


def load_config(path: Path) -> TritonConfig:
    """
    Read `path`; folders in it are relative to it.

    Raises `ConfigError`.
    """
    try:
        config = msgspec.convert(yaml.safe_load(path.read_bytes()), type=TritonConfig)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    anchored = _anchored(config, path.parent)
    for file in anchored.tls.files() if anchored.tls else ():
        if not Path(file).is_file():
            raise ConfigError(f"{path}: tls: {file} is not a file; `hybrid site certificates` makes one")
    return anchored


T = TypeVar("T", ChatConfig, EmbedConfig)


def read_settings(model_config: str, kind: type[T]) -> T:
    """
    Read what `cloud.repository` wrote into a model's `parameters`.

    `model_config` is the JSON that Triton gives a Python model. Raises `ConfigError`.
    """
    parameters = _parameters(model_config)
    parameters.pop(MODEL_VERSION, None)
    try:
        return msgspec.convert(parameters, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"parameters in config.pbtxt: {exc}; start the model with `hybrid triton`") from exc


def read_version(model_config: str) -> str | None:
    """The identity of the artifact that `cloud.repository` saw; None in a repository that it did not write."""
    return _parameters(model_config).get(MODEL_VERSION)


def _parameters(model_config: str) -> dict[str, str]:
    parameters = msgspec.json.decode(model_config, type=_ModelConfig).parameters
    return {key: each.string_value for key, each in parameters.items()}


class _Parameter(Struct):
    string_value: str


class _ModelConfig(Struct):
    parameters: dict[str, _Parameter]


def _anchored(config: TritonConfig, base: Path) -> TritonConfig:
    def anchor(folder: str) -> str:
        return str((base / folder).absolute())

    return msgspec.structs.replace(
        config,
        chat=config.chat and msgspec.structs.replace(config.chat, artifact=anchor(config.chat.artifact)),
        embed=config.embed and msgspec.structs.replace(config.embed, artifact=anchor(config.embed.artifact)),
        repositories=tuple(anchor(folder) for folder in config.repositories),
        tls=config.tls and Tls(*map(anchor, config.tls.files())),
    )
