"""Lanes before the real targets: bounds that reject, classes that do not starve, hang-ups that leave nothing behind."""

import asyncio
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack
from math import ceil
from typing import Any

import httpx
import pytest

from loadtests.site import Site, running_site
from tests.site.test_hang_up import LONG, connect

pytestmark = pytest.mark.anyio

SLOTS, BACKLOG, CLIENTS = 4, 30, 200
TARGETS = {"edge": "edge-demo", "cloud": "cloud-demo"}
ZERO_S, STILL_S = 2.0, 0.5
REFILLED = 20
"""Tokens, in the time of a short answer."""
URL = "/v1/chat/completions"


def narrow(site: Site) -> None:
    """Fewer slots than the targets have: whoever waits, waits in the lane."""
    site.set_lane("edge-demo", slots=SLOTS, backlog=BACKLOG)
    # a crowd that no target could serve in time must not be refused for that: it is there to vanish
    site.set_lane("cloud-demo", slots=SLOTS, backlog=CLIENTS, aging_s=3600)
    site.configure("router", "limits", deadline_s=3600)
    # room for all of these tests, and a refill of ten tokens a second
    site.configure("router", "quotas", default={"tokens_per_min": 600, "burst_s": 86_400})


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("lanes"), narrow) as site:
        yield site


def body(number: int, tokens: int, model: str = "edge") -> dict[str, Any]:
    """An answer of just so many tokens, near enough, that no other request shares."""
    schema = {"name": "long", "schema": {"type": "string", "minLength": tokens}}
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"Hello {number}"}],
        "temperature": 0,
        "max_tokens": tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


async def ask_all(
    site: Site, bodies: list[tuple[dict[str, Any], dict[str, str]]]
) -> list[tuple[httpx.Response, float]]:
    """All at once; each answer, and when it was there."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=site.url, timeout=60, limits=limits) as client:

        async def ask(content: dict[str, Any], headers: dict[str, str]) -> tuple[httpx.Response, float]:
            answer = await client.post(URL, json=content, headers=headers)
            return answer, time.monotonic()

        return list(await asyncio.gather(*(ask(*one) for one in bodies)))


async def test_backlog_and_slots_and_one_more_at_once_are_exactly_one_429(lanes: Site) -> None:
    before = lanes.statistics("edge")
    bodies = [(body(n, 150), {"cache-control": "no-store"}) for n in range(BACKLOG + SLOTS + 1)]
    answers = [answer for answer, _ in await ask_all(lanes, bodies)]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 1
    assert [answer.status_code for answer in answers].count(200) == BACKLOG + SLOTS
    wait_ms = int(refused[0].headers["retry-after-ms"])
    assert refused[0].headers["retry-after"] == str(ceil(wait_ms / 1000))
    assert refused[0].json()["error"]["code"] == "overloaded"
    assert lanes.statistics("edge").started - before.started == BACKLOG + SLOTS
    queued_ms = sorted(float(a.headers["x-queue-ms"]) for a in answers if a.status_code == 200)
    assert queued_ms[SLOTS - 1] < queued_ms[SLOTS]
    assert queued_ms[-1] > 50
    overhead_ms = [float(a.headers["x-overhead-ms"]) for a in answers if a.status_code == 200]
    assert max(overhead_ms) < queued_ms[-1], "waiting is counted as the router's own time"


async def test_batch_waits_for_interactive_work_but_not_for_all_of_it(lanes: Site) -> None:
    """With a backlog of interactive work throughout, batch gets about its share, and interactive work most."""
    urgent = [(body(n, 100), {"x-priority": "interactive", "cache-control": "no-store"}) for n in range(24)]
    patient = [(body(n, 100), {"x-priority": "batch", "cache-control": "no-store"}) for n in range(100, 104)]
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ask_all(lanes, urgent))
        while (await asyncio.to_thread(lanes.lane, "edge-demo")).backlog < len(urgent) // 2:
            assert not first.done()
        later = await ask_all(lanes, patient)
    answers = [*first.result(), *later]

    assert all(answer.status_code == 200 for answer, _ in answers)
    urgent_ends = sorted(at for _, at in first.result())
    patient_ends = sorted(at for _, at in later)
    assert patient_ends[0] < urgent_ends[-1], "batch starved until the last interactive answer was there"
    assert urgent_ends[len(urgent) // 2] < patient_ends[-1], "batch went before interactive work"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_vanishes_from_slot_or_backlog_leaves_nothing_in_lane_or_target(lanes: Site, stream: bool) -> None:
    before = lanes.statistics("cloud")
    with ExitStack() as stack:
        asked = {**LONG, "model": "cloud", "stream": stream}
        sockets = [stack.enter_context(connect(lanes, asked)) for _ in range(CLIENTS)]
        end = time.monotonic() + 10
        answered = lanes.statistics("cloud").finished - before.finished
        while (now := lanes.lane("cloud-demo")).running + now.backlog + answered < CLIENTS:
            answered = lanes.statistics("cloud").finished - before.finished
            assert time.monotonic() < end, f"not all requests came: {now}"
            time.sleep(0.01)
        assert now.running == SLOTS
        if stream:
            assert select.select(sockets, [], [], 5)[0], "nobody is in the middle of a stream"
        assert lanes.statistics("cloud").active <= SLOTS
    left = time.monotonic()
    while (now := lanes.lane("cloud-demo")).running or now.backlog or lanes.statistics("cloud").active:
        assert time.monotonic() - left < ZERO_S, f"{now} still there"
        time.sleep(0.002)

    zero = lanes.statistics("cloud")
    time.sleep(STILL_S)
    assert lanes.statistics("cloud") == zero, "something still runs"
    assert zero.started - before.started < CLIENTS / 2, "work began for those who were gone"
    assert zero.started_late == 0


async def test_a_quota_is_settled_by_what_the_target_used_and_a_hit_costs_nothing(lanes: Site) -> None:
    asked = {**body(9000, 150), "max_tokens": 400, "response_format": {"type": "text"}}

    def left(answer: httpx.Response) -> int:
        return int(answer.headers["x-ratelimit-remaining-tokens"])

    async with httpx.AsyncClient(base_url=lanes.url, timeout=60) as client:

        async def look() -> int:
            return left(await client.post("/v1/route", json=asked))

        before = await look()
        made = await client.post(URL, json=asked)
        after = await look()
        hit = await client.post(URL, json=asked)
        last = await look()

    used = made.json()["usage"]["total_tokens"]
    assert 0 < used < 200
    assert made.headers["x-cache"] == "miss"
    assert hit.headers["x-cache"] == "hit"
    assert left(made) < before - used, "the estimate is taken while the request is under way"
    assert used - REFILLED <= before - after <= used
    assert -REFILLED <= after - last <= 0
