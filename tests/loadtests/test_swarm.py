"""Short runs against a real site: every shape, both loops, workers, and the ways in which a run must fail."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from deploy.demo import ROOT
from loadtests.ports import free_port
from loadtests.site import Site
from loadtests.swarm.arrivals import draw_scheduled
from loadtests.swarm.cli import main
from loadtests.swarm.measures import Measure, measure
from loadtests.swarm.record import RECORDS, SCENARIO, Form, Origin
from loadtests.swarm.run import ABOUT, Crew, Run, generator, make_run
from loadtests.swarm.scenario import Answers, Closed, Model, Open, Scenario, Urgency
from loadtests.swarm.shapes import AnyShape, Diurnal, Overload, Ramp, Soak, Spike, Steady
from router.query import Priority
from tests.servers import broken, serving

SHAPES: list[AnyShape] = [
    Steady(duration_s=2),
    Ramp(duration_s=2),
    Spike(duration_s=2, peak=4, part=0.2),
    Diurnal(duration_s=2, days=1),
    Soak(duration_s=2),
    Overload(duration_s=2, factor=2),
]
EVERY_FORM = {Form.CHAT: 1.0, Form.STREAM: 1.0, Form.EMBEDDING: 0.5}


def make_scenario(**changes: Any) -> Scenario:
    """Two seconds of easy chats, unless said otherwise."""
    known: dict[str, Any] = {
        "summary": "short",
        "arrival": Open(rate_per_s=8),
        "shape": Steady(duration_s=2),
        "questions": {Origin.EASY: 1.0},
    }
    return Scenario(**{**known, **changes})


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_every_shape_asks_what_was_drawn_when_it_was_drawn(shape: AnyShape, site: Site, tmp_path: Path) -> None:
    scenario = make_scenario(shape=shape, forms=EVERY_FORM)
    run = make_run(scenario, site.url, tmp_path)
    assert [one.due for one in run.records] == pytest.approx(draw_scheduled(scenario).tolist(), abs=1e-3)
    assert {one.status for one in run.records} == {200}
    assert all(one.sent >= one.due - 1e-3 for one in run.records)
    assert {one.tier for one in run.records} <= {"edge", "cloud"}
    assert measure(Measure.ACCURACY, run.table) > 0.5
    for one in run.records:
        if one.form is Form.STREAM:
            assert one.first is not None
            assert one.sent <= one.first <= one.ended


def test_streams_are_timed(site: Site, tmp_path: Path) -> None:
    """The cloud's model shows its working: many pieces, with time between them."""
    scenario = make_scenario(
        forms={Form.STREAM: 1.0}, models={Model.CLOUD: 1.0}, answers=Answers(cached=False), questions={Origin.HARD: 1.0}
    )
    run = make_run(scenario, site.url, tmp_path)
    for one in run.records:
        assert one.first is not None
        assert one.gap_ms is not None
        assert one.longest_gap_ms is not None
        assert one.sent < one.first < one.ended
        assert 0 < one.gap_ms <= one.longest_gap_ms <= (one.ended - one.first) * 1e3 + 1e-3


def test_closed_loop_keeps_its_users_busy(site: Site, tmp_path: Path) -> None:
    scenario = make_scenario(arrival=Closed(users=4), forms=EVERY_FORM, answers=Answers(cached=False))
    run = make_run(scenario, site.url, tmp_path)
    table = run.table
    assert table.answered.all()
    assert max(((table.sent <= at) & (table.ended > at)).sum() for at in table.sent) == 4
    assert {one.form for one in run.records} == set(Form)
    assert set(table.cache) == {"bypass"}


@pytest.mark.parametrize("arrival", [Open(rate_per_s=8), Closed(users=4)], ids=["open", "closed"])
def test_workers_share_the_load(arrival: Open | Closed, site: Site, tmp_path: Path) -> None:
    scenario = make_scenario(arrival=arrival)
    run = make_run(scenario, site.url, tmp_path, crew=Crew(workers=2))
    assert [one.worker for one in run.strains] == [0, 1]
    for worker in (0, 1):
        numbers = [one.number for one in run.records if one.worker == worker]
        assert numbers
        assert all(number % 2 == worker for number in numbers)
    if isinstance(arrival, Open):
        assert [one.due for one in run.records] == pytest.approx(draw_scheduled(scenario).tolist(), abs=1e-3)


def test_workers_come_from_elsewhere(site: Site, tmp_path: Path) -> None:
    crew = Crew(remote=1, port=free_port())
    command = [sys.executable, "-m", "loadtests.swarm", "work", f"127.0.0.1:{crew.port}"]
    working = subprocess.Popen(command, cwd=ROOT)
    try:
        run = make_run(make_scenario(), site.url, tmp_path, crew=crew)
        assert working.wait(30) == 0
    finally:
        working.kill()
    assert run.about.workers == 1
    assert run.table.answered.all()


def test_priorities_and_deadlines_reach_the_router(site: Site, tmp_path: Path) -> None:
    """A deadline of a millisecond is hardly ever kept, and the router says so; who has none is answered."""
    urgencies = {Priority.INTERACTIVE: Urgency(deadline_ms=1), Priority.BATCH: Urgency()}
    scenario = make_scenario(priorities=urgencies, answers=Answers(cached=False))
    table = make_run(scenario, site.url, tmp_path).table
    urgent, patient = (table.only({"priority": one.value}) for one in urgencies)
    assert len(urgent) > 0
    assert len(patient) > 0
    assert measure(Measure.EXPIRED_SHARE, urgent) >= 0.5  # where nothing ran for a while, both may be over at once
    assert patient.answered.all()


def test_duplicates_come_from_the_cache(site: Site, tmp_path: Path) -> None:
    scenario = make_scenario(questions={Origin.EASY: 1.0, Origin.DUPLICATE: 1.0}, seed=77)
    table = make_run(scenario, site.url, tmp_path).table
    assert measure(Measure.CACHED_SHARE, table.only({"origin": "duplicate"})) > 0.5
    # new questions may meet an answer to another
    assert measure(Measure.CACHED_SHARE, table.only({"origin": "easy"})) < 0.5


def test_wrong_answers_are_counted(site: Site, tmp_path: Path) -> None:
    """Every answer is broken off after one token; the same questions were answered well before."""
    scenario = make_scenario(answers=Answers(cached=False))
    broken_off = msgspec.structs.replace(scenario, answers=Answers(cached=False, max_tokens=1))
    well, badly = (make_run(one, site.url, tmp_path / str(n)) for n, one in enumerate((scenario, broken_off)))
    assert measure(Measure.ACCURACY, well.table) > 0.6
    assert measure(Measure.ACCURACY, badly.table) < 0.3
    assert badly.table.answered.all()


def start(scenario: Scenario, url: str, folder: Path) -> "subprocess.Popen[bytes]":
    """A generator that can be hindered."""
    (folder / SCENARIO).write_bytes(msgspec.json.encode(scenario))
    return subprocess.Popen(generator("--folder", str(folder), "--url", url), cwd=ROOT)


def test_late_generator_is_told_and_latency_counts_from_the_schedule(site: Site, tmp_path: Path) -> None:
    scenario = make_scenario(arrival=Open(rate_per_s=10, even=True), shape=Steady(duration_s=4))
    make_run(make_scenario(shape=Steady(duration_s=0.5)), site.url, tmp_path)  # leaves what a run says of itself
    process = start(scenario, site.url, tmp_path)
    try:
        while not (tmp_path / f"{RECORDS}.partial").exists():
            time.sleep(0.05)
        time.sleep(1.5)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        assert process.wait(40) == 0
    finally:
        process.kill()
    run = Run.read(tmp_path)
    table = run.table
    assert len(table) == 40
    # twelve were due while it stood still; each waited for the rest of the pause, whatever the router took
    assert (table.late_ms > 100).sum() >= 8
    assert table.late_ms.max() > 1000
    assert table.latency_ms.max() > 1000
    assert table.latency_ms == pytest.approx(table.late_ms + (table.ended - table.sent) * 1e3)
    assert any("late" in line for line in run.complaints())


def test_full_generator_is_told(site: Site, tmp_path: Path) -> None:
    """One request at a time is too few for a burst: the others wait in the generator, and that counts."""
    burst = Open(rate_per_s=200, most_in_flight=1)
    scenario = make_scenario(arrival=burst, shape=Steady(duration_s=0.5), answers=Answers(cached=False))
    run = make_run(scenario, site.url, tmp_path)
    assert len(run.records) == len(draw_scheduled(scenario))
    assert (np.diff(np.sort(run.table.sent)) > 0).all()
    assert run.table.late_ms.max() > 50
    assert (run.table.latency_ms >= run.table.late_ms).all()
    assert any("raise most_in_flight" in line for line in run.complaints())


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("refuses", 500, '"no"'),
        ("full", 429, "full"),
        ("breaks", 0, ""),
        ("mutters", 0, "lost it"),
        ("stalls", 0, "2 s"),
    ],
)
async def test_broken_answers_are_no_answers(path: str, status: int, told: str, tmp_path: Path) -> None:
    scenario = make_scenario(
        arrival=Open(rate_per_s=20),
        shape=Steady(duration_s=0.3),
        forms={Form.STREAM: 1.0},
        answers=Answers(deadline_s=2),
    )
    async with serving(_below(path)) as url:
        run = await asyncio.to_thread(make_run, scenario, url, tmp_path)
    assert len(run.records) == len(draw_scheduled(scenario))
    assert {one.status for one in run.records} == {status}
    assert all(told in one.error for one in run.records)
    assert not any(one.right for one in run.records)
    assert all(one.ended - one.sent < 15 for one in run.records)  # the server stalls for 30


def _below(path: str) -> Any:
    """The broken server with a path of its choice."""

    async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await broken({**scope, "path": f"/{path}/v1/chat/completions"}, receive, send)

    return serve


def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, as a person starts it."""
    command = [sys.executable, "-m", "loadtests.swarm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def write_scenario(path: Path, objectives: str) -> str:
    """A scenario of two seconds."""
    path.write_text(
        "summary: short.\n"
        "arrival: {kind: open, rate_per_s: 5}\n"
        "shape: {kind: steady, duration_s: 2}\n"
        f"objectives: {objectives}\n"
    )
    return str(path)


def test_objectives_decide_the_exit_status(site: Site, tmp_path: Path) -> None:
    good = write_scenario(tmp_path / "good.yaml", "[{measure: failed_share, most: 0}]")
    done = invoke("run", good, "--url", site.url, "--out", str(tmp_path / "good"))
    assert done.returncode == 0, done.stderr
    assert "holds" in done.stdout
    bad = write_scenario(
        tmp_path / "bad.yaml", "[{measure: failed_share, most: 0}, {measure: latency_p50_ms, most: 0.01}]"
    )
    done = invoke("run", bad, "--url", site.url, "--out", str(tmp_path / "bad"))
    assert done.returncode == 1, done.stderr
    assert "DOES NOT HOLD" in done.stdout
    names = {path.name for path in (tmp_path / "bad").iterdir()}
    assert names == {ABOUT, SCENARIO, RECORDS, "strain.json", "report.html", "figures.csv"}
    assert "does not hold" in (tmp_path / "bad" / "report.html").read_text()
    compared = invoke("compare", str(tmp_path / "good"), str(tmp_path / "bad"))
    assert compared.returncode == 0, compared.stderr
    assert "latency_p50_ms" in compared.stdout


def test_wrong_use_is_told_in_one_line(tmp_path: Path) -> None:
    wrong = write_scenario(tmp_path / "wrong.yaml", "[{measure: accuracy}]")
    for arguments, told in (
        (["run", wrong], "give `most` or `least`"),
        (["run", "nothing"], "no such scenario"),
        (["compare", str(tmp_path), str(tmp_path)], "folder of a finished run"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert told in done.output
        assert done.output.count("\n") == 1


def test_demo_site_without_models_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.swarm", "run", "steady", "--out", str(tmp_path)]
    empty = {**os.environ, "HYBRID_MODELS": str(tmp_path / "nothing")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=empty)
    assert done.returncode == 2
    assert "the demo site did not start" in done.stderr
    assert "hybrid models pull" in done.stderr
    assert done.stderr.count("\n") == 1


def test_generator_without_workers_gives_up(tmp_path: Path) -> None:
    (tmp_path / SCENARIO).write_bytes(msgspec.json.encode(make_scenario()))
    port = str(free_port())
    command = generator("--folder", str(tmp_path), "--workers", "1", "--join-s", "1", "--port", port)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "1 workers did not connect" in done.stderr
    assert not (tmp_path / RECORDS).exists()


def test_help_has_examples() -> None:
    for arguments in (["--help"], ["run", "--help"]):
        assert "python -m loadtests.swarm run spike" in CliRunner().invoke(main, arguments).output
    listed = CliRunner().invoke(main, ["list"]).output
    assert "overload" in listed
