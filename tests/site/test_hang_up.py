"""Clients that vanish: their work ends, queued or running, streamed or not, through router and target."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from edge.engine.events import Statistics
from loadtests.site import Site, running_site

CLIENTS = 200
SLOTS = 8
ZERO_S = 2.0
STILL_S = 0.5
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 0,
    "max_tokens": 450,
    # a string that long cannot end early, whatever the model would say
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 440}},
    },
}


def make_room(site: Site) -> None:
    """Let all clients wait at the target itself: none of them in a lane."""
    for target in ("edge-demo", "cloud-demo"):
        site.set_lane(target, slots=2 * CLIENTS)
    site.configure("edge", "chat", waiting=CLIENTS)
    site.configure("triton", "chat", slots=SLOTS, backlog=CLIENTS, threads=1)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("roomy"), make_room) as site:
        yield site


def connect(site: Site, body: dict[str, Any]) -> socket.socket:
    """A client that has asked, for work of its own."""
    content = json.dumps(body).encode()
    fields = f"host: x\r\ncache-control: no-store\r\ncontent-length: {len(content)}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    client = socket.create_connection(("127.0.0.1", site.ports.router), timeout=10)
    client.sendall(head + content)
    return client


def wait_arrived(site: Site, tier: str, clients: int, before: Statistics) -> Statistics:
    """Wait until every request has come to the target, and as many as can be are at work."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        now = site.statistics(tier)
        if now.started - before.started + now.waiting == clients and now.active == min(SLOTS, clients):
            return now
        time.sleep(0.01)
    raise AssertionError(f"not all requests came: {now}")


def wait_zero(site: Site, tier: str, limit_s: float) -> float:
    """How long it takes until nothing is active and nothing waits."""
    started = time.monotonic()
    while (now := site.statistics(tier)).active or now.waiting:
        assert time.monotonic() - started < limit_s, f"{now} after {limit_s} s"
        time.sleep(0.002)
    return time.monotonic() - started


def vanish(site: Site, tier: str, clients: int, *, stream: bool) -> float:
    """Clients ask and vanish; returns how long it takes until the target works for none of them."""
    before = site.statistics(tier)
    with ExitStack() as stack:
        body = {**LONG, "model": tier, "stream": stream}
        sockets = [stack.enter_context(connect(site, body)) for _ in range(clients)]
        wait_arrived(site, tier, clients, before)
        if stream:
            assert select.select(sockets, [], [], 5)[0], "nobody is in the middle of a stream"
    took_s = wait_zero(site, tier, limit_s=5)

    zero = site.statistics(tier)
    time.sleep(STILL_S)
    after = site.statistics(tier)
    assert after == zero, "something still runs"
    assert after.cancelled > before.cancelled
    assert after.cancelled - before.cancelled + after.finished - before.finished == clients
    assert after.failed == before.failed
    assert after.started_late == 0
    return took_s


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("clients", [1, CLIENTS])
@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_the_work_of_those_who_vanish_ends_with_them(roomy: Site, tier: str, clients: int, stream: bool) -> None:
    """Nothing may ever run on, and its end not wait for a timeout; how fast it ends is for `make bench-queue`."""
    assert vanish(roomy, tier, clients, stream=stream) <= ZERO_S
