"""What a target says of its models: real edges and a real tritonserver, started again on other bytes of one name."""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import yaml

from cloud.config import ChatConfig, ConfigError, EmbedConfig, TritonConfig
from cloud.execution import open_artifact
from cloud.triton import serving as serving_triton
from edge.engine.artifact import Artifact, ArtifactKind, identify, write_manifest
from edge.serving import Drain
from edge.wire import MODEL_VERSION
from router.app import create_app
from router.backends import Backend
from router.backends.openai import OpenAIBackend
from router.backends.triton import TritonBackend
from router.config import OpenAITarget, TritonTarget, load_config
from router.decision import Tier
from router.errors import UnavailableError
from router.query import Conversation, Message, Parameters, Query, RawPrompts
from tests.cloud.checkpoint import make_chat_artifact, make_embedding_artifact
from tests.servers import broken, serving

pytestmark = pytest.mark.anyio

START_S = 60.0
PLAIN = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""
PLAIN_CONFIG = """
backend: "python"
input [ { name: "x" data_type: TYPE_BOOL dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_BOOL dims: [ 1 ] } ]
"""


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_artifact(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedding_artifact(tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="module")
def other_chat(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same name and version; its template says hello first."""
    folder = tmp_path_factory.mktemp("other") / "artifact"
    shutil.copytree(chat, folder)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "Hello. {{ messages[-1].content }}"}')
    write_manifest(folder, kind=ArtifactKind.CHAT, name="gibberish", version="1")
    return folder


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
        return number


@contextmanager
def running_edge(chat: Path, port: int, work: Path) -> Iterator[str]:
    """The edge as a process."""
    config = {"listen": {"port": port}, "chat": {"artifact": str(chat), "slots": 1, "runtime": {"threads": 1}}}
    (work / "edge.yaml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "--config", str(work / "edge.yaml")], stderr=subprocess.DEVNULL
    ) as process:
        try:
            _await_ready(process, f"{url}/health/ready")
            yield url
        finally:
            process.terminate()


def _await_ready(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} is not ready")


@contextmanager
def running_triton(config: TritonConfig, work: Path) -> Iterator[None]:
    with (work / "triton.log").open("a") as log, serving_triton(config, log=log):
        yield


def edge_target(url: str, version: str | None = None) -> OpenAITarget:
    return OpenAITarget(tier=Tier.EDGE, url=url, chat_model="gibberish", version=version)


async def turn(backend: Backend, *, up: bool, limit_s: float = 20.0) -> None:
    """Probe as the router does until the place is up or down."""
    end = time.monotonic() + limit_s
    while await backend.ready() is not up:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def reached(backend: Backend) -> bool:
    """Whether a call gets through."""
    try:
        await backend.complete(Query(RawPrompts(("hi",)), Parameters(max_tokens=1)))
    except UnavailableError:
        return False
    return True


def test_an_identity_follows_the_bytes_and_never_breaks_a_header(chat: Path, other_chat: Path, tmp_path: Path) -> None:
    first, second = identify(chat), identify(other_chat)
    named = tmp_path / "named"
    shutil.copytree(chat, named)
    write_manifest(named, kind=ArtifactKind.CHAT, name="ä b\r\nx: y", version="1/2@3")

    assert first == Artifact.open(chat).identity
    assert first.startswith("gibberish/1@")
    assert first != second
    assert second.startswith("gibberish/1@")
    assert identify(named).startswith("%C3%A4%20b%0D%0Ax%3A%20y/1%2F2%403@")


async def test_an_edge_on_another_artifact_has_another_version(
    chat: Path, other_chat: Path, port: int, tmp_path: Path
) -> None:
    async with OpenAIBackend("shop", edge_target(f"http://127.0.0.1:{port}"), None) as backend:
        assert not await backend.ready()
        assert backend.version == ""
        with running_edge(chat, port, tmp_path):
            await turn(backend, up=True)
            first = backend.version
        await turn(backend, up=False)
        while_down = backend.version
        with running_edge(other_chat, port, tmp_path):
            await turn(backend, up=True)
            second = backend.version
        with running_edge(chat, port, tmp_path):
            await turn(backend, up=True)
            again = backend.version

    assert first == while_down == again == identify(chat)
    assert second == identify(other_chat) != first


async def test_the_first_answer_of_a_restarted_edge_tells_before_any_probe(
    chat: Path, other_chat: Path, port: int, tmp_path: Path
) -> None:
    async with OpenAIBackend("shop", edge_target(f"http://127.0.0.1:{port}"), None) as backend:
        with running_edge(chat, port, tmp_path):
            await turn(backend, up=True)
        query = Query(Conversation((Message("user", "hi"),)), Parameters(max_tokens=1))
        with running_edge(other_chat, port, tmp_path):
            await asyncio.sleep(0.1)  # the loop sees that the old connections have ended
            await backend.complete(query)
            whole = backend.version
        with running_edge(chat, port, tmp_path):
            await asyncio.sleep(0.1)
            async for _ in backend.stream(query):
                streamed = backend.version
                break

    assert whole == identify(other_chat)
    assert streamed == identify(chat)


async def test_a_foreign_server_is_known_by_the_operators_version_alone() -> None:
    async with serving(broken) as url:
        async with OpenAIBackend("any", edge_target(url), None) as silent:
            assert await silent.ready()
        async with OpenAIBackend("any", edge_target(url, "2026-11"), None) as told:
            assert told.version == "2026-11"
            assert await told.ready()

    assert silent.version == ""
    assert told.version == "2026-11"


async def test_a_triton_on_another_artifact_has_another_version(
    chat: Path, other_chat: Path, embedding: Path, port: int, tmp_path: Path
) -> None:
    target = TritonTarget(tier=Tier.CLOUD, address=f"127.0.0.1:{port}", version="a100")
    config = TritonConfig(
        chat=ChatConfig(str(chat), threads=1, slots=1),
        embed=EmbedConfig(str(embedding)),
        http_port=0,
        grpc_port=port,
        metrics_port=0,
        exit_timeout_s=1,
    )
    replaced = msgspec.structs.replace(config, chat=ChatConfig(str(other_chat), threads=1, slots=1))
    async with TritonBackend("h100", target, None) as backend:
        assert not await backend.ready()
        assert backend.version == "a100"
        with running_triton(config, tmp_path):
            await turn(backend, up=True)
            first = backend.version
        await turn(backend, up=False)
        while_down = backend.version
        with running_triton(replaced, tmp_path):
            await turn(backend, up=True)
            second = backend.version
        assert not await reached(backend)
        with running_triton(config, tmp_path):
            async with asyncio.timeout(20):
                while not await reached(backend):  # noqa: ASYNC110 - gRPC tries again at its own pace
                    await asyncio.sleep(0.05)
            assert await backend.ready()  # the first probe since it was the other
            again = backend.version

    assert again == first
    assert first == while_down == f"a100 chat:1:{identify(chat)} embed:1:{identify(embedding)}"
    assert second == f"a100 chat:1:{identify(other_chat)} embed:1:{identify(embedding)}"


def test_a_model_does_not_load_on_other_files_than_announced(chat: Path, other_chat: Path) -> None:
    settings = ChatConfig(str(other_chat))

    def announcing(path: Path) -> str:
        return msgspec.json.encode({"parameters": {"model_version": {"string_value": identify(path)}}}).decode()

    assert open_artifact(settings, ArtifactKind.CHAT, announcing(other_chat)).identity == identify(other_chat)
    with pytest.raises(ConfigError, match="start Triton again"):
        open_artifact(settings, ArtifactKind.CHAT, announcing(chat))


async def test_a_model_of_another_backend_is_known_by_its_served_versions(port: int, tmp_path: Path) -> None:
    """As the stock vLLM backend's is, which knows no artifact."""
    for version in ("1", "3"):
        folder = tmp_path / version / "chat" / version
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(PLAIN)
        (folder.parent / "config.pbtxt").write_text(PLAIN_CONFIG)
    target = TritonTarget(tier=Tier.CLOUD, address=f"127.0.0.1:{port}", embedding_model=None)
    seen = []
    async with TritonBackend("h100", target, None) as backend:
        for version in ("1", "3"):
            config = TritonConfig(
                repositories=(str(tmp_path / version),), http_port=0, grpc_port=port, metrics_port=0, exit_timeout_s=1
            )
            with running_triton(config, tmp_path):
                await turn(backend, up=True)
                seen.append(backend.version)
            await turn(backend, up=False)

    assert seen == ["chat:1:", "chat:3:"]


async def test_models_carry_the_version_of_their_target(chat: Path, port: int, tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    targets = {
        "shop": {"backend": "openai", "tier": "edge", "url": f"http://127.0.0.1:{port}", "chat_model": "gibberish"},
        "gone": {"backend": "openai", "tier": "cloud", "url": "http://127.0.0.1:1", "chat_model": "m"},
    }
    path.write_text(yaml.safe_dump({"targets": targets}))
    with running_edge(chat, port, tmp_path) as edge:
        async with serving(create_app(load_config(path), Drain())) as url, httpx.AsyncClient() as client:
            listed = (await client.get(f"{url}/v1/models")).json()["data"]
            one = (await client.get(f"{url}/v1/models/shop")).json()
            ready = await client.get(f"{edge}/health/ready")

    versions = {model["id"]: model.get("version") for model in listed}
    assert versions == {"auto": None, "edge": None, "cloud": None, "shop": identify(chat), "gone": None}
    assert one["version"] == ready.headers[MODEL_VERSION] == identify(chat)
