"""The cascade on the real site: one model's answer, whatever was tried before, and no work left behind."""

import json
import math
import socket
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import yaml

from edge.engine.events import Statistics
from edge.serving import Drain
from loadtests.pair.questions import Split, generate
from loadtests.site import Site
from router.app import create_app
from router.config import load_config
from tests.servers import serving
from tests.site.test_lifecycle import LONG

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
QUESTIONS = [list(question.messages) for question in generate(31_337, 60, Split.TEST)]
ANEW = {"cache-control": "no-store"}
ESCALATE = {"x-route-threshold": "0.000001", "x-answer-check": "on"}
KEEP = {"x-route-threshold": "1", "x-answer-check": "on"}
LONG_STREAM = {**LONG, "n": 1, "model": "auto", "stream": True}


async def start(site: Site, folder: Path, **check: float | bool) -> AsyncIterator[str]:
    """Another router over the same targets, with its own check."""
    config: dict[str, Any] = yaml.safe_load((site.work / "router.yaml").read_text())
    config["check"] = check
    (folder / "router.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    async with serving(create_app(load_config(folder / "router.yaml"), Drain())) as url:
        yield url


@pytest.fixture(scope="module")
async def url(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async for url in start(site, tmp_path_factory.mktemp("cascade")):
        yield url


@pytest.fixture(scope="module")
async def patient_url(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Holds a stream back for as long as it lasts."""
    async for url in start(site, tmp_path_factory.mktemp("patient"), hold_tokens=4096, hold_ms=60_000):
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=ANEW) as client:
        yield client


def ask(messages: Sequence[tuple[str, str]], **more: Any) -> dict[str, Any]:
    turns = [{"role": role, "content": text} for role, text in messages]
    return {"model": "auto", "messages": turns, "temperature": 0, "max_tokens": 200, **more}


def read_text(stream: str) -> str:
    """All that a stream said; its chunks are checked on the way."""
    events = [event.removeprefix("data: ") for event in stream.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    assert [choice["delta"].get("role") for choice in choices].count("assistant") == 1
    assert sum(choice["finish_reason"] is not None for choice in choices) == 1
    assert all(not choice.get("logprobs") for choice in choices)
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def look(site: Site, tier: str) -> Statistics:
    """The tier's own counters, without stopping the router, whose event loop is this one."""
    return await anyio.to_thread.run_sync(site.statistics, tier)


async def wait_cancelled(site: Site, tier: str, count: float, limit_s: float = 3.0) -> None:
    """Wait until that many sequences in all were cancelled, and none is active."""
    with anyio.fail_after(limit_s):
        while (now := await look(site, tier)).cancelled < count or now.active > 0:  # noqa: ASYNC110
            await anyio.sleep(0.02)  # another process's metric
    assert now.cancelled == count


async def test_every_answer_is_one_models_whole_or_streamed(client: httpx.AsyncClient) -> None:
    reasons = set()
    for messages in QUESTIONS:
        own = {
            tier: (await client.post(CHAT, json=ask(messages, model=tier))).json()["choices"][0]["message"]["content"]
            for tier in ("edge", "cloud")
        }
        whole = await client.post(CHAT, json=ask(messages))
        streamed = await client.post(CHAT, json=ask(messages, stream=True))

        assert whole.json()["choices"][0]["message"]["content"] == own[whole.headers["x-route-tier"]]
        assert read_text(streamed.text) == own[streamed.headers["x-route-tier"]]
        for response in (whole, streamed):
            reasons.add(response.headers["x-route-reason"])
            hard = float(response.headers["x-route-score"]) >= 0.5
            assert response.headers["x-route-tier"] == ("cloud" if hard else "edge")
            tried = response.headers["x-route-reason"] in {"checked", "escalated"}
            assert (response.headers["x-route-evidence"] == "answer") is tried
            assert "x-degraded" not in response.headers

    assert reasons >= {"checked", "escalated"}


async def test_an_escalated_stream_says_so_and_the_edge_stops(site: Site, client: httpx.AsyncClient) -> None:
    before = await look(site, "edge")

    response = await client.post(CHAT, json=LONG_STREAM, headers=ESCALATE)

    assert response.headers["x-route-reason"] == "escalated"
    assert (response.headers["x-route-tier"], response.headers["x-route-evidence"]) == ("cloud", "answer")
    assert len(read_text(response.text)) > 400
    await wait_cancelled(site, "edge", before.cancelled + 1)


async def test_the_client_pays_for_the_answer_that_it_got(client: httpx.AsyncClient) -> None:
    def spent(metrics: str) -> float:
        name = 'hybrid_tokens_total{direction="out",target="edge-demo",tier="edge"} '
        return sum(float(line.removeprefix(name)) for line in metrics.splitlines() if line.startswith(name))

    before = spent((await client.get("/metrics")).text)
    own = (await client.post(CHAT, json=ask(QUESTIONS[0], model="cloud"))).json()["usage"]
    escalated = await client.post(CHAT, json=ask(QUESTIONS[0]), headers=ESCALATE)

    assert escalated.headers["x-route-reason"] == "escalated"
    assert escalated.json()["usage"] == own
    metrics = (await client.get("/metrics")).text
    assert spent(metrics) > before
    assert 'hybrid_trials_total{reason="escalated"}' in metrics
    assert "hybrid_hold_seconds_count" in metrics


async def test_requests_may_decline_the_check_or_set_the_line(client: httpx.AsyncClient) -> None:
    off = await client.post(CHAT, json=ask(QUESTIONS[0]), headers={"x-answer-check": "off"})
    kept = await client.post(CHAT, json=ask(QUESTIONS[0]), headers=KEEP)
    edge = await client.post(CHAT, json=ask(QUESTIONS[0]), headers={"x-route-threshold": "1"})
    cloud = await client.post(CHAT, json=ask(QUESTIONS[0]), headers={"x-route-threshold": "0"})

    assert off.headers["x-route-reason"] in {"easy", "hard"}
    assert off.headers["x-route-evidence"] in {"features", "embedding"}
    assert kept.headers["x-route-reason"] == "checked"
    assert (edge.headers["x-route-tier"], edge.headers["x-route-reason"]) == ("edge", "easy")
    assert (cloud.headers["x-route-tier"], cloud.headers["x-route-reason"]) == ("cloud", "hard")


@pytest.mark.parametrize("headers", [KEEP, ESCALATE])
async def test_a_hang_up_during_the_hold_stops_edge_and_cloud(
    site: Site, patient_url: str, headers: dict[str, str]
) -> None:
    before = {tier: await look(site, tier) for tier in ("edge", "cloud")}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = json.dumps(LONG_STREAM).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(body)}\r\n\r\n".encode()
    port = httpx.URL(patient_url).port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=10) as client:
        client.sendall(head + body)
        with anyio.fail_after(5):
            while (await look(site, "edge")).active == 0:  # noqa: ASYNC110 - another process's metric
                await anyio.sleep(0.005)

    await wait_cancelled(site, "edge", before["edge"].cancelled + 1)
    await wait_cancelled(site, "cloud", before["cloud"].cancelled)


async def test_a_hang_up_after_an_escalation_stops_the_cloud_too(site: Site, url: str) -> None:
    before = {tier: (await look(site, tier)).cancelled for tier in ("edge", "cloud")}
    async with (
        httpx.AsyncClient(base_url=url, timeout=60, headers=ANEW) as leaver,
        leaver.stream("POST", CHAT, json=LONG_STREAM, headers=ESCALATE) as response,
    ):
        assert response.headers["x-route-reason"] == "escalated"
        await anext(response.aiter_raw())

    for tier in ("edge", "cloud"):
        await wait_cancelled(site, tier, before[tier] + 1)


async def test_the_log_says_what_decided(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "router.requests")
    response = await client.post(CHAT, json=ask(QUESTIONS[1]))
    with anyio.fail_after(5):
        while not (lines := [one for one in caplog.records if one.name == "router.requests"]):  # noqa: ASYNC110 - written behind the answer
            await anyio.sleep(0.005)
    line = json.loads(lines[-1].getMessage())

    assert line["reason"] == response.headers["x-route-reason"]
    assert (line["policy"], line["threshold"], line["evidence"]) == ("threshold", 0.5, "answer")
    assert line["artifact"]
    logit = math.log(line["score"] / (1 - line["score"]))
    assert sum(line["signals"].values()) == pytest.approx(logit, abs=0.01)
    assert QUESTIONS[1][-1][1] not in caplog.text


async def time_first_byte(client: httpx.AsyncClient, headers: dict[str, str]) -> tuple[float, str]:
    """Seconds to the first byte of a long stream, and its text."""
    begun = time.perf_counter()
    async with client.stream("POST", CHAT, json=LONG_STREAM, headers=headers) as response:
        pieces = response.aiter_text()
        received = [await anext(pieces)]
        first_s = time.perf_counter() - begun
        received += [piece async for piece in pieces]
    return first_s, read_text("".join(received))


async def test_the_first_byte_comes_within_the_hold_window(client: httpx.AsyncClient) -> None:
    own, held = [], []
    for _ in range(9):
        own.append(await time_first_byte(client, {"x-route": "edge"}))
        held.append(await time_first_byte(client, KEEP))

    medians = [statistics.median(first_s for first_s, _ in measured) for measured in (own, held)]
    assert all(len(text) > 400 for _, text in held)  # far longer than the window
    assert medians[1] <= medians[0] + 0.3


async def test_the_route_says_why(client: httpx.AsyncClient) -> None:
    said = (await client.post("/v1/route", json=ask(QUESTIONS[0]))).json()

    assert (said["reason"], said["check"], said["tier"]) == ("checked", True, "edge")
    assert (said["policy"], said["threshold"]) == ("threshold", 0.5)
    assert len(said["artifact"]) == 12
    assert said["evidence"] in {"features", "embedding"}
    assert len(said["signals"]) > 2
