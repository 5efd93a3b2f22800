"""Where a model's inference runs."""

from pathlib import Path

import onnxruntime as ort

from cloud.config import ChatConfig, ConfigError, EmbedConfig, Provider, read_version
from cloud.installation import has_nvidia_device
from edge.engine.artifact import Artifact, ArtifactKind
from edge.engine.session import CPU, CUDA, SessionConfig
from edge.engine.session import Provider as EngineProvider


def session_config(settings: ChatConfig | EmbedConfig) -> SessionConfig:
    """Choose the execution provider. `auto` needs both a build of ONNX Runtime with CUDA and a GPU."""
    cuda = settings.provider is Provider.CUDA or (
        settings.provider is Provider.AUTO and CUDA in ort.get_available_providers() and has_nvidia_device()
    )
    return SessionConfig(threads=settings.threads, providers=(EngineProvider(CUDA if cuda else CPU),))


def open_artifact(settings: ChatConfig | EmbedConfig, kind: ArtifactKind, model_config: str) -> Artifact:
    """
    Check and open the artifact that `settings` name.

    Raises `ArtifactError`, and `ConfigError` when it is not the one that `model_config` announces to clients, because
    it was replaced between the launcher's look and this one.
    """
    artifact = Artifact.open(Path(settings.artifact), kind)
    announced = read_version(model_config)
    if announced not in {None, artifact.identity}:
        raise ConfigError(f"{settings.artifact}: is {artifact.identity} now, not {announced}; start Triton again")
    return artifact
