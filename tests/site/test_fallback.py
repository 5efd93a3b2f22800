"""An edge that looks well and fails: the real cloud answers instead, once, before the first byte and never after."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from edge.serving import Drain
from router.app import create_app
from router.config import load_config
from tests.servers import broken, serving
from tests.site.parts import Site

pytestmark = pytest.mark.anyio
EASY = {"model": "auto", "messages": [{"role": "user", "content": "What is 3 plus 4?"}], "temperature": 0}


@pytest.fixture(params=["refuses", "blames", "full", "babbles", "breaks"])
def failure(request: pytest.FixtureRequest) -> str:
    """How the edge fails."""
    return str(request.param)


@pytest.fixture
async def client(site: Site, tmp_path: Path, failure: str) -> AsyncIterator[httpx.AsyncClient]:
    config: dict[str, Any] = yaml.safe_load((site.work / "router.yaml").read_text())
    async with serving(broken) as broken_url:
        config["targets"]["edge-demo"]["url"] = f"{broken_url}/{failure}"
        (tmp_path / "router.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        async with (
            serving(create_app(load_config(tmp_path / "router.yaml"), Drain())) as url,
            httpx.AsyncClient(base_url=url, timeout=20) as client,
        ):
            yield client


async def test_the_cloud_answers_for_a_failing_edge_and_says_so(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=EASY)

    assert response.status_code == 200
    assert (response.headers["x-route-tier"], response.headers["x-degraded"]) == ("cloud", "fallback")
    assert response.json()["choices"][0]["message"]["content"].endswith("7")


async def test_a_policy_is_never_broken_by_a_fallback(client: httpx.AsyncClient, failure: str) -> None:
    statuses = {"refuses": 502, "blames": 400, "full": 429, "babbles": 502, "breaks": 502}
    for change in ({"x-data-label": "edge-only"}, {"x-route": "edge"}):
        response = await client.post("/v1/chat/completions", json=EASY, headers=change)

        assert response.status_code == statuses[failure]
        assert response.json()["error"]["message"]


async def test_a_stream_switches_before_its_first_byte_only(client: httpx.AsyncClient, failure: str) -> None:
    unchecked = {"x-answer-check": "off", "x-route-threshold": "1"}
    response = await client.post("/v1/chat/completions", json={**EASY, "stream": True}, headers=unchecked)

    assert response.status_code == 200
    if failure == "breaks":  # one piece had come: the client gets it, and an error event, never another model's words
        assert response.headers["x-route-tier"] == "edge"
        assert '"content":"hello"' in response.text
        last = response.text.strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("event: error\ndata: "))["error"]["code"] == "backend_failed"
    else:
        assert (response.headers["x-route-tier"], response.headers["x-degraded"]) == ("cloud", "fallback")
        assert response.text.endswith("data: [DONE]\n\n")


async def test_a_held_stream_may_break_without_its_client_seeing_it(client: httpx.AsyncClient) -> None:
    held = {"x-answer-check": "on"}
    response = await client.post("/v1/chat/completions", json={**EASY, "stream": True}, headers=held)

    assert (response.headers["x-route-tier"], response.headers["x-degraded"]) == ("cloud", "fallback")
    assert "hello" not in response.text
    assert response.text.endswith("data: [DONE]\n\n")
