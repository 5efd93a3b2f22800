from collections.abc import AsyncIterator, Iterator

import pytest

from cloud.config import ChatConfig, EmbedConfig, TritonConfig
from cloud.triton import Addresses, serving
from tests.cloud.checkpoint import make_chat_artifact, make_embedding_artifact
from tests.cloud.clients import ChatClient, EmbedClient, Metrics

SLOTS = 2
BACKLOG = 2


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A real tritonserver with both models, shared by the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("triton")
    config = TritonConfig(
        chat=ChatConfig(str(make_chat_artifact(folder)), threads=1, slots=SLOTS, backlog=BACKLOG),
        embed=EmbedConfig(str(make_embedding_artifact(folder)), threads=1),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        exit_timeout_s=2,
    )
    with (folder / "triton.log").open("w") as log, serving(config, log=log) as server:
        yield server.addresses


@pytest.fixture
async def chat(triton: Addresses) -> AsyncIterator[ChatClient]:
    async with ChatClient(triton.grpc) as client:
        yield client


@pytest.fixture
async def embed(triton: Addresses) -> AsyncIterator[EmbedClient]:
    async with EmbedClient(triton.grpc) as client:
        yield client


@pytest.fixture
def metrics(triton: Addresses) -> Metrics:
    return Metrics(triton.metrics)
