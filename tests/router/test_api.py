"""What the endpoint refuses, and how: no target needs to be up for it."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import openai
import pytest

from edge.serving import Drain
from router.admission import digest
from router.app import create_app
from router.config import load_config
from tests.servers import serving

pytestmark = pytest.mark.anyio

KEY, EDGE_KEY = "hy-test", "hy-edge"
CONFIG = """
limits: {body_bytes: 2048}
keys_file: keys.yaml
targets:
  shop: {backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m}
  h100: {backend: openai, tier: cloud, url: "http://127.0.0.1:1", chat_model: m}
"""
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def drain() -> Drain:
    return Drain()


@pytest.fixture(scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory, drain: Drain) -> AsyncIterator[str]:
    tmp_path = tmp_path_factory.mktemp("router")
    (tmp_path / "keys.yaml").write_text(
        f"{digest(KEY)}: {{tenant: shop}}\n{digest(EDGE_KEY)}: {{tenant: ward, tiers: [edge], labels: [edge-only]}}\n"
    )
    (tmp_path / "router.yaml").write_text(CONFIG)
    async with serving(create_app(load_config(tmp_path / "router.yaml"), drain)) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


def error(response: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, param and code; the body is OpenAI's object and nothing else."""
    body: dict[str, Any] = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return response.status_code, body["error"]["param"], body["error"]["code"]


async def test_missing_and_wrong_keys_are_401(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
    async with httpx.AsyncClient(base_url=url) as nobody:
        missing = await nobody.post("/v1/chat/completions", json=HELLO)

    assert caught.value.code == "invalid_api_key"
    assert error(missing) == (401, None, "missing_api_key")


@pytest.mark.parametrize(
    "content", [b"{", b"", b"\xff\xfe", b'{"messages": [}', b'{"messages": [{"role": "user", "content": "a"}]} x']
)
async def test_malformed_json_is_400(client: httpx.AsyncClient, content: bytes) -> None:
    assert error(await client.post("/v1/chat/completions", content=content)) == (400, None, "invalid_json")


async def test_a_body_over_the_limit_is_413_whether_announced_or_not(client: httpx.AsyncClient) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 512

    announced = await client.post("/v1/chat/completions", content=b"x" * 4096)
    chunked = await client.post("/v1/chat/completions", content=trickle())

    assert error(announced) == error(chunked) == (413, None, "body_too_large")


async def test_unknown_urls_and_methods(client: httpx.AsyncClient) -> None:
    assert error(await client.get("/v1/nothing")) == (404, None, "unknown_url")
    assert error(await client.get("/v1/chat/completions")) == (405, None, "method_not_supported")


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-priority": "urgent"}, "x-priority"),
        ({"x-route": "moon"}, "x-route"),
        ({"x-data-label": "secret"}, "x-data-label"),
        ({"x-deadline-ms": "soon"}, "x-deadline-ms"),
        ({"x-deadline-ms": "0"}, "x-deadline-ms"),
        ({"x-route-threshold": "high"}, "x-route-threshold"),
        ({"x-route-threshold": "1.01"}, "x-route-threshold"),
        ({"x-route-threshold": "-0.1"}, "x-route-threshold"),
        ({"x-route-threshold": "nan"}, "x-route-threshold"),
        ({"x-answer-check": "perhaps"}, "x-answer-check"),
    ],
)
async def test_headers_that_say_nothing_known_are_400(
    client: httpx.AsyncClient, headers: dict[str, str], param: str
) -> None:
    status, named, _ = error(await client.post("/v1/chat/completions", json=HELLO, headers=headers))

    assert (status, named) == (400, param)


async def test_a_key_opens_only_its_tiers(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {EDGE_KEY}"}) as ward:
        refused = await ward.post("/v1/chat/completions", json={**HELLO, "model": "cloud"})

    assert error(refused)[0] == 403


async def test_with_every_target_down_the_answer_is_503_with_a_hint_when_to_retry(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=HELLO)

    assert error(response) == (503, None, "backend_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/health/live")).status_code == 200


async def test_a_request_id_is_kept_if_sane_and_made_if_not(client: httpx.AsyncClient) -> None:
    kept = await client.post("/v1/chat/completions", json=HELLO, headers={"x-request-id": "abc-1"})
    made = await client.post("/v1/chat/completions", json=HELLO, headers={"x-request-id": "a b\tc"})

    assert kept.headers["x-request-id"] == "abc-1"
    assert made.headers["x-request-id"].startswith("req_")


async def test_a_draining_router_is_not_ready_and_takes_no_work(client: httpx.AsyncClient, drain: Drain) -> None:
    drain.begun = True
    try:
        answer = await client.post("/v1/chat/completions", json=HELLO)
        ready = await client.get("/health/ready")
    finally:
        drain.begun = False

    assert error(answer) == (503, None, "draining")
    assert ready.status_code == 503


async def test_neither_prompts_nor_keys_are_in_metrics_or_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await client.post("/v1/chat/completions", json={**HELLO, "messages": [{"role": "user", "content": "CANARY-77"}]})

    metrics = (await client.get("/metrics")).text
    with anyio.fail_after(5):
        while "router.requests" not in caplog.text:  # noqa: ASYNC110 - the log is written behind the answers
            await anyio.sleep(0.005)

    assert 'status="503"' in metrics
    for seen in (metrics, caplog.text):
        assert "CANARY-77" not in seen
        assert KEY not in seen


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": [{"role": "bob", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"n": 17}, "n", "integer_above_max_value"),
        ({"top_p": 0}, "top_p", "decimal_below_min_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"top_logprobs": 3}, "top_logprobs", None),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
    ],
)
async def test_every_wrong_parameter_is_named(
    client: httpx.AsyncClient, change: dict[str, Any], param: str, code: str | None
) -> None:
    assert error(await client.post("/v1/chat/completions", json={**HELLO, **change})) == (400, param, code)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_wrong_embedding_requests_are_named(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    status, named, _ = error(await client.post("/v1/embeddings", json=body))

    assert (status, named) == (400, param)
