"""onnxruntime sessions, set up the same way for every model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import onnxruntime as ort
from msgspec import Meta, Struct

from edge.engine.errors import ModelError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """An execution provider by onnxruntime's name, with its own options."""

    name: str
    options: dict[str, str] = {}


class SessionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How models run. `providers` are tried in order; what none of them can do runs on the CPU.

    `threads` 0 means one for each core. Spinning threads answer sooner but starve a busy machine.
    """

    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    allow_spinning: bool = False
    providers: tuple[Provider, ...] = (Provider(CPU),)


def open_session(path: Path, config: SessionConfig) -> ort.InferenceSession:
    """
    Raises:
        ModelError: a provider is not in this build of onnxruntime, or it cannot load the model.
    """
    require_providers(config.providers)
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.allow_spinning)))
    providers = [(provider.name, dict(provider.options)) for provider in config.providers]
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as exc:  # onnxruntime's errors share no narrower class
        raise ModelError(f"{path}: onnxruntime cannot load it ({' '.join(str(exc).split())})") from exc


def require_providers(providers: Sequence[Provider]) -> None:
    """
    Raises:
        ModelError: one is not in this build of onnxruntime.
    """
    available = ort.get_available_providers()
    for provider in providers:
        if provider.name not in available:
            raise ModelError(
                f"providers: this onnxruntime build has no {provider.name!r} (it has {', '.join(available)}); "
                "install the build that has it, or remove the line"
            )
