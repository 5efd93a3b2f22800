"""Where a model's inference runs."""

import onnxruntime as ort

from cloud.config import ChatConfig, EmbedConfig, Provider
from cloud.installation import has_nvidia_device
from edge.engine.session import CPU, CUDA, SessionConfig
from edge.engine.session import Provider as EngineProvider


def session_config(settings: ChatConfig | EmbedConfig) -> SessionConfig:
    """Choose the execution provider. `auto` needs both a build of ONNX Runtime with CUDA and a GPU."""
    cuda = settings.provider is Provider.CUDA or (
        settings.provider is Provider.AUTO and CUDA in ort.get_available_providers() and has_nvidia_device()
    )
    return SessionConfig(threads=settings.threads, providers=(EngineProvider(CUDA if cuda else CPU),))
