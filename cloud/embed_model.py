"""The `embed` model as Triton's Python backend runs it; Triton's dynamic batcher puts requests together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from cloud.config import ConfigError, EmbedConfig, read_settings
from cloud.execution import open_artifact, session_config
from cloud.wire import EMBEDDING_WIDTH, EmbedInput, EmbedOutput
from edge.engine.artifact import ArtifactKind
from edge.engine.encoder import Encoder, Vectors
from edge.engine.errors import EngineError, RequestError


class EmbedModel:
    """What Triton calls a `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model that `cloud.config.EmbedConfig` in `args["model_config"]` names."""
        settings = read_settings(args["model_config"], EmbedConfig)
        artifact = open_artifact(settings, ArtifactKind.EMBEDDING, args["model_config"])
        self._encoder = Encoder(artifact.path, session_config(settings))
        if self._encoder.width != EMBEDDING_WIDTH:
            raise ConfigError(
                f"{settings.artifact}: its vectors have {self._encoder.width} numbers, "
                f"but embed/config.pbtxt promises {EMBEDDING_WIDTH}; name another artifact"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch: one response for each of `requests`, whose rows all run at once."""
        read = [self._read(request) for request in requests]
        rows = [row for each in read if not isinstance(each, EngineError) for row in each]
        vectors = iter(self._encoder.embed(rows) if rows else ())
        return [_failed(each) if isinstance(each, EngineError) else _answered(each, vectors) for each in read]

    def _read(self, request: Any) -> list[list[int]] | EngineError:
        """A request's rows as token ids, or what is wrong with it; its batch neighbours must not suffer."""
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            match tensors:
                case {EmbedInput.TEXT: texts, **others} if not others:
                    return self._encoder.tokenize([text.decode() for text in texts.reshape(-1)])
                case {EmbedInput.TOKEN_IDS: ids, **others} if not others:
                    return [self._encoder.check(row) for row in ids.tolist()]
            return RequestError(f"set {EmbedInput.TEXT} or {EmbedInput.TOKEN_IDS}, one of the two")
        except UnicodeDecodeError as exc:
            return RequestError(f"{EmbedInput.TEXT}: not UTF-8 ({exc.reason} at byte {exc.start})")
        except EngineError as exc:
            return exc


def _answered(rows: list[list[int]], vectors: Iterator[Vectors]) -> Any:
    embedding = np.stack([next(vectors) for _ in rows]).astype(np.float32, copy=False)
    counts = np.array([[len(row)] for row in rows], np.uint32)
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(EmbedOutput.EMBEDDING.value, embedding),
            pb_utils.Tensor(EmbedOutput.NUM_INPUT_TOKENS.value, counts),
        ]
    )


def _failed(error: EngineError) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
