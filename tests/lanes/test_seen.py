"""Lanes as operators see them: the endpoint, the metrics, `hybrid top`."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from edge.serving import Drain
from router.admission import digest
from router.app import create_app
from router.cli import main
from router.config import load_config
from tests.servers import broken, serving

pytestmark = pytest.mark.anyio

CONFIG = """
keys_file: keys.yaml
targets:
  shop: {{backend: openai, tier: edge, url: "{url}/refuses", chat_model: m, embedding_model: e, lane: {{slots: 3}}}}
"""
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
OPERATOR, CLIENT = {"authorization": "Bearer op"}, {"authorization": "Bearer ann"}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    keys = f"{digest('op')}: {{tenant: ops, operator: true}}\n{digest('ann')}: {{tenant: ann}}\n"
    (tmp_path / "keys.yaml").write_text(keys)
    async with serving(broken) as target:
        (tmp_path / "router.yaml").write_text(CONFIG.format(url=target))
        async with serving(create_app(load_config(tmp_path / "router.yaml"), Drain())) as url:
            yield url


async def test_operators_see_every_lane_and_nobody_else_does(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/chat/completions", json=HELLO, headers=CLIENT)).status_code == 502
        refused = await client.get("/v1/lanes", headers=CLIENT)
        report = (await client.get("/v1/lanes", headers=OPERATOR)).json()
        metrics = (await client.get("/metrics")).text

    assert refused.status_code == 403
    assert [(lane["target"], lane["kind"], lane["now"]["slots"]) for lane in report["lanes"]] == [
        ("shop", "chat", 3),
        ("shop", "embedding", 16),
    ]
    chat = report["lanes"][0]["now"]
    assert (chat["running"], chat["backlog"]) == (0, 0)
    assert chat["classes"]["standard"]["count"]["started"] == 1
    assert report["targets"] == {"shop": True}
    labels = 'kind="chat",outcome="started",priority="standard",target="shop"'
    assert f"hybrid_lane_requests_total{{{labels}}} 1.0" in metrics
    assert "hybrid_pressure_shift 0.0" in metrics
    assert 'hybrid_lane_slots{kind="chat",target="shop"} 3.0' in metrics
    assert 'hybrid_lane_wait_seconds_count{kind="chat",priority="standard",target="shop"} 1.0' in metrics


async def test_top_prints_once(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        await client.post("/v1/chat/completions", json=HELLO, headers=CLIENT)

    def run(key: str) -> Result:
        return CliRunner().invoke(main, ["top", "--once", "--url", url, "--key", key])

    shown = await asyncio.to_thread(run, "op")
    refused = await asyncio.to_thread(run, "ann")

    assert shown.exit_code == 0, shown.output
    head, lane, standard = shown.output.splitlines()[:3]
    assert head.split()[:4] == ["lane", "up", "run", "wait"]
    assert lane.split() == ["shop", "chat", "yes", "0/3", "0"]
    assert standard.split()[0] == "standard"
    assert "\x1b" not in shown.output
    assert refused.exit_code == 1
    assert "operator" in refused.output


async def test_top_ends_on_ctrl_c_and_leaves_the_terminal_as_it_was(url: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "router", "top", "--url", url, "--key", "op", "--every-s", "0.1"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as process:  # noqa: ASYNC220 - reading is in a thread
        os.close(theirs)

        def read() -> bytes:
            said = b""
            while said.count(b"\x1b[J") < 3:
                said += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            try:
                while piece := os.read(ours, 4096):
                    said += piece
            except OSError:  # the other end is closed
                pass
            return said

        said = await asyncio.wait_for(asyncio.to_thread(read), 30)
        status = process.wait(10)
    os.close(ours)

    assert status == 0
    assert b"Traceback" not in said
    assert said.startswith(b"\x1b[?1049h")
    assert said.rstrip().endswith(b"\x1b[?1049l")
