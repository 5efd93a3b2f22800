"""Quotas at the endpoint: charged before any work, settled by use, told in headers."""

from collections.abc import AsyncIterator
from math import ceil
from pathlib import Path

import httpx
import pytest

from edge.serving import Drain
from router.admission import digest
from router.app import create_app
from router.config import load_config
from tests.servers import serving

pytestmark = pytest.mark.anyio

CONFIG = """
keys_file: keys.yaml
quotas:
  tenants:
    few: {requests_per_min: 3}
    little: {tokens_per_min: 600}
targets:
  shop: {backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m}
"""
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
URL = "/v1/chat/completions"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    keys = [f"{digest(tenant)}: {{tenant: {tenant}}}" for tenant in ("few", "little", "free")]
    (tmp_path / "keys.yaml").write_text("\n".join(keys))
    (tmp_path / "router.yaml").write_text(CONFIG)
    async with (
        serving(create_app(load_config(tmp_path / "router.yaml"), Drain())) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


def limits(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("x-ratelimit-")}


async def test_requests_beyond_the_rate_are_429_with_the_time_to_wait(client: httpx.AsyncClient) -> None:
    key = {"authorization": "Bearer few"}
    answers = [await client.post(URL, json=HELLO, headers=key) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [503, 503, 503, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    wait_ms = int(refused.headers["retry-after-ms"])
    assert 15_000 < wait_ms <= 20_000
    assert refused.headers["retry-after"] == str(ceil(wait_ms / 1000))


async def test_tokens_are_given_back_by_who_took_none(client: httpx.AsyncClient) -> None:
    key = {"authorization": "Bearer little"}
    for _ in range(10):
        answer = await client.post(URL, json=HELLO, headers=key)
        assert answer.status_code == 503, "the target is down, and no tokens were used"
    assert int(answer.headers["x-ratelimit-limit-tokens"]) == 600
    settled = await client.post("/v1/route", json=HELLO, headers=key)
    assert int(settled.headers.get("x-ratelimit-remaining-tokens", 600)) >= 590


async def test_what_can_never_fit_is_refused_without_a_time_to_wait(client: httpx.AsyncClient) -> None:
    asked = {**HELLO, "messages": [{"role": "user", "content": "hello " * 1000}]}
    answer = await client.post(URL, json=asked, headers={"authorization": "Bearer little"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "retry-after" not in answer.headers
    assert "retry-after-ms" not in answer.headers


async def test_a_tenant_without_limits_is_told_of_none(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json=HELLO, headers={"authorization": "Bearer free"})

    assert not limits(answer)
