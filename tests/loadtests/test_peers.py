"""`loadtests/peers` without its peers: the upstream, the bodies, the arithmetic, and a contestant that dies."""

import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import httpx
import msgspec
import pytest
from openai import OpenAI

from deploy.demo import ROOT
from loadtests.peers.arena import fetch, opened
from loadtests.peers.bars import judge
from loadtests.peers.bodies import Body, make_bodies, request_head, write_lua
from loadtests.peers.cases import DISPATCH
from loadtests.peers.comparison import Spread, compare_differences, compare_ratios
from loadtests.peers.contestants import BARE_DISPATCH, LITELLM, ROUTER, VLLM, Contestant, Place, Start
from loadtests.peers.environments import peers
from loadtests.peers.latency import ask_on_schedule, draw_arrivals, is_whole
from loadtests.peers.plot import draw
from loadtests.peers.run import play
from loadtests.peers.tables import write_markdown
from loadtests.peers.upstream import CHUNKS, MODEL, WORD, Asked
from loadtests.peers.wrk import Wrk
from loadtests.ports import free_port
from loadtests.processes import Cores, ProcessError, serving

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: apt-get install wrk)")
_DYING = """
import os, runpy, sys, threading
threading.Timer({after_s}, os._exit, (3,)).start()
print("about to fail", flush=True)
sys.argv = ["upstream", "{port}"]
runpy.run_module("loadtests.peers.upstream", run_name="__main__")
"""


@pytest.fixture(name="port")
def upstream_port(tmp_path: Path) -> Iterator[int]:
    """The upstream's, while it runs."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.peers.upstream", str(port)]
    with serving("upstream", command, cores={Cores.choose().load}, folder=tmp_path) as upstream:
        upstream.wait_ready(f"http://127.0.0.1:{port}/health", 30)
        yield port


def test_upstream_speaks_to_the_official_client(port: int) -> None:
    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Which?"}]}
        whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
        assert whole.choices[0].message.content == WORD * 8
        assert whole.choices[0].finish_reason == "stop"
        chunks = list(client.chat.completions.create(**asked, stream=True))  # type: ignore[call-overload]
    assert [chunk.choices[0].delta.content for chunk in chunks] == [WORD] * CHUNKS
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (CHUNKS - 1) + ["stop"]
    counted = httpx.get(f"http://127.0.0.1:{port}/asked").content
    assert msgspec.json.decode(counted, type=Asked) == Asked(whole=1, streams=1)


def test_every_chunk_of_a_stream_is_written_by_itself(port: int) -> None:
    """HTTP's chunks are as many as events, and do not arrive together."""
    body = b'{"stream":true}'
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request_head(len(body), {}) + body)
        received, pieces = b"", 0
        while not is_whole(received):
            received += connection.recv(65_536)
            pieces += 1
    content = received.partition(b"\r\n\r\n")[2]
    assert len(re.findall(rb"(?:^|\r\n)[0-9a-f]+\r\ndata: ", content)) == CHUNKS
    assert pieces > CHUNKS / 2


def test_upstream_reads_a_request_in_parts_and_refuses_one_without_a_length(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-le", b"ngth: 4\r\n\r", b"\n{", b"}  "):
            connection.sendall(part)
            time.sleep(0.02)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert fetch(port, b"POST /v1/chat/completions HTTP/1.1\r\n\r\n{}").startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize("least", [0, 8192])
def test_distinct_bodies_are_distinct(least: int) -> None:
    bodies = make_bodies(40, least_characters=least)
    filled = [body.fill(number) for number in range(3) for body in bodies]
    assert len(set(filled)) == len(filled)
    for body, content in zip(bodies, filled, strict=False):
        assert len(content) == body.length >= least
    prompts = {msgspec.json.decode(content)["messages"][-1]["content"] for content in filled}
    assert len(prompts) == len(filled)
    assert [body.fill(7) for body in make_bodies(40, least_characters=least)] == [body.fill(7) for body in bodies]


@needs_wrk
def test_wrk_sends_the_bodies_as_they_are(tmp_path: Path) -> None:
    """A turn's first request, read by a plain socket; wrk has asked the script for another before, to look at."""
    body = Body(b'{"a":"', '\\n\\u00e4 ]] -- \\"ä"}'.encode())
    write_lua(tmp_path / "bodies.lua", [body], {"x-more": "yes"})
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def read_one() -> None:
            listener.accept()[0].close()  # wrk looks whether somebody is there
            with listener.accept()[0] as connection:
                received.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                time.sleep(1.5)

        with ThreadPoolExecutor() as threads:
            reading = threads.submit(read_one)
            load = Wrk.find(Cores.choose().load).load(
                url, tmp_path / "bodies.lua", first=1_234, step=1, connections=1, for_s=1
            )
            reading.result()
    assert received == [request_head(body.length, {"x-more": "yes"}) + body.fill(1_235)]
    assert load.answers == 1


def test_ratios_pair_the_repeats() -> None:
    """Each repeat with its own: the ratio of the medians would be 1 here."""
    found = compare_ratios([1.0, 2.0, 6.0], [2.0, 1.0, 2.0])
    assert found == Spread(2.0, 0.5, 3.0)
    assert f"{found:.1f}" == "2.0 [0.5, 3.0]"
    assert compare_differences([1.0, 5.0], [0.5, 1.0]) == Spread(2.25, 0.5, 4.0)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_ratios_without_a_pair_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"spread|longer|shorter|nothing"):
        compare_ratios(ours, theirs)


def test_open_load_counts_from_the_schedule(port: int) -> None:
    arrivals = draw_arrivals(100, 0.5, seed=3)
    assert arrivals == draw_arrivals(100, 0.5, seed=3)
    assert all(earlier < later for earlier, later in pairwise(arrivals))
    timings = ask_on_schedule(port, bodies=make_bodies(4, stream=True), arrivals=arrivals, first=0, headers={})
    assert (len(timings.whole_ms), timings.failed) == (len(arrivals), 0)
    for first_ms, whole_ms, late_ms in zip(timings.first_ms, timings.whole_ms, timings.late_ms, strict=True):
        assert 0 <= late_ms < first_ms
        assert whole_ms - first_ms > CHUNKS  # a tick is 2 ms


def test_who_dies_at_the_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no luck today')"]
    with (
        serving("unlucky", command, cores={Cores.choose().load}, folder=tmp_path) as process,
        pytest.raises(ProcessError, match="unlucky stopped with status 1: no luck today"),
    ):
        process.wait_ready("http://127.0.0.1:1/", 30)


def test_nothing_of_a_process_is_left(tmp_path: Path) -> None:
    """Also where it ignores SIGTERM, and has a child."""
    code = "import signal, subprocess; signal.signal(15, signal.SIG_IGN); subprocess.run(['sleep', '60'])"
    with serving("stubborn", [sys.executable, "-c", code], cores={Cores.choose().load}, folder=tmp_path) as process:
        end = time.monotonic() + 10
        while len(pids := list(process.pids())) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(pids) == 2
    end = time.monotonic() + 10
    while any(map(_is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(_is_alive, pids))


def _is_alive(pid: int) -> bool:
    """Not one that only waits for its new parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_wrk
def test_who_dies_between_turns_is_named_and_the_others_go_on() -> None:
    def prepare(place: Place) -> Start:
        code = _DYING.format(after_s=4, port=place.port)
        return Start([sys.executable, "-c", code], f"{place.url}/health")

    dying = Contestant(VLLM.name, prepare)
    absent = Contestant(LITELLM.name, _say_absent)
    said: list[str] = []
    with opened((BARE_DISPATCH, dying, absent), said.append) as arena:
        time.sleep(2)
        results = play(arena, [DISPATCH.name], repeats=2, turn_s=2, say=said.append)
    assert results.missing == {LITELLM.name: "it is somewhere else", VLLM.name: results.missing[VLLM.name]}
    assert results.missing[VLLM.name] == "vllm-router stopped with status 3: about to fail"
    assert [name for _, name in results.turns] == [BARE_DISPATCH.name]
    turns = results.turns[DISPATCH.name, BARE_DISPATCH.name]
    assert len(turns) == 2
    for turn in turns:
        assert turn.load.errors.all == 0
        assert turn.asked >= turn.load.answers > 0
        assert turn.server_cpu_s > 0
    rows = {row.name: row for row in judge(results, frozenset({DISPATCH.name}), frozenset({ROUTER.name, VLLM.name}))}
    assert not rows[f"dispatch: {ROUTER.name} / {VLLM.name}, requests/s"].holds
    assert rows["vllm-router takes no part"].value == results.missing[VLLM.name]
    assert "vllm-router took no part: vllm-router stopped with status 3" in write_markdown(results, list(rows.values()))


def _say_absent(place: Place) -> Start:
    raise ProcessError("it is somewhere else")


def test_every_peer_is_pinned_with_digests() -> None:
    assert peers() == ["litellm", "sglang-router", "vllm-router"]
    for name in peers():
        text = (ROOT / "loadtests/peers/requirements" / f"{name}.txt").read_text()
        pinned_lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
        assert pinned_lines
        assert all("==" in line for line in pinned_lines)
        assert text.count("--hash=sha256:") >= len(pinned_lines)
        assert "://" not in text


def test_plot_is_xml_with_every_name() -> None:
    drawn = draw(
        "<title> & more", [("fast & furious", Spread(1000.0, 900.0, 1200.0)), ("slow", Spread(9.0, 8.0, 11.0))]
    )
    texts = [element.text for element in ElementTree.fromstring(drawn).iter() if element.text]
    assert {"<title> & more", "fast & furious", "slow"} <= set(texts)
