"""The edge over HTTP: OpenAI's shapes and errors, and work that ends with its client."""

import asyncio
import base64
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import openai
import pytest

from edge import wire
from edge.app import create_app
from edge.config import Chat, Config, Embedding, Limits, Runtime, load_config
from edge.engine.settings import ConfigError
from edge.serving import Drain
from loadtests.ports import free_port
from tests.edge.embedding import WIDTH, write_embedding_artifact
from tests.servers import serving

pytestmark = pytest.mark.anyio

URL = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 12}
LONG_SCHEMA = {"type": "string", "pattern": "^a{8000}$"}
LONG_FORMAT = {"type": "json_schema", "json_schema": {"name": "long", "schema": LONG_SCHEMA}}
LONG = {"messages": HELLO["messages"], "temperature": 0, "response_format": LONG_FORMAT}


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_artifact(tmp_path_factory.mktemp("service") / "embedding")


@pytest.fixture(scope="module")
def config(model: Path, embedding_model: Path) -> Config:
    runtime = Runtime(threads=1)
    return Config(
        chat=Chat(artifact=model, slots=2, waiting=3, runtime=runtime),
        embedding=Embedding(artifact=embedding_model, runtime=runtime),
        limits=Limits(body_bytes=20_000),
    )


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an edge of its own."""
    async with (
        serving(create_app(config, Drain())) as url,
        httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
async def client(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(config) as client:
        yield client


@pytest.fixture
async def own_client(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    """For tests that count what the edge did."""
    async with connected(config) as client:
        yield client


def events(body: str) -> list[tuple[str, str]]:
    """Each server-sent event's name and data."""
    found = []
    for event in body.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines())
        found.append((fields.get("event", "message"), fields["data"]))
    return found


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """A metric's value now."""
    text = (await client.get("/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


async def wait_metric(client: httpx.AsyncClient, name: str, value: float) -> None:
    """Wait until a metric has a value."""
    async with asyncio.timeout(5):
        while await metric(client, name) != value:  # noqa: ASYNC110 - only a scrape can tell
            await asyncio.sleep(0.005)


async def test_a_chat_completion(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**HELLO, "model": "tiny", "n": 2, "logprobs": True, "top_logprobs": 2})

    answer = msgspec.json.decode(response.content, type=wire.ChatCompletion)
    assert response.status_code == 200
    assert (answer.object, answer.model) == ("chat.completion", "tiny")
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    for choice in answer.choices:
        assert choice.finish_reason == "length"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        raw = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
        assert raw.decode(errors="replace") == choice.message.content
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


async def test_a_chat_stream(client: httpx.AsyncClient) -> None:
    whole = (await client.post(URL, json=HELLO)).json()
    asked = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}

    response = await client.post(URL, json=asked)

    *data, (_, done) = events(response.text)
    chunks = [msgspec.json.decode(text, type=wire.ChatCompletionChunk) for _, text in data]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert done == "[DONE]"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:-1])
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole["choices"][0]["message"]["content"]
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert all(json.loads(text)["usage"] is None for _, text in data[:-1])
    assert chunks[-1].choices == []
    assert msgspec.to_builtins(chunks[-1].usage) == whole["usage"]
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_is_absent_unless_asked_for(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**HELLO, "stream": True})

    assert all("usage" not in json.loads(text) for _, text in events(response.text)[:-1])


@pytest.mark.parametrize("prompt", ["Hi", ["Hi", "Ho"], [72, 105], [[72, 105], [72]]])
async def test_text_completions(client: httpx.AsyncClient, prompt: Any) -> None:
    body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, "logprobs": 1}

    whole = (await client.post("/v1/completions", json=body)).json()
    streamed = await client.post("/v1/completions", json={**body, "stream": True})

    answers = 2 if prompt in (["Hi", "Ho"], [[72, 105], [72]]) else 1
    chunks = [json.loads(text) for _, text in events(streamed.text)[:-1]]
    assert [choice["index"] for choice in whole["choices"]] == list(range(answers))
    for choice in whole["choices"]:
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        logprobs = choice["logprobs"]
        assert len(logprobs["tokens"]) == len(logprobs["text_offset"]) == len(logprobs["top_logprobs"]) == 5


async def test_embeddings_of_every_kind(client: httpx.AsyncClient) -> None:
    async def embed(given: Any, **more: Any) -> list[Any]:
        response = await client.post("/v1/embeddings", json={"input": given, "model": "tiny-embedding", **more})
        return [one["embedding"] for one in response.json()["data"]]

    [text], [tokens], lists = await asyncio.gather(embed("the cat"), embed([2, 3]), embed([[2, 3], [5]]))
    [coded] = await embed("the cat", encoding_format="base64")
    [short] = await embed("the cat", dimensions=4)

    assert len(text) == WIDTH
    assert text == pytest.approx(tokens)
    assert text == pytest.approx(lists[0])
    assert text != pytest.approx(lists[1], abs=0.1)
    assert np.frombuffer(base64.b64decode(coded), "<f4") == pytest.approx(text)
    assert short == pytest.approx(np.array(text[:4]) / np.linalg.norm(text[:4]), abs=1e-6)


async def test_the_openai_sdk_reads_it(client: httpx.AsyncClient) -> None:
    async with openai.AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(model="tiny", **HELLO)
        stream = await sdk.chat.completions.create(model="tiny", stream=True, **HELLO)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        vectors = await sdk.embeddings.create(model="tiny-embedding", input=["the cat", "stocks"])
        models = [model.id async for model in sdk.models.list()]

    assert text == answer.choices[0].message.content
    assert len(vectors.data[1].embedding) == WIDTH
    assert models == ["tiny", "tiny-embedding"]


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"model": "other"}, 404, "model", "model_not_found"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": 3}, 400, "messages", "invalid_value"),
        ({"max_tokens": -1}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": 10_000}, 400, "max_tokens", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 15_000}]}, 400, "prompt", "context_length_exceeded"),
        ({"temperature": 3}, 400, "temperature", "invalid_value"),
        ({"tools": [{}]}, 400, "tools", "unsupported_parameter"),
        ({"frequency_penalty": 1}, 400, "frequency_penalty", "unsupported_parameter"),
        ({"top_logprobs": 2}, 400, "top_logprobs", None),
        ({"stream_options": {}}, 400, "stream_options", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages",
            "unsupported_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": {"type": 3}}}},
            400,
            "response_format",
            "invalid_value",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_wrong_requests(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, param: str, code: str | None, stream: bool
) -> None:
    if "stream_options" in change and stream:
        change = {"stream_options": 3}
        code = "invalid_value"

    response = await client.post(URL, json={**HELLO, "stream": stream, **change})

    error = msgspec.json.decode(response.content, type=wire.ErrorBody).error
    assert (response.status_code, error.type, error.param, error.code) == (status, "invalid_request_error", param, code)


@pytest.mark.parametrize(
    ("method", "url", "content", "status", "code"),
    [
        ("POST", URL, b"{nope", 400, "invalid_json"),
        ("POST", URL, b'{"messages": "' + b"x" * 30_000 + b'"}', 413, "body_too_large"),
        ("POST", "/v1/nothing", b"{}", 404, "unknown_url"),
        ("GET", URL, b"", 405, "method_not_supported"),
        ("POST", "/v1/embeddings", b'{"input": [1, "a"]}', 400, None),
        ("POST", "/v1/embeddings", b'{"input": "a", "dimensions": 99}', 400, "invalid_value"),
        ("POST", "/v1/completions", b'{"prompt": ["a"], "echo": true}', 400, "unsupported_parameter"),
    ],
)
async def test_other_wrong_requests(
    client: httpx.AsyncClient, method: str, url: str, content: bytes, status: int, code: str | None
) -> None:
    response = await client.request(method, url, content=content)

    error = msgspec.json.decode(response.content, type=wire.ErrorBody).error
    assert (response.status_code, error.code) == (status, code)


@pytest.mark.parametrize("header", [{"x-priority": "urgent"}, {"x-deadline-ms": "soon"}, {"x-deadline-ms": "-5"}])
async def test_wrong_headers(client: httpx.AsyncClient, header: dict[str, str]) -> None:
    response = await client.post(URL, json=HELLO, headers=header)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(header))


async def test_a_passed_deadline_is_a_504(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=LONG, headers={"x-deadline-ms": "50"})

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"


async def test_what_expires_while_it_waits_never_starts(own_client: httpx.AsyncClient) -> None:
    def total(outcome: str) -> str:
        return f'hybrid_chat_generations_total{{model="tiny",outcome="{outcome}"}}'

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(own_client.post(URL, json=LONG)) for _ in range(2)]
        await wait_metric(own_client, 'hybrid_chat_generations_now{model="tiny",state="active"}', 2)
        late = await own_client.post(URL, json=LONG, headers={"x-deadline-ms": "60", "x-priority": "interactive"})
        counts = {
            outcome: await metric(own_client, total(outcome)) for outcome in ("started", "started_late", "expired")
        }
        for task in running:
            task.cancel()

    assert late.status_code == 504
    assert counts == {"started": 2, "started_late": 0, "expired": 1}


async def test_a_failure_after_the_first_byte_is_an_error_event(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**LONG, "stream": True}, headers={"x-deadline-ms": "400"})

    *_, (name, last) = events(response.text)
    assert response.status_code == 200
    assert name == "error"
    assert json.loads(last)["error"]["code"] == "deadline_exceeded"


async def test_a_hang_up_frees_the_slot_of_a_stream(own_client: httpx.AsyncClient) -> None:
    async with own_client.stream("POST", URL, json={**LONG, "stream": True}) as response:
        await anext(response.aiter_bytes())
        assert await metric(own_client, 'hybrid_chat_generations_now{model="tiny",state="active"}') == 1

    await wait_metric(own_client, 'hybrid_chat_generations_total{model="tiny",outcome="cancelled"}', 1)
    assert await metric(own_client, 'hybrid_chat_generations_now{model="tiny",state="active"}') == 0
    assert await metric(own_client, 'hybrid_chat_tokens_total{kind="completion",model="tiny"}') < 4000


async def test_a_hang_up_frees_the_slot_of_a_plain_request(own_client: httpx.AsyncClient) -> None:
    body = json.dumps({**LONG, "n": 5}).encode()
    reader, writer = await asyncio.open_connection(own_client.base_url.host, own_client.base_url.port)
    writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (URL.encode(), len(body)) + body)
    await wait_metric(own_client, 'hybrid_chat_generations_now{model="tiny",state="active"}', 2)

    writer.close()

    # two that ran, three that waited
    await wait_metric(own_client, 'hybrid_chat_generations_total{model="tiny",outcome="cancelled"}', 5)
    assert await metric(own_client, 'hybrid_chat_generations_now{model="tiny",state="active"}') == 0
    assert await metric(own_client, 'edge_requests_total{status="499",url="/v1/chat/completions"}') == 1
    reader.feed_eof()


async def test_a_full_waiting_list_is_a_429(own_client: httpx.AsyncClient) -> None:
    many = (own_client.post(URL, json=LONG, headers={"x-deadline-ms": "800"}) for _ in range(12))

    responses = await asyncio.gather(*many)

    refused = [response for response in responses if response.status_code == 429]
    assert len(refused) == 12 - 5
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["code"] == "overloaded"


async def test_many_clients_at_once_get_what_each_gets_alone(client: httpx.AsyncClient) -> None:
    def ask(text: str) -> dict[str, Any]:
        return {**HELLO, "messages": [{"role": "user", "content": text}]}

    texts = ["one", "two", "three", "four", "five"]
    together = await asyncio.gather(*(client.post(URL, json=ask(text)) for text in texts))
    alone = [await client.post(URL, json=ask(text)) for text in texts]

    assert [one.json()["choices"] for one in together] == [one.json()["choices"] for one in alone]


@pytest.fixture(params=[0.0])
def process(
    config: Config, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The edge as a process of its own, and its URL; the parameter is its lead in seconds."""
    port = free_port()
    text = msgspec.yaml.encode(
        {
            "listen": {"port": port},
            "chat": {"artifact": str(config.chat.artifact), "runtime": {"threads": 1}},
            "limits": {"lead_s": request.param, "drain_s": 0.6},
        }
    )
    (tmp_path / "edge.yaml").write_bytes(text)
    command = [sys.executable, "-m", "edge", "--config", str(tmp_path / "edge.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_a_stop_drains_then_cuts_and_exits_0(process: tuple[subprocess.Popen[bytes], str]) -> None:
    edge, url = process
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        await _wait_ready(client)
        slow = {**LONG, "stream": True, "n": 16}
        async with client.stream("POST", URL, json=slow) as long:
            pieces = long.aiter_text()
            received = await anext(pieces)

            edge.send_signal(signal.SIGTERM)
            stopped = time.monotonic()
            async with asyncio.timeout(2):
                while (await client.get("/health/ready")).status_code != 503:  # noqa: ASYNC110 - only a probe can tell
                    await asyncio.sleep(0.01)
            refused = await client.post(URL, json=HELLO)
            received += "".join([piece async for piece in pieces])
    status = await asyncio.to_thread(edge.wait, 10)

    name, last = events(received)[-1]
    assert refused.json()["error"]["code"] == "draining"
    assert (name, json.loads(last)["error"]["code"]) == ("error", "draining")
    assert status == 0
    assert time.monotonic() - stopped < 6


@pytest.mark.parametrize("process", [1.5], indirect=True)
async def test_a_stop_still_takes_work_while_balancers_look_away(process: tuple[subprocess.Popen[bytes], str]) -> None:
    edge, url = process
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        await _wait_ready(client)
        kept = await client.post(URL, json=HELLO)

        edge.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        async with asyncio.timeout(1):
            while (await client.get("/health/ready")).status_code != 503:  # noqa: ASYNC110 - only a probe can tell
                await asyncio.sleep(0.01)
        late = await client.post(URL, json=HELLO)
    status = await asyncio.to_thread(edge.wait, 10)

    assert "connection" not in kept.headers
    assert (late.status_code, late.headers["connection"]) == (200, "close")
    assert late.json()["choices"] == kept.json()["choices"]
    assert status == 0
    assert time.monotonic() - stopped > 1.5


async def _wait_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await client.get("/health/ready")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


def test_configuration_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text("chat: {artifact: ../models/tiny, slotz: 3}")

    with pytest.raises(ConfigError, match=r"unknown field `slotz` - at `\$\.chat`"):
        load_config(path)

    path.write_text("chat: {artifact: ../models/tiny, runtime: {providers: [{name: OpenVINOExecutionProvider}]}}")
    assert load_config(path).chat.artifact == tmp_path.parent / "models" / "tiny"
    assert load_config(path).chat.runtime.session().providers[0].name == "OpenVINOExecutionProvider"


@pytest.mark.parametrize("text", ["chat: [", "chat: {}", "[]", None])
def test_a_wrong_file_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "edge.yaml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigError, match=r"edge\.yaml: "):
        load_config(path)
