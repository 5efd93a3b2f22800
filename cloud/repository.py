"""
The model repository that tritonserver is started on: a copy of ours with the configuration written in.

`config.pbtxt`'s `parameters` are Triton's documented way to tell a Python model its settings. Writing them needs a
copy, but then `GET /v2/models/chat/config` shows what runs, and of which artifact, and the repository in the package
stays as it is.
"""

import json
from pathlib import Path

import msgspec

from cloud.config import ChatConfig, ConfigError, EmbedConfig, TritonConfig
from cloud.wire import CHAT_MODEL, EMBED_MODEL, MODEL_VERSION
from edge.engine.artifact import ArtifactError, identify

SOURCE = Path(__file__).resolve().parent / "model_repository"


def write_repository(config: TritonConfig, folder: Path) -> Path:
    """
    Write the models that `config` names into the new `folder` and return it.

    Raises `ConfigError`.
    """
    folder.mkdir()
    for name, settings in ((CHAT_MODEL, config.chat), (EMBED_MODEL, config.embed)):
        if settings is not None:
            _write_model(SOURCE / name, settings, folder / name)
    return folder


def _write_model(source: Path, settings: ChatConfig | EmbedConfig, folder: Path) -> None:
    # The stub starts with an ASCII file system encoding whatever the locale, and could not open the artifact.
    if not settings.artifact.isascii():
        raise ConfigError(
            f"artifact {settings.artifact}: Triton's Python backend opens ASCII paths only; move the store"
        )
    try:
        parameters = {**msgspec.to_builtins(settings), MODEL_VERSION: identify(Path(settings.artifact))}
    except ArtifactError as exc:
        raise ConfigError(str(exc)) from exc
    folder.mkdir()
    written = "".join(
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(str(value))} }} }}\n"
        for key, value in parameters.items()
    )
    (folder / "config.pbtxt").write_text((source / "config.pbtxt").read_text() + written)
    (folder / "1").symlink_to(source / "1")
