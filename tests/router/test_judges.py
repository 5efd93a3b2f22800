"""Who says how good an answer is."""

import asyncio
import json
import shlex
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from router.calibration.endpoint import Endpoint
from router.calibration.errors import CalibrationError, UnjudgedError
from router.calibration.judges import CommandJudge, ExactJudge, ModelJudge, normalise, read_grades, write_grading
from router.calibration.prompts import Question
from router.scoring.dataset import Turn
from tests.servers import Receive, Scope, Send, serving

QUESTION = Question("q", (Turn("user", "What is 2 plus 2?"),), "4", "")


@pytest.mark.parametrize(
    ("answer", "reference", "extract", "grade"),
    [
        ("  The CAT. ", "the cat", None, 1),
        ("1,234", "1234", None, 1),
        ("1,23", "123", None, 0),
        ("the cats", "the cat", None, 0),
        ("so 3 it is\n#### 1,200\n", "#### 1200", r"####\s*(.+)", 1),
        ("#### 5 no wait #### 4", "4", r"####\s*(\S+)", 1),
        ("4", "4", r"####\s*(\S+)", 0),
        ("Answer: \uff22", "b", r"Answer: *(.+)", 1),
    ],
)
@pytest.mark.anyio
async def test_the_exact_judge(answer: str, reference: str, extract: str | None, grade: float) -> None:
    question = Question("q", QUESTION.turns, reference, "")

    assert await ExactJudge(extract).grade(question, answer, "never right") == (grade, 0)
    assert await ExactJudge(extract).grade(question, "never right", answer) == (0, grade)


@pytest.mark.anyio
async def test_without_a_reference_there_is_nothing_exact() -> None:
    with pytest.raises(UnjudgedError):
        await ExactJudge().grade(Question("q", QUESTION.turns, None, ""), "a", "b")


def test_a_wrong_regular_expression_is_named() -> None:
    with pytest.raises(CalibrationError, match="--extract"):
        ExactJudge("(")


def test_normalise_keeps_what_matters() -> None:
    assert normalise(' "12,345.5" ') == "12345.5"
    assert normalise("-3") != normalise("3")


def command(code: str, *, timeout_s: float = 20.0) -> CommandJudge:
    """A judge that is a line of Python."""
    return CommandJudge(shlex.join([sys.executable, "-c", code]), timeout_s=timeout_s)


@pytest.mark.anyio
async def test_a_command_reads_json_and_prints_a_number(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    keep = f"open({str(seen)!r}, 'a').write(asked + chr(10))"
    code = f"import sys; asked = sys.stdin.read(); {keep}; print(len(asked) / 1000)"

    grades = await command(code).grade(QUESTION, "four", "x; $(touch y)")

    first, second = seen.read_text().splitlines()
    assert grades == (len(first) / 1000, len(second) / 1000)
    assert json.loads(first) == {
        "prompt": "What is 2 plus 2?",
        "messages": [{"role": "user", "content": "What is 2 plus 2?"}],
        "answer": "four",
        "reference": "4",
    }
    assert json.loads(second)["answer"] == "x; $(touch y)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(1.5)", "number from 0 to 1"),
        ("print('nan')", "number from 0 to 1"),
        ("print('good')", "number from 0 to 1"),
        ("print('9' * 10**6)", "printed without end"),
        ("raise SystemExit(3)", "status 3"),
        ("import time; time.sleep(60)", "longer than 1 s"),
    ],
)
@pytest.mark.anyio
async def test_a_command_that_does_not_judge_is_named(code: str, said: str) -> None:
    started = time.monotonic()

    with pytest.raises(CalibrationError, match=said):
        await command(code, timeout_s=1.0 if "sleep" in code else 20.0).grade(QUESTION, "a", "b")

    assert time.monotonic() - started < 15


@pytest.mark.anyio
async def test_a_slow_command_is_killed_with_all_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, time; "
        f"open({str(child)!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid)); time.sleep(60)"
    )

    with pytest.raises(CalibrationError, match="longer than"):
        await command(code, timeout_s=2.0).grade(QUESTION, "a", "b")

    pid = int(child.read_text())
    end = time.monotonic() + 5
    while not _is_gone(pid):  # the kernel takes its time on a busy machine
        assert time.monotonic() < end, "it still runs"
        await asyncio.sleep(0.05)


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.anyio
async def test_a_command_that_ignores_its_input_may() -> None:
    grades = await command("print(1)").grade(QUESTION, "a" * 1_000_000, "b")

    assert grades == (1, 1)


@pytest.mark.anyio
async def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(CalibrationError, match="absent-judge cannot be run"):
        await CommandJudge("absent-judge", timeout_s=1).grade(QUESTION, "a", "b")
    with pytest.raises(CalibrationError, match="is empty"):
        CommandJudge(" ", timeout_s=1)


@pytest.mark.parametrize(
    ("reply", "grades"),
    [
        ("A: 7 B: 4", (7, 4)),
        ("**A: 10**, **B: 0**", (10, 0)),
        ("A: 10, B: 0.5", (10, 0.5)),
        ("A=3\nB=9", (3, 9)),
        ("A: 11 B: 3", None),
        ("A: 7", None),
        ("I am the bundled demo model.", None),
    ],
)
def test_grades_are_two_numbers_or_none(reply: str, grades: tuple[float, float] | None) -> None:
    assert read_grades(reply) == grades


def test_a_grading_prompt_shows_all_in_order_and_is_bounded() -> None:
    asked = write_grading(QUESTION, "first" * 10_000, "second")

    assert asked.index("2 plus 2") < asked.index("Answer A:\nfirst") < asked.index("Answer B:\nsecond")
    assert "A correct answer:\n4" in asked
    assert len(asked) < 20_000


async def prefer_the_first(scope: Scope, receive: Receive, send: Send) -> None:
    """A judge that is broken as judge models are: it likes whatever stands first."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    body = b'{"id":"x","choices":[{"index":0,"message":{"content":"A: 9 B: 4"},"finish_reason":"stop"}]}'
    await send({"type": "http.response.body", "body": body})


@pytest.mark.anyio
async def test_both_orders_undo_a_judges_liking_for_the_first() -> None:
    async with serving(prefer_the_first) as url, httpx.AsyncClient(base_url=url) as client:
        grades = await ModelJudge(Endpoint(client), "any").grade(QUESTION, "4", "5")

    assert grades == pytest.approx((0.65, 0.65))
