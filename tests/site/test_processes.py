"""Several processes of one router on one port: what holds over all of them together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy.demo import ROOT
from loadtests.bench_streams import open_streams
from loadtests.cores.servers import Router, asked, configure, counts, running_router, running_upstream, up
from loadtests.cores.traffic import URL, ask, complain, questions
from loadtests.cores.upstream import Pace

TOKENS = 8
BURST = 40


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def ask_number(router: Router, number: int, key: int = 0, **more: Any) -> httpx.Response:
    """Over a connection of its own, so that chance chooses the process."""
    body = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": f"No. {number}"}], **more}
    headers = {"authorization": f"Bearer {router.keys[key]}"}
    return httpx.post(router.url + URL, json=body, headers=headers, timeout=30, trust_env=False, verify=False)


def ask_operator(router: Router, path: str, method: str = "GET") -> Any:
    headers = {"authorization": f"Bearer {router.keys[0]}"}
    answer = httpx.request(method, router.url + path, headers=headers, timeout=30, trust_env=False, verify=False)
    return answer.raise_for_status().json()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_upstream(tmp_path_factory.mktemp("upstream"), Pace(TOKENS, whole_s=0.05, every_s=0.1)) as port:
        yield port


@pytest.fixture(scope="module")
def router(upstream: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "cache").mkdir()
    quotas = {"tenants": {"tenant-1": {"requests_per_min": 60, "burst_s": BURST}}}
    tiers = {"disk": {"folder": str(folder / "cache")}}
    with running_router(folder, upstream, tenants=2, processes=2, quotas=quotas, cache={"tiers": tiers}) as running:
        yield running


def test_a_tenants_quota_holds_over_both_and_is_not_halved(router: Router) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: ask_number(router, 1000 + n, key=1).status_code, range(4 * BURST)))
    took_s = time.monotonic() - begun

    served = counts(router, "hybrid_quota_refusals_total")
    assert BURST <= statuses.count(200) <= BURST + took_s + 1
    assert statuses.count(429) == len(statuses) - statuses.count(200)
    assert len(served) == 2, "only one process refused: the connections never reached the other"


def test_answers_are_right_whichever_process_gives_them(router: Router) -> None:
    before = counts(router, "hybrid_requests_total")
    source = questions(range(20_000, 20_300), tokens=TOKENS, keys=router.keys[:1], stream_every=10)
    outcome = ask(router.port, source, connections=32, limit_s=60)

    assert complain(outcome, 300) is None
    more = {index: count - before.get(index, 0.0) for index, count in counts(router, "hybrid_requests_total").items()}
    assert sum(more.values()) == 300
    assert min(more.values()) > 0


def test_slots_are_divided(router: Router) -> None:
    slots = counts(router, "hybrid_lane_slots")
    lanes = ask_operator(router, "/v1/lanes")["lanes"]

    assert set(slots.values()) == {2 * 2048.0}  # of both targets, in each process
    assert [lane["now"]["slots"] for lane in lanes] == [4096, 4096]


def test_equal_questions_are_generated_at_most_once_a_process(router: Router, upstream: int) -> None:
    before = asked(upstream)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: ask_number(router, 777_777), range(24)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert 1 <= asked(upstream) - before <= 2


def test_statistics_are_of_all_and_a_flush_reaches_all(router: Router, upstream: int) -> None:
    for number in range(30_000, 30_040):
        ask_number(router, number)
    tiers = {tier["tier"]: tier for tier in ask_operator(router, "/v1/cache")["tiers"]}
    by_process = counts(router, "hybrid_cache_entries")
    flushed = ask_operator(router, "/v1/cache", "DELETE")["records"]
    left = {tier["tier"]: tier["entries"] for tier in ask_operator(router, "/v1/cache")["tiers"]}
    before = asked(upstream)
    again = [ask_number(router, number).headers["x-cache"] for number in range(30_000, 30_040)]

    assert tiers["memory"]["entries"] >= 40
    assert len(by_process) == 2
    assert min(by_process.values()) > 0
    assert flushed["memory"] >= 40
    assert left["memory"] == 0
    assert set(again) == {"miss"}
    assert asked(upstream) - before == 40


def test_one_that_dies_is_missing_for_a_moment_only_and_a_flush_meanwhile_says_so(router: Router) -> None:
    router.workers()[1].kill()
    headers = {"authorization": f"Bearer {router.keys[0]}"}
    flush = httpx.delete(f"{router.url}/v1/cache", headers=headers, timeout=30, trust_env=False, verify=False)
    meanwhile = [ask_number(router, 40_000 + n).status_code for n in range(20)]

    wait_for(lambda: up(router) == 2, 30, "the restarted process answers")

    assert flush.status_code == 503
    assert "did not answer" in flush.json()["error"]["message"]
    assert meanwhile == [200] * 20
    assert "ended with status -9; restarting it in 0.5 s." in router.log.read_text()
    assert ask_operator(router, "/v1/cache", "DELETE")["records"]


def test_one_that_is_asked_to_stop_does_so_and_comes_back(router: Router) -> None:
    os.kill(router.workers()[0].pid, signal.SIGTERM)
    wait_for(lambda: "ended with status 0; restarting it" in router.log.read_text(), 10, "it stopped")
    meanwhile = [ask_number(router, 50_000 + n).status_code for n in range(20)]

    wait_for(lambda: up(router) == 2, 30, "it answers again")

    assert meanwhile == [200] * 20


def test_a_stop_lets_streams_of_both_end(upstream: int, tmp_path: Path) -> None:
    with running_router(tmp_path, upstream, processes=2) as router:
        timer = threading.Timer(0.6, router.process.terminate)
        timer.start()
        streams = open_streams(router, range(16), TOKENS, 30)
        timer.join()
        router.process.wait(20)

    assert (streams.exact, streams.wrong) == (16, [])


def test_none_outlives_the_parent(upstream: int, tmp_path: Path) -> None:
    path, _, port = configure(tmp_path, upstream, processes=2)
    command = [sys.executable, "-m", "router", "serve", "--config", str(path)]
    scratch = {**os.environ, "TMPDIR": str(tmp_path)}  # what a killed parent leaves there goes with the test
    parent = subprocess.Popen(command, cwd=ROOT, env=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(psutil.Process(parent.pid).children()) == 2, 30, "both processes run")
    children = psutil.Process(parent.pid).children()
    wait_for(lambda: is_up(f"http://127.0.0.1:{port}"), 30, "both are ready")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)

    gone, alive = psutil.wait_procs(children, timeout=20)

    assert (len(gone), alive) == (2, [])


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/metrics", timeout=2, trust_env=False).text.count("hybrid_process_up{") == 2
    except httpx.HTTPError:
        return False


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    path, _, _ = configure(tmp_path, 1, processes=2, scoring={"artifact": str(tmp_path / "router.yaml")})
    command = [sys.executable, "-m", "router", "serve", "--config", str(path)]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert ended.stderr.count("Error: ") == 1
