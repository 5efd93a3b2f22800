"""`/v1/cache` of a running router, and `hybrid cache` asking it."""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from edge.serving import Drain
from router.admission import Client, digest, load_admission
from router.app import create_app
from router.cache import Kind, Record
from router.cache.statistics import Caches, CacheStatistics
from router.cli import main
from router.config import load_config
from tests.cache.plain import PlainRecords
from tests.servers import serving

pytestmark = pytest.mark.anyio

OPERATOR, TENANT = "hy-operator", "hy-tenant"
URL = "/v1/cache"
TARGETS = 'targets: {shop: {backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m}}\n'
START_S = 30.0


class Embeddings(CacheStatistics, frozen=True, kw_only=True):
    """A cache with something of its own to say."""

    inputs: int = 0


class Counted:
    def statistics(self) -> CacheStatistics:
        return Embeddings(kind=Kind.EMBEDDING, hits=3, misses=1, inputs=12)


def record(key: str, tenant: str, model: str = "shop", tags: tuple[str, ...] = ()) -> Record:
    now = time.time()
    return Record(key.encode().ljust(32), Kind.RESPONSE, b"v" * 100, tenant, model, now, now + 60, tags)


@asynccontextmanager
async def running_router(folder: Path, records: PlainRecords, *, keys: bool) -> AsyncIterator[str]:
    """A router whose caches are `records`."""
    (folder / "keys.yaml").write_text(
        f"{digest(OPERATOR)}: {{tenant: ops, operator: true}}\n{digest(TENANT)}: {{tenant: shop}}\n"
    )
    (folder / "router.yaml").write_text(TARGETS + ("keys_file: keys.yaml\n" if keys else ""))
    app = create_app(load_config(folder / "router.yaml"), Drain())
    async with serving(app) as url:
        app.state.service = replace(app.state.service, caches=Caches(records, (Counted(),)))
        yield url


@pytest.fixture
def records() -> PlainRecords:
    records = PlainRecords()
    for one in (
        record("a", "shop", tags=("faq",)),
        record("b", "shop", "h100"),
        record("c", "ward", tags=("faq", "new")),
        record("d", "null"),
    ):
        records.write(one)
    return records


@pytest.fixture
async def client(records: PlainRecords, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The operator."""
    async with (
        running_router(tmp_path, records, keys=True) as url,
        httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {OPERATOR}"}) as client,
    ):
        yield client


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "router.audit"):
        yield caplog


def lines(audit: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(one.getMessage()) for one in audit.records if one.name == "router.audit"]


def error(response: httpx.Response) -> tuple[int, str | None, str | None]:
    body: dict[str, Any] = response.json()
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return response.status_code, body["error"]["param"], body["error"]["code"]


def kept(records: PlainRecords) -> str:
    return "".join(sorted(key.decode().strip() for key in records.kept))


async def test_statistics_are_those_of_every_tier_and_cache(client: httpx.AsyncClient, records: PlainRecords) -> None:
    records.peek(b"a".ljust(32))
    records.peek(b"z".ljust(32))

    answer = (await client.get(URL)).json()

    assert [
        (tier["tier"], tier["hits"], tier["misses"], tier["entries"], tier["bytes"]) for tier in answer["tiers"]
    ] == [("memory", 1, 1, 4, 400)]
    assert answer["caches"] == [{"kind": "embedding", "hits": 3, "misses": 1, "inputs": 12}]


@pytest.mark.parametrize(
    ("query", "count", "left"),
    [
        ({"tenant": "shop"}, 2, "cd"),
        ({"model": "h100"}, 1, "acd"),
        ({"tag": "faq"}, 2, "bd"),
        ({"tenant": "shop", "tag": "faq"}, 1, "bcd"),
        ({"tenant": "shop", "model": "shop", "tag": "new"}, 0, "abcd"),
        ({"tenant": "null"}, 1, "abc"),
        ({}, 4, ""),
    ],
)
async def test_a_flush_forgets_what_is_selected_after_a_dry_run_counted_it(
    client: httpx.AsyncClient,
    records: PlainRecords,
    audit: pytest.LogCaptureFixture,
    query: dict[str, str],
    count: int,
    left: str,
) -> None:
    dry = (await client.delete(URL, params={**query, "dry_run": "true"})).json()
    before = kept(records)
    unsaid = lines(audit)
    real = (await client.delete(URL, params=query, headers={"x-request-id": "why-1"})).json()

    whole = {"tenant": None, "model": None, "tag": None, **query}
    assert dry == {"selector": whole, "dry_run": True, "records": {"memory": count}}
    assert real == {**dry, "dry_run": False}
    assert (before, unsaid) == ("abcd", [])
    assert kept(records) == left
    (line,) = lines(audit)
    assert abs(time.time() - datetime.fromisoformat(line.pop("time")).timestamp()) < 30
    assert line == {
        "action": "cache.flush",
        "request_id": "why-1",
        "tenant": "ops",
        "selector": whole,
        "records": {"memory": count},
    }


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("tennant=shop", "tennant", "unknown_parameter"),
        ("tenant=shop&tenant=ward", None, "invalid_value"),
        ("tenant=", "tenant", "invalid_value"),
        ("tenant=a%20b", "tenant", "invalid_value"),
        ("tag=", "tag", "empty_string"),
        ("model=" + "m" * 129, "model", "string_above_max_length"),
        ("model=auto", "model", "invalid_value"),
        ("model=cloud", "model", "invalid_value"),
        ("dry_run=yes", "dry_run", "invalid_value"),
        ("dry_run=", "dry_run", "invalid_value"),
    ],
)
async def test_a_misspelt_flush_is_400_and_forgets_nothing(
    client: httpx.AsyncClient, records: PlainRecords, audit: pytest.LogCaptureFixture, query: str, param: str, code: str
) -> None:
    assert error(await client.delete(f"{URL}?{query}")) == (400, param, code)
    assert kept(records) == "abcd"
    assert lines(audit) == []


async def test_a_selection_in_the_body_is_refused(client: httpx.AsyncClient, records: PlainRecords) -> None:
    assert error(await client.request("DELETE", URL, json={"tenant": "shop"})) == (400, None, "invalid_value")
    assert kept(records) == "abcd"


async def test_a_tenants_key_may_neither_see_nor_flush(
    client: httpx.AsyncClient, records: PlainRecords, audit: pytest.LogCaptureFixture
) -> None:
    tenant = {"authorization": f"Bearer {TENANT}"}
    wrong = {"authorization": "Bearer nobody"}

    assert error(await client.get(URL, headers=tenant)) == (403, None, "not_allowed")
    for query in ({}, {"tenant": "shop"}, {"tenant": "ward"}, {"dry_run": "true"}):
        assert error(await client.delete(URL, params=query, headers=tenant)) == (403, None, "not_allowed")
    assert error(await client.delete(URL, headers=wrong)) == (401, None, "invalid_api_key")
    assert kept(records) == "abcd"
    assert lines(audit) == []


async def test_without_keys_the_anonymous_client_is_an_operator(records: PlainRecords, tmp_path: Path) -> None:
    async with running_router(tmp_path, records, keys=False) as url, httpx.AsyncClient(base_url=url) as nobody:
        assert (await nobody.get(URL)).status_code == 200
        assert (await nobody.delete(URL, params={"tenant": "ward"})).json()["records"] == {"memory": 1}


async def test_a_router_without_caches_says_so(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text(TARGETS)
    app = create_app(load_config(tmp_path / "router.yaml"), Drain())
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        app.state.service = replace(app.state.service, caches=None)
        assert error(await client.get(URL)) == (404, None, "unknown_url")


async def test_a_flush_whose_client_hangs_up_is_in_the_log(tmp_path: Path, audit: pytest.LogCaptureFixture) -> None:
    async with running_router(tmp_path, PlainRecords(flush_s=20), keys=False) as url:
        async with httpx.AsyncClient(base_url=url, timeout=0.5) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.delete(URL, params={"tenant": "shop"})
        async with asyncio.timeout(5):
            while not lines(audit):  # noqa: ASYNC110 - the router has no event for it
                await asyncio.sleep(0.02)

    assert lines(audit)[0]["records"] is None
    assert lines(audit)[0]["selector"]["tenant"] == "shop"


def test_a_key_for_an_operator_is_one_in_the_keys_file(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["key", "--tenant", "ops", "--operator"])
    (tmp_path / "keys.yaml").write_text(made.stderr)

    client = load_admission(tmp_path / "keys.yaml").admit(f"Bearer {made.stdout.strip()}")

    assert client == Client(tenant="ops", operator=True)
    assert not Client(tenant="shop").operator


async def call(client: httpx.AsyncClient, *arguments: str, key: str | None = OPERATOR, given: str = "") -> Result:
    """`hybrid cache ...` against the running router."""
    environment = {"HYBRID_URL": str(client.base_url), "HYBRID_API_KEY": key}
    return await asyncio.to_thread(CliRunner().invoke, main, ["cache", *arguments], input=given, env=environment)


async def test_stats_prints_a_table_or_json(client: httpx.AsyncClient, records: PlainRecords) -> None:
    records.peek(b"a".ljust(32))
    records.peek(b"b".ljust(32))
    records.peek(b"z".ljust(32))

    table = await call(client, "stats")
    whole = await call(client, "stats", "--json")

    assert table.exit_code == 0
    head, memory, _, _, embedding = (line.split() for line in table.output.splitlines())
    assert dict(zip(head[:5], memory, strict=False)) == {
        "tier": "memory",
        "hits": "2",
        "misses": "1",
        "ratio": "66.7%",
        "entries": "4",
    }
    assert embedding == ["embedding", "3", "1", "75.0%"]
    assert json.loads(whole.output)["caches"][0]["inputs"] == 12


async def test_flush_asks_with_the_counts_of_a_dry_run(
    client: httpx.AsyncClient, records: PlainRecords, audit: pytest.LogCaptureFixture
) -> None:
    counted = await call(client, "flush", "--tenant", "shop", "--dry-run")
    declined = await call(client, "flush", "--tenant", "shop", given="n\n")
    unasked = await call(client, "flush", "--tenant", "shop")
    before = kept(records)
    unsaid = lines(audit)
    agreed = await call(client, "flush", "--tenant", "shop", given="y\n")
    everything = await call(client, "flush", "--all", "--yes")

    assert (counted.exit_code, counted.output) == (0, "records of tenant shop: memory 2\n")
    assert declined.exit_code == unasked.exit_code == 1
    assert (before, unsaid) == ("abcd", [])
    assert agreed.exit_code == 0
    assert "Flushed records of tenant shop: memory 2" in agreed.output
    assert (everything.exit_code, everything.output) == (0, "Flushed all records: memory 2\n")
    assert kept(records) == ""
    assert len(lines(audit)) == 2


async def test_the_command_says_what_is_wrong(client: httpx.AsyncClient, records: PlainRecords, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(OPERATOR + "\n")
    nothing = await call(client, "flush", "--yes")
    both = await call(client, "flush", "--all", "--tenant", "shop", "--yes")
    stranger = await call(client, "stats", key="nobody")
    tenant = await call(client, "flush", "--all", "--yes", key=TENANT)
    alias = await call(client, "flush", "--model", "auto", "--yes")
    absent = await call(client, "stats", "--url", "http://127.0.0.1:1")
    odd = await call(client, "stats", "--url", "not a url")
    lost = await call(client, "stats", "--key-file", str(tmp_path / "none"))
    filed = await call(client, "stats", "--key-file", str(tmp_path / "key"), key=None)

    assert nothing.exit_code == both.exit_code == 2
    assert "--all alone" in nothing.output
    for result, text in [
        (stranger, "Incorrect API key"),
        (tenant, "Only an operator"),
        (alias, "the name of a target"),
        (absent, "is the router running there?"),
        (odd, "is the router running there?"),
        (lost, "cannot read this secret"),
    ]:
        assert result.exit_code == 1
        assert text in result.output
        assert result.output.count("\n") == 1
    assert filed.exit_code == 0
    assert kept(records) == "abcd"


def test_help_has_examples_and_completion_knows_the_commands() -> None:
    for arguments in (["cache"], ["cache", "stats"], ["cache", "flush"]):
        assert "hybrid cache" in CliRunner().invoke(main, [*arguments, "--help"]).output.split("Example", 1)[1]
    completed = CliRunner().invoke(
        main,
        [],
        prog_name="hybrid",
        env={"_HYBRID_COMPLETE": "bash_complete", "COMP_WORDS": "hybrid cache fl", "COMP_CWORD": "2"},
    )
    assert completed.output.strip() == "plain,flush"


def test_a_flush_is_in_the_log_of_a_served_router_however_quiet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "router.yaml").write_text(TARGETS + f"listen: {{port: {port}}}\n")
    command = [sys.executable, "-m", "router", "serve", "--log-level", "error"]
    with subprocess.Popen(
        [*command, "--config", str(tmp_path / "router.yaml")], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _await_live(process, f"http://127.0.0.1:{port}")
            httpx.delete(f"http://127.0.0.1:{port}{URL}?tag=old").raise_for_status()
        finally:
            process.terminate()
        _, log = process.communicate(timeout=20)

    (line,) = [one for one in log.splitlines() if one.startswith("{")]
    assert json.loads(line)["selector"]["tag"] == "old"
    assert process.returncode == 0


def _await_live(process: subprocess.Popen[str], url: str) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(f"{url}/health/live", timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the router is not live")
