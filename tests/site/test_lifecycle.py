"""Clients that leave, routers that stop, and how much memory the parts take."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from deploy.demo import ROOT
from loadtests.ports import free_port
from loadtests.site import Site

LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 0,
    "n": 16,
    "max_tokens": 450,
    # a string that long cannot end early, whatever the model would say
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 440}},
    },
}


def wait_for(condition: Any, limit_s: float, what: str) -> float:
    """How long it took."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        if condition():
            return time.monotonic() - started
        time.sleep(0.01)
    raise AssertionError(f"not within {limit_s} s: {what}")


@contextmanager
def router_beside(site: Site, work: Path, **limits: float) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Another router over the same targets, with its own limits."""
    config = yaml.safe_load((site.work / "router.yaml").read_text())
    config["limits"] = limits
    config["listen"]["port"] = port = free_port()
    (work / "router.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "router", "serve", "--config", str(work / "router.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: is_ready(url), 30, "the router is ready")
        yield process, url
    finally:
        process.kill()
        process.wait(10)


def is_ready(url: str) -> bool:
    """Whether a router is ready with both targets."""
    try:
        return all(httpx.get(f"{url}/health/ready", timeout=2).json()["targets"].values())
    except httpx.HTTPError:
        return False


def read_stream(url: str, started: threading.Event) -> str:
    """A long stream, to its end."""
    received = []
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={**LONG, "model": "cloud", "stream": True}, timeout=60
    ) as r:
        for text in r.iter_text():
            received.append(text)
            started.set()
    return "".join(received)


def stop_while_streaming(process: "subprocess.Popen[bytes]", url: str) -> tuple[str, int, int]:
    """SIGTERM in the middle of a stream: what the stream got, readiness meanwhile, exit status."""
    started = threading.Event()
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(read_stream(url, started)))
    reader.start()
    assert started.wait(20)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    ready = httpx.get(f"{url}/health/ready", timeout=5).status_code
    reader.join(40)
    return texts[0], ready, process.wait(20)


def test_sigterm_lets_a_stream_finish_and_exits_0(site: Site, tmp_path: Path) -> None:
    with router_beside(site, tmp_path, drain_s=30) as (process, url):
        text, ready, status = stop_while_streaming(process, url)

    assert text.endswith("data: [DONE]\n\n")
    assert (ready, status) == (503, 0)


def test_a_stream_over_the_drain_limit_ends_with_an_error_event(site: Site, tmp_path: Path) -> None:
    with router_beside(site, tmp_path, drain_s=1.5) as (process, url):
        text, ready, status = stop_while_streaming(process, url)

    last = text.strip().split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.split("data: ", 1)[1])["error"]["code"] == "draining"
    assert (ready, status) == (503, 0)


def test_memory_stays_within_what_a_small_box_has(site: Site) -> None:
    for _ in range(20):
        for model in ("edge", "cloud"):
            httpx.post(f"{site.url}/v1/embeddings", json={"model": model, "input": ["some words"] * 8}, timeout=20)
            body = {"model": model, "messages": [{"role": "user", "content": "What is 3 plus 4?"}]}
            httpx.post(f"{site.url}/v1/chat/completions", json=body, timeout=20)

    resident_mb = {name: psutil.Process(site.pid(name)).memory_info().rss / 1e6 for name in ("edge", "router")}

    assert resident_mb["edge"] < 400
    assert resident_mb["router"] < 250


def test_a_busy_port_is_one_line_and_exit_status_1(site: Site, tmp_path: Path) -> None:
    config = site.work / "router.yaml"

    result = subprocess.run(
        [sys.executable, "-m", "router", "serve", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )

    assert result.returncode == 1
    assert f"{site.ports.router}" in result.stderr.splitlines()[-1]
