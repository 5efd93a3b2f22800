"""The response cache of a running site: real models, real disk, the real SDK."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import openai
import pytest
import yaml
from click.testing import CliRunner

from loadtests.site import Site, running_site
from router.admission import digest
from router.cli import main

CHAT = "/v1/chat/completions"
KEYS = {"shop": "hy-shop", "ward": "hy-ward", "operator": "hy-operator"}
LONG = {"model": "edge", "max_tokens": 400, "messages": [{"role": "user", "content": "Tell me about the sea."}]}


def configure(site: Site) -> None:
    """Keys, a disk tier, answers that are soon stale, and the semantic cache."""
    keys = {digest(key): {"tenant": tenant, "operator": tenant == "operator"} for tenant, key in KEYS.items()}
    (site.work / "keys.yaml").write_text(yaml.safe_dump(keys))
    (site.work / "cache").mkdir()
    path = site.work / "router.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    content["keys_file"] = "keys.yaml"
    content["cache"] = {
        "tiers": {"disk": {"folder": "cache"}},
        "response": {"routes": {"cloud": {"ttl_s": 0.5, "jitter": 0}}},
        "semantic": {"enabled": True},
    }
    path.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("cached-site"), configure) as site:
        yield site


@pytest.fixture
def client(cached: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cached.url}/v1", api_key=KEYS["shop"], max_retries=0, timeout=30) as client:
        yield client


def say(question: str, **more: Any) -> dict[str, Any]:
    """A deterministic request."""
    return {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": question}], **more}


def ask(site: Site, body: dict[str, Any], tenant: str = "shop", **headers: str) -> httpx.Response:
    """One request."""
    sent = {"authorization": f"Bearer {KEYS[tenant]}", **{name.replace("_", "-"): v for name, v in headers.items()}}
    return httpx.post(site.url + CHAT, json=body, headers=sent, timeout=30)


def fresh() -> str:
    """A question that nobody asked before."""
    return f"Reverse the word {''.join(secrets.choice('abcdefgh') for _ in range(9))}."


def test_the_sdk_gets_the_same_answer_again_whole_and_streamed(client: openai.OpenAI) -> None:
    body = say(fresh())
    first = client.chat.completions.with_raw_response.create(**body)
    again = client.chat.completions.with_raw_response.create(**body)
    streamed = client.chat.completions.with_raw_response.create(**body, stream=True)
    with client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)

    assert [one.headers["x-cache"] for one in (first, again, streamed)] == ["miss", "hit", "hit"]
    assert again.content == first.content
    assert again.headers["age"] == "0"
    assert again.headers["etag"] == first.headers["etag"]
    answer = first.parse()
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer.choices[0].message.content
    assert chunks[-1].usage == answer.usage
    assert {chunk.id for chunk in chunks} == {answer.id}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason


def test_a_finished_stream_fills_the_cache(client: openai.OpenAI) -> None:
    body = say(fresh())
    with client.chat.completions.create(**body, stream=True) as stream:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    whole = client.chat.completions.with_raw_response.create(**body)
    assert whole.headers["x-cache"] == "hit"
    assert whole.parse().choices[0].message.content == said


def test_a_client_that_has_the_answer_gets_no_body(cached: Site) -> None:
    body = say(fresh())
    first = ask(cached, body)

    for more in ({}, {"stream": True}):
        same = ask(cached, {**body, **more}, if_none_match=first.headers["etag"])
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["etag"].endswith(first.headers["etag"])


def test_directives_are_obeyed_over_http(cached: Site) -> None:
    body = say(fresh())
    refused = ask(cached, body, cache_control="only-if-cached")
    assert refused.status_code == 504
    assert refused.json()["error"]["code"] == "not_cached"
    assert ask(cached, body, cache_control="no-store").headers["x-cache"] == "bypass"
    assert ask(cached, body).headers["x-cache"] == "miss"
    assert ask(cached, body, cache_control="only-if-cached").headers["x-cache"] == "hit"


def test_a_sampled_answer_is_not_kept(cached: Site) -> None:
    body = say(fresh()) | {"temperature": 0.8}

    assert [ask(cached, body).headers["x-cache"] for _ in range(2)] == ["bypass", "bypass"]


def test_a_tenant_never_gets_anothers_answer(cached: Site) -> None:
    body = say(fresh())

    assert [ask(cached, body, tenant).headers["x-cache"] for tenant in ("shop", "ward", "shop", "ward")] == [
        "miss",
        "miss",
        "hit",
        "hit",
    ]


def test_tags_and_tenants_can_be_flushed_by_an_operator(cached: Site) -> None:
    tagged, other = say(fresh()), say(fresh())
    ask(cached, tagged, x_cache_tags="menu")
    ask(cached, other)
    command = ["cache", "flush", "--url", cached.url, "--key", KEYS["operator"], "--yes"]

    assert CliRunner().invoke(main, [*command, "--tag", "menu", "--dry-run"]).exit_code == 0
    assert ask(cached, tagged).headers["x-cache"] == "hit"
    assert CliRunner().invoke(main, [*command, "--tag", "menu"]).exit_code == 0
    assert ask(cached, tagged).headers["x-cache"] == "miss"
    assert ask(cached, other).headers["x-cache"] == "hit"
    assert CliRunner().invoke(main, [*command, "--tenant", "shop"]).exit_code == 0
    assert ask(cached, other).headers["x-cache"] == "miss"


def test_answers_outlive_a_kill_of_the_router(cached: Site) -> None:
    body = say(fresh())
    first = ask(cached, body)
    wait_written(cached)
    cached.kill("router")
    cached.start("router")
    for target in ("edge-demo", "cloud-demo"):
        cached.wait_target(target, up=True)

    again = ask(cached, body)
    assert again.headers["x-cache"] == "hit"
    assert again.content == first.content


def test_a_stale_answer_stands_in_for_a_target_that_is_gone(cached: Site) -> None:
    body = say(fresh(), model="cloud")
    first = ask(cached, body)
    cached.stop("triton")
    try:
        cached.wait_target("cloud-demo", up=False)
        stale = ask(cached, body)
        assert stale.content == first.content
        assert (stale.headers["x-degraded"], stale.headers["x-cache"]) == ("stale", "hit")
        assert ask(cached, body, cache_control="stale-if-error=0").status_code == 503
        assert ask(cached, say(fresh(), model="cloud")).status_code == 503
    finally:
        cached.start("triton")
        cached.wait_target("cloud-demo", up=True)


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("leader_leaves", [False, True])
async def test_500_equal_requests_start_one_generation(cached: Site, streamed: bool, leader_leaves: bool) -> None:
    """Before any semantic hit, whose audits start generations too."""
    body = {**LONG, "temperature": 0, "seed": secrets.randbelow(2**31)}
    before = cached.statistics("edge").started
    limits = httpx.Limits(max_connections=520)
    headers = {"authorization": f"Bearer {KEYS['shop']}", "x-priority": "interactive"}

    async with httpx.AsyncClient(base_url=cached.url, timeout=60, limits=limits, headers=headers) as client:

        async def ask_once(index: int) -> str:
            stream = streamed == (index % 2 == 0)
            response = await client.post(CHAT, json={**body, "stream": stream})
            assert response.status_code == 200
            return read(response)

        leader = asyncio.get_running_loop().create_future()

        async def lead() -> None:
            async with client.stream("POST", CHAT, json={**body, "stream": streamed}) as response:
                leader.set_result(None)
                await response.aread()

        async with asyncio.TaskGroup() as group:
            first = group.create_task(lead())
            await asyncio.sleep(0.02)
            others = [group.create_task(ask_once(index)) for index in range(499)]
            await asyncio.sleep(0.02)
            if leader_leaves:
                first.cancel()

    assert len({task.result() for task in others}) == 1
    assert cached.statistics("edge").started - before <= 1 + leader_leaves


def test_a_question_that_means_the_same_gets_the_answer_and_one_that_does_not_does_not(cached: Site) -> None:
    system = {"role": "system", "content": fresh()}  # a partition of its own

    def look(question: str, tenant: str = "shop") -> str:
        body = say(question) | {"messages": [system, {"role": "user", "content": question}]}
        return ask(cached, body, tenant).headers["x-cache"]

    assert look("How many grams are there in 12 kilograms?") == "miss"
    wait_written(cached)
    assert look("How many grams are in twelve kilograms?") == "semantic"
    assert look("How many grams are there in 13 kilograms?") == "miss"
    assert look("How many kilograms are there in 12 grams?") == "miss"
    assert look("How many grams are in twelve kilograms?", "ward") == "miss"


def read(response: httpx.Response) -> str:
    """The text of a whole or streamed answer."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    chunks = [msgspec.json.decode(event) for event in events]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


def wait_written(site: Site) -> None:
    """Until what was remembered has reached the disk and the index, which goes on behind the requests."""
    time.sleep(0.5)
