"""Parts that stop, die and come back while the router runs."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest

from edge.wire import ErrorBody
from loadtests.site import Site, running_site

PART = {"edge": "edge-demo", "triton": "cloud-demo"}
TIER = {"edge": "edge", "triton": "cloud"}
OTHER = {"edge": "cloud", "triton": "edge"}
EASY, HARD = "What is 3 plus 4?", "What is 4817 minus 3956?"


@pytest.fixture(scope="module")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("own-site")) as site:
        yield site


def post(site: Site, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """A chat request."""
    body = {"model": "auto", "messages": [{"role": "user", "content": EASY}], "temperature": 0, **body}
    return httpx.post(f"{site.url}/v1/chat/completions", json=body, headers=headers or {}, timeout=20)


@contextmanager
def stopped(site: Site, part: str) -> Iterator[None]:
    """The body runs without one part, which is back when it ends."""
    assert site.stop(part) == 0
    try:
        site.wait_target(PART[part], up=False)
        yield
    finally:
        site.start(part)
        site.wait_target(PART[part], up=True)


@pytest.mark.parametrize("part", ["edge", "triton"])
def test_the_other_tier_answers_for_a_stopped_one_and_says_so(own_site: Site, part: str) -> None:
    with stopped(own_site, part):
        answered = post(own_site, messages=[{"role": "user", "content": EASY if part == "edge" else HARD}])
        wished = post(own_site, {"x-route": TIER[part]})
        labelled = post(own_site, {"x-data-label": "edge-only"})
    again = post(own_site, {"x-route": TIER[part]})

    assert answered.status_code == 200
    assert answered.headers["x-route-tier"] == OTHER[part]
    assert answered.headers["x-degraded"] == answered.headers["x-route-reason"] == "fallback"
    assert wished.status_code == 503
    assert wished.json()["error"]["code"] == "backend_unavailable"
    assert PART[part] in wished.json()["error"]["message"]
    assert labelled.status_code == (503 if part == "edge" else 200)
    assert again.status_code == 200
    assert "x-degraded" not in again.headers


@pytest.mark.parametrize("part", ["edge", "triton"])
def test_killing_a_part_under_load_gives_errors_not_silence(own_site: Site, part: str) -> None:
    stop = threading.Event()
    killed_at: list[float] = []

    def hammer(stream: bool) -> list[str]:
        complaints = []
        while not stop.is_set():
            started = time.monotonic()
            complaint = check_answer(own_site, TIER[part], stream=stream)
            ended = time.monotonic()
            if killed_at and ended - max(started, killed_at[0]) > 2:
                complaint = complaint or f"took {ended - started:.1f} s after the kill"
            if complaint:
                complaints.append(complaint)
        return complaints

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(hammer, bool(i % 2)) for i in range(8)]
        try:
            time.sleep(1.0)
            own_site.kill(part)
            killed_at.append(time.monotonic())
            time.sleep(1.5)
        finally:
            stop.set()  # or the pool would wait for its threads forever
        complaints = [complaint for one in running for complaint in one.result(timeout=30)]

    assert complaints == []
    own_site.start(part)
    own_site.wait_target(PART[part], up=True)
    assert post(own_site, {"x-route": TIER[part]}).status_code == 200


def check_answer(site: Site, tier: str, *, stream: bool) -> str | None:
    """What is wrong with an answer's form, if anything: whole JSON, or a stream that ends in [DONE] or an error."""
    try:
        response = post(site, model=tier, stream=stream, messages=[{"role": "user", "content": HARD}])
    except httpx.HTTPError as exc:
        return f"no answer at all: {exc!r}"
    if response.status_code == 200 and stream:
        if response.text.endswith("data: [DONE]\n\n"):
            return None
        last = response.text.strip().split("\n\n")[-1]
        if last.startswith("event: error\ndata: "):
            msgspec.json.decode(last.removeprefix("event: error\ndata: "), type=ErrorBody)
            return None
        return f"a stream ended with {last!r}"
    try:
        body = response.json()
    except ValueError:
        return f"half an answer: {response.text!r}"
    if response.status_code == 200:
        return None if body["choices"] else "no choices"
    return None if body["error"]["message"] else "an empty error"
