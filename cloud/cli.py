"""`hybrid triton`: run tritonserver on our model repository until a signal comes."""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec

from cloud.config import ChatConfig, ConfigError, EmbedConfig, TritonConfig, load_config
from cloud.installation import InstallationError
from cloud.triton import LaunchError, serving

_FOLDER = click.Path(exists=True, file_okay=False, resolve_path=True)
_PORT = click.IntRange(0, 65535)


@click.command("triton")
@click.option("--config", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="YAML file.")
@click.option("--chat", type=_FOLDER, help="Artifact that the chat model serves.")
@click.option("--embed", type=_FOLDER, help="Artifact that the embed model serves.")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless the file says otherwise.")
@click.option("--http-port", type=_PORT)
@click.option("--grpc-port", type=_PORT)
@click.option("--metrics-port", type=_PORT)
def triton(path: Path | None, chat: str | None, embed: str | None, **listen: str | int | None) -> None:
    """Serve the chat and embed models with NVIDIA Triton. Options win over the file."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        config = _overridden(load_config(path) if path else None, chat, embed, listen)
        with serving(config) as server:
            at = server.addresses
            click.echo(f"Triton is ready: HTTP {at.http}, gRPC {at.grpc}, metrics {at.metrics}")
            server.wait()
    except (ConfigError, InstallationError, LaunchError) as exc:
        raise click.ClickException(str(exc)) from exc


def _overridden(
    config: TritonConfig | None, chat: str | None, embed: str | None, listen: dict[str, str | int | None]
) -> TritonConfig:
    given: dict[str, Any] = {key: value for key, value in listen.items() if value is not None}
    for key, kind, artifact in (("chat", ChatConfig, chat), ("embed", EmbedConfig, embed)):
        if artifact is not None:
            known = getattr(config, key, None)
            given[key] = msgspec.structs.replace(known, artifact=artifact) if known else kind(artifact)
    try:
        return msgspec.structs.replace(config, **given) if config else TritonConfig(**given)
    except ValueError as exc:
        raise ConfigError(f"{exc} (--config, --chat or --embed)") from exc


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the clean-up that this one starts; it is bounded in time.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)
