"""The edge's configuration: one strict YAML file, read once into a frozen value."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edge.engine.session import CPU, Provider, SessionConfig
from edge.engine.settings import read_settings

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every part of the file: a misspelt key stops the start."""


class Listen(Section, frozen=True):
    """Where the service listens. It asks for no key: keep it where only the router can reach it."""

    host: str = "127.0.0.1"
    port: Port = 8081


class Limits(Section, frozen=True):
    """What one request may take, and how long a stop may last.

    For `lead_s` a stopping edge says that it is not ready and still takes work: long enough for routers to see it.
    """

    body_bytes: Annotated[int, Meta(ge=1024)] = 1_048_576
    lead_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    drain_s: Annotated[float, Meta(ge=0, le=86_400)] = 20.0


class Runtime(Section, frozen=True):
    """How onnxruntime runs a model. `threads` 0 means one for each core.

    `providers` are tried in order (e.g. OpenVINOExecutionProvider, XnnpackExecutionProvider); the CPU does the rest.
    """

    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    allow_spinning: bool = False
    providers: Annotated[tuple[Provider, ...], Meta(min_length=1)] = (Provider(CPU),)

    def session(self) -> SessionConfig:
        """As the engine wants it."""
        return SessionConfig(self.threads, self.allow_spinning, self.providers)


class Chat(Section, frozen=True):
    """The model that generates.

    `slots` sequences decode together, each with up to `context_tokens` (default: what the model was made for); further
    ones wait, up to `waiting`. Prompts are read `prefill_tokens` at a time; running answers move on in between.
    """

    artifact: Path
    slots: Annotated[int, Meta(ge=1, le=256)] = 8
    context_tokens: Count | None = None
    prefill_tokens: Count = 64
    waiting: Annotated[int, Meta(ge=0, le=100_000)] = 64
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    """For requests that give none."""
    runtime: Runtime = Runtime()


class Embedding(Section, frozen=True):
    """The model that embeds; up to `batch_items` inputs are worked on together, the first waits at most `wait_ms`."""

    artifact: Path
    batch_items: Annotated[int, Meta(ge=1, le=1024)] = 16
    wait_ms: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    waiting: Count = 4096
    runtime: Runtime = Runtime()


class Config(Section, frozen=True):
    """The whole file; without `embedding` there are no embeddings."""

    chat: Chat
    embedding: Embedding | None = None
    listen: Listen = Listen()
    limits: Limits = Limits()


def load_config(path: Path) -> Config:
    """Read and check a file; relative paths inside it start at its folder.

    Raises:
        ConfigError: one line naming file, key, value and fix.
    """
    return read_settings(path, Config, fix="edge/README.md lists what is allowed")
