"""Traces of real requests on the real site, as an OTLP receiver gets them."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from edge.engine.settings import ConfigError
from edge.serving import Drain
from loadtests.site import Site
from router.app import create_app
from router.config import load_config
from tests.otlp import OtlpReceiver, read
from tests.servers import broken, serving

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
SECRET = "What is 3 plus 4? My name is Wilhelmine."
ESCALATE = {"x-route-threshold": "0.000001", "x-answer-check": "on"}
NO_CHECK = {"x-route-threshold": "1", "x-answer-check": "off"}
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED, UNTRACED = f"00-{TRACE_ID}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}-00"
NOBODY = "http://127.0.0.1:9"


def ask(text: str = "What is 3 plus 4?", **more: Any) -> dict[str, Any]:
    """A deterministic request."""
    return {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}


@asynccontextmanager
async def routing(
    site: Site, folder: Path, endpoint: str, edge: str | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another router over the same targets, which traces."""
    config: dict[str, Any] = yaml.safe_load((site.work / "router.yaml").read_text())
    config["tracing"] = {"endpoint": f"{endpoint}/v1/traces", **settings}
    if edge is not None:
        config["targets"]["edge-demo"]["url"] = edge
    (folder / "router.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    async with (
        serving(create_app(load_config(folder / "router.yaml"), Drain())) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client


@pytest.fixture
async def receiver() -> OtlpReceiver:
    return OtlpReceiver()


@pytest.fixture
async def client(site: Site, tmp_path: Path, receiver: OtlpReceiver) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(receiver) as endpoint, routing(site, tmp_path, endpoint) as client:
        yield client


async def post(client: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> tuple[httpx.Response, str]:
    """An answer, and the id of its request."""
    response = await client.post(CHAT, json=body, headers=headers)
    return response, response.headers["x-request-id"]


async def read_counts(client: httpx.AsyncClient) -> dict[str, float]:
    """What became of spans."""
    lines = (await client.get("/metrics")).text.splitlines()
    found = [line.split() for line in lines if line.startswith("hybrid_trace_spans_total{")]
    return {name.split('"')[1]: float(value) for name, value in found}


async def test_an_edge_answer_is_a_server_span_over_a_client_span(
    client: httpx.AsyncClient, receiver: OtlpReceiver, site: Site
) -> None:
    response, request_id = await post(client, ask(max_tokens=20), **NO_CHECK)
    root, (call,) = await receiver.wait_tree(request_id)

    usage = response.json()["usage"]
    assert receiver.services == {"hybrid-router"}
    assert (root.name, call.name) == ("chat auto", "chat demo-edge")
    assert (root.kind, call.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    told = read(root)
    assert told["gen_ai.operation.name"] == "chat"
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("auto", "demo-edge")
    assert told["hybrid.route.tier"] == response.headers["x-route-tier"] == "edge"
    assert told["hybrid.route.reason"] == response.headers["x-route-reason"]
    assert told["hybrid.route.score"] == pytest.approx(float(response.headers["x-route-score"]), abs=1e-4)
    assert told["hybrid.cache"] == response.headers["x-cache"] == "miss"
    assert told["hybrid.queue_ms"] == pytest.approx(float(response.headers["x-queue-ms"]), abs=0.1)
    assert told["http.response.status_code"] == 200
    assert "error.type" not in told
    asked = read(call)
    assert (asked["server.address"], asked["server.port"]) == ("127.0.0.1", site.ports.edge)
    assert asked["gen_ai.request.model"] == asked["gen_ai.response.model"] == "demo-edge"
    for span in (told, asked):
        assert span["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert span["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert asked["gen_ai.response.finish_reasons"].values[0].string_value == "stop"
    assert root.start_time_unix_nano <= call.start_time_unix_nano < call.end_time_unix_nano <= root.end_time_unix_nano


async def test_a_hit_calls_no_target(client: httpx.AsyncClient, receiver: OtlpReceiver) -> None:
    await post(client, ask())
    response, request_id = await post(client, ask())
    root, calls = await receiver.wait_tree(request_id)

    assert response.headers["x-cache"] == read(root)["hybrid.cache"] == "hit"
    assert calls == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_escalation_is_two_calls(client: httpx.AsyncClient, receiver: OtlpReceiver, *, stream: bool) -> None:
    response, request_id = await post(client, ask("What is 4817 minus 3956?", stream=stream), **ESCALATE)
    root, calls = await receiver.wait_tree(request_id)

    assert read(root)["hybrid.route.reason"] == response.headers["x-route-reason"] == "escalated"
    assert read(root)["gen_ai.response.model"] == "chat"
    assert [call.name for call in calls] == ["chat demo-edge", "chat chat"]
    assert [read(call)["hybrid.route.tier"] for call in calls] == ["edge", "cloud"]
    assert [call.status.code for call in calls] == [Status.STATUS_CODE_UNSET] * 2
    assert read(calls[1])["gen_ai.usage.output_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_and_its_fallback(site: Site, tmp_path: Path, receiver: OtlpReceiver, *, stream: bool) -> None:
    async with (
        serving(receiver) as endpoint,
        serving(broken) as edge,
        routing(site, tmp_path, endpoint, f"{edge}/refuses") as client,
    ):
        _, request_id = await post(client, ask(stream=stream), **NO_CHECK)
        root, (failed, saved) = await receiver.wait_tree(request_id)
        refusal, refused_id = await post(client, ask(stream=stream), **{"x-route": "edge"})
        refused, (alone,) = await receiver.wait_tree(refused_id)

    assert (failed.status.code, read(failed)["error.type"]) == (Status.STATUS_CODE_ERROR, "backend_failed")
    assert (saved.status.code, read(saved)["hybrid.route.tier"]) == (Status.STATUS_CODE_UNSET, "cloud")
    assert (read(root)["hybrid.route.reason"], read(root)["hybrid.degraded"]) == ("fallback", True)
    assert root.status.code == Status.STATUS_CODE_UNSET
    assert refusal.status_code == read(refused)["http.response.status_code"] == 502
    assert refused.status.code == alone.status.code == Status.STATUS_CODE_ERROR
    assert read(refused)["error.type"] == "backend_failed"


async def test_a_clients_trace_goes_on_to_the_target(
    client: httpx.AsyncClient, receiver: OtlpReceiver, site: Site
) -> None:
    _, request_id = await post(client, ask(), traceparent=TRACED, **NO_CHECK)
    root, (call,) = await receiver.wait_tree(request_id)

    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert call.trace_id.hex() == TRACE_ID
    line = next(line for line in site.log("edge").splitlines() if request_id in line)
    assert f'"trace_id":"{TRACE_ID}"' in line


async def test_sampling_is_ours_unless_the_client_says(site: Site, tmp_path: Path, receiver: OtlpReceiver) -> None:
    async with serving(receiver) as endpoint, routing(site, tmp_path, endpoint, sample_share=0) as client:
        await post(client, ask(), **NO_CHECK)
        await post(client, ask(), traceparent=UNTRACED, **NO_CHECK)
        _, request_id = await post(client, ask(), traceparent=TRACED, **NO_CHECK)
        await receiver.wait_tree(request_id)

    roots = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [read(span)["hybrid.request_id"] for span in roots] == [request_id]


async def test_prompts_are_in_spans_only_if_asked_for(site: Site, tmp_path: Path) -> None:
    raw: dict[bool, bytes] = {}
    for wanted in (False, True):
        receiver = OtlpReceiver()
        async with serving(receiver) as endpoint, routing(site, tmp_path, endpoint, record_content=wanted) as client:
            for stream in (False, True):
                _, request_id = await post(client, ask(SECRET, stream=stream), **NO_CHECK)
            await receiver.wait_tree(request_id)
            _, request_id = await post(client, ask("Ursula 1 plus 1?"), **{"x-data-label": "edge-only"})
            await receiver.wait_tree(request_id)
        raw[wanted] = receiver.raw

    assert b"Wilhelmine" not in raw[False]
    assert b"messages" not in raw[False]
    assert b"Wilhelmine" in raw[True]
    assert b"gen_ai.output.messages" in raw[True]
    assert b"Ursula" not in raw[False] + raw[True]


async def test_a_collector_that_is_away_costs_nothing_but_a_count(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with routing(site, tmp_path, NOBODY, timeout_s=0.5) as client:
        async with asyncio.timeout(60):
            while (await read_counts(client))["failed"] == 0:
                response, _ = await post(client, ask(), **NO_CHECK)
                assert response.status_code == 200
        counts = await read_counts(client)
        begun = time.monotonic()

    assert time.monotonic() - begun < 15
    assert counts["exported"] == 0
    warnings = [one.getMessage() for one in caplog.records if one.name == "router.span_export"]
    assert warnings == [f"Traces are not taken by {NOBODY}/v1/traces."]
    assert not [one for one in caplog.records if one.name.startswith("opentelemetry")]


async def test_what_a_slow_collector_does_not_take_is_dropped_and_counted(site: Site, tmp_path: Path) -> None:
    async with (
        serving(broken) as endpoint,
        routing(site, tmp_path, f"{endpoint}/stalls", timeout_s=3, queue_spans=64) as client,
    ):
        async with asyncio.timeout(60):
            while (await read_counts(client))["dropped"] == 0:
                answers = await asyncio.gather(*(post(client, ask()) for _ in range(50)))
                assert {response.status_code for response, _ in answers} == {200}


def test_without_the_section_nothing_of_it_is_imported(site: Site) -> None:
    # redis imports OpenTelemetry's API and SDK wherever they are installed
    code = (
        "import sys; from pathlib import Path; from edge.serving import Drain; from router.app import create_app;"
        "from router.config import load_config; create_app(load_config(Path(sys.argv[1])), Drain());"
        "sys.exit(any(name in sys.modules for name in ('opentelemetry.exporter', 'router.tracing')))"
    )
    subprocess.run([sys.executable, "-c", code, str(site.work / "router.yaml")], check=True, timeout=60)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"endpoint": "collector:4318"}, "tracing.endpoint"),
        ({"endpoint": "http://c:4318/v1/traces", "sample_share": 2}, "tracing.sample_share"),
        ({"endpoint": "https://c:4318/v1/traces", "ca_file": "none.pem"}, "tracing.ca_file"),
    ],
)
def test_a_wrong_section_is_one_clear_line(site: Site, tmp_path: Path, settings: dict[str, Any], key: str) -> None:
    config: dict[str, Any] = yaml.safe_load((site.work / "router.yaml").read_text())
    config["tracing"] = settings
    (tmp_path / "router.yaml").write_text(yaml.safe_dump(config))

    with pytest.raises(ConfigError, match=key.replace(".", r"\.")) as caught:
        load_config(tmp_path / "router.yaml")

    assert "\n" not in str(caught.value)
