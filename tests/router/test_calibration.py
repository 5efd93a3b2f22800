"""What a calibration rests on: prompts, the journal, and an endpoint that fails."""

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge.engine.settings import ConfigError
from router.calibration.endpoint import Endpoint, Patience, Reply
from router.calibration.errors import CalibrationError, UnansweredError
from router.calibration.journal import Answered, Begun, Journal, Judged, Skipped
from router.calibration.prompts import Question, read_prompts
from router.decision import Tier
from router.query import Finish
from router.scoring.dataset import AnswerToken, Turn
from tests.servers import Receive, Scope, Send, broken, serving

BEGUN = Begun("ab" * 32, "edge", "cloud")
QUESTION = Question("q", (Turn("user", "What is 2 plus 2?"),), "4", "")
RECORDS = (
    Answered("q", Tier.EDGE, "4 é", [AnswerToken("4", -0.5, [("4", -0.5), ("5", -1.5)])], Finish.LENGTH),
    Answered("q", Tier.CLOUD, "5"),
    Judged("q", "exact:1", 1.0, 0.0),
    Skipped("r", "too long"),
)


def test_prompts_get_ids_and_references(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"prompt": "a", "answer": 7}\n\n{"id": 3, "messages": [{"role": "user", "content": "b"}], "domain": "d"}\n'
    )

    prompts = read_prompts(path)

    assert prompts.questions == [
        Question("line-1", (Turn("user", "a"),), "7", ""),
        Question("3", (Turn("user", "b"),), None, "d"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a"}\n{"prompt"', ":2: "),
        ('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}', "occurs twice"),
        ('{"id": "x"}', "either prompt or messages"),
        ("\n", "has no rows"),
    ],
)
def test_wrong_prompts_are_named_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)

    with pytest.raises(ConfigError, match=said) as wrong:
        read_prompts(path)

    assert "\n" not in str(wrong.value)


def write_journal(path: Path) -> None:
    """One with all kinds of records."""
    with Journal(path, BEGUN) as journal:
        for record in RECORDS:
            journal.add(record)


def test_a_journal_knows_what_was_added_before(tmp_path: Path) -> None:
    write_journal(tmp_path / "work" / "journal.jsonl")

    with Journal(tmp_path / "work" / "journal.jsonl", BEGUN) as journal:
        assert journal.answers["q", Tier.EDGE] == RECORDS[0]
        assert journal.judgements["q", "exact:1"] == RECORDS[2]
        assert journal.skip_reason("r", "any") == "too long"
        assert journal.skip_reason("q", "exact:1") is None


@pytest.mark.parametrize("lost", range(1, 40))
def test_a_line_that_a_crash_cut_short_is_dropped_and_the_next_is_whole(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path)
    os.truncate(path, path.stat().st_size - lost)

    with Journal(path, BEGUN) as journal:
        assert journal.skip_reason("r", "any") is None
        assert journal.judgements["q", "exact:1"] == RECORDS[2]
        journal.add(RECORDS[3])

    with Journal(path, BEGUN) as journal:
        assert journal.skip_reason("r", "any") == "too long"


@pytest.mark.parametrize(
    ("begun", "said"),
    [
        (Begun("cd" * 32, "edge", "cloud"), "other prompts"),
        (Begun("ab" * 32, "edge-2", "cloud"), "targets edge and cloud"),
    ],
)
def test_a_journal_of_something_else_is_refused(tmp_path: Path, begun: Begun, said: str) -> None:
    write_journal(tmp_path / "journal.jsonl")

    with pytest.raises(CalibrationError, match=said):
        Journal(tmp_path / "journal.jsonl", begun)


def test_a_damaged_journal_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path)
    path.write_bytes(path.read_bytes().replace(b'"judged"', b'"jugded"'))

    with pytest.raises(CalibrationError, match=r"journal\.jsonl:4: "):
        Journal(path, BEGUN)


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CalibrationError, match="give another --work"):
        Journal(tmp_path / "file" / "journal.jsonl", BEGUN)


def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", BEGUN), pytest.raises(CalibrationError, match="another calibration"):
        Journal(tmp_path / "j", BEGUN)


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        ("full", CalibrationError, "answers 429"),
        ("refuses", CalibrationError, "answers 500"),
        ("babbles", CalibrationError, "cannot read"),
        ("stalls", CalibrationError, "ReadTimeout"),
        ("blames", UnansweredError, "answers 400 .invalid_request_error"),
    ],
)
@pytest.mark.anyio
async def test_a_router_that_fails_is_asked_a_bounded_number_of_times(
    failure: str, error: type[Exception], said: str
) -> None:
    async with serving(broken) as url, httpx.AsyncClient(base_url=f"{url}/{failure}") as client:
        endpoint = Endpoint(client, Patience(attempts=3, first_wait_s=0.05, timeout_s=0.3))
        started = time.monotonic()

        with pytest.raises(error, match=said) as failed:
            await endpoint.ask("edge", QUESTION.turns)

        assert time.monotonic() - started < 5
        assert QUESTION.turns[0].content not in str(failed.value)
        assert "\n" not in str(failed.value)


@pytest.mark.anyio
async def test_nobody_there_is_said_with_the_address() -> None:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1") as client:
        endpoint = Endpoint(client, Patience(attempts=2, first_wait_s=0.01))

        with pytest.raises(CalibrationError, match=r"http://127\.0\.0\.1:1.*cannot be reached.*goes on"):
            await endpoint.ask("edge", QUESTION.turns)


class Grudging:
    """A server that is full twice, refuses log-probabilities, and then answers; it keeps what it was asked."""

    def __init__(self, *, refusals: int) -> None:
        self._refusals = refusals
        self.asked: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        self.asked.append(json.loads(body))
        if len(self.asked) <= self._refusals:
            status, answer = 429, b'{"error":{"message":"full"}}'
        elif self.asked[-1].get("logprobs"):
            status, answer = 400, b'{"error":{"message":"no logprobs here","param":"logprobs"}}'
        else:
            status, answer = 200, b'{"id":"x","choices":[{"index":0,"message":{"content":"4"},"finish_reason":"stop"}]}'
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@pytest.mark.anyio
async def test_a_full_router_is_asked_again_and_logprobs_are_done_without() -> None:
    server = Grudging(refusals=2)
    async with serving(server) as url, httpx.AsyncClient(base_url=url) as client:
        endpoint = Endpoint(client, Patience(first_wait_s=0.01))

        first = await endpoint.ask("edge", QUESTION.turns, logprobs=True)
        again = await endpoint.ask("edge", QUESTION.turns, logprobs=True)

    assert first == again == Reply("4", [], Finish.STOP)
    assert [asked.get("logprobs", False) for asked in server.asked] == [True, True, True, False, False]
    assert {asked["temperature"] for asked in server.asked} == {0}
    assert server.asked[0]["top_logprobs"] == 5
