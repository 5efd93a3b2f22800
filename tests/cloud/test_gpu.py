"""Both models on the CUDA provider."""

import io
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from cloud.config import ChatConfig, EmbedConfig, Provider, TritonConfig
from cloud.execution import session_config
from cloud.installation import has_nvidia_device
from cloud.triton import LaunchError, serving
from edge.engine.session import CPU, CUDA
from edge.models.catalog import Precision
from tests.cloud.checkpoint import make_chat_artifact, make_embedding_artifact
from tests.cloud.clients import ALL_RETURNED, ChatClient, EmbedClient

HAS_CUDA = CUDA in ort.get_available_providers() and has_nvidia_device()


def config(folder: Path, provider: Provider, precision: Precision = Precision.FLOAT32) -> TritonConfig:
    return TritonConfig(
        chat=ChatConfig(str(make_chat_artifact(folder / provider, precision)), provider=provider, slots=4),
        embed=EmbedConfig(str(make_embedding_artifact(folder / provider)), provider=provider),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        exit_timeout_s=2,
    )


def test_auto_takes_what_the_machine_has() -> None:
    (provider,) = session_config(ChatConfig("a")).providers

    assert provider.name == (CUDA if HAS_CUDA else CPU)


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this build of ONNX Runtime has CUDA")
def test_cuda_where_there_is_none_is_named(tmp_path: Path) -> None:
    reason = "providers: this onnxruntime build has no 'CUDAExecutionProvider'"

    with pytest.raises(LaunchError, match=reason), serving(config(tmp_path, Provider.CUDA), log=io.StringIO()):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs an NVIDIA GPU and a build of ONNX Runtime with CUDA")
async def test_the_gpu_answers_as_the_cpu_does(tmp_path: Path) -> None:
    answers, vectors = [], []
    for provider, precision in ((Provider.CPU, Precision.FLOAT32), (Provider.CUDA, Precision.FLOAT16)):
        with serving(config(tmp_path, provider, precision), log=io.StringIO()) as server:
            async with ChatClient(server.addresses.grpc) as chat, EmbedClient(server.addresses.grpc) as embed:
                answers.append(await chat.ask(sampling={"temperature": 0, "max_tokens": 8}, inputs=ALL_RETURNED))
                vectors.append((await embed.embed("hello"))[0])

    cpu, gpu = answers
    assert gpu.num_output_tokens == cpu.num_output_tokens
    assert gpu.text[:2] == cpu.text[:2]
    assert float(np.dot(*vectors)) > 0.999
