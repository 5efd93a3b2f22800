"""`hybrid calibrate` on the running demo: labels are paid for once, whatever happens to the process."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo import ROOT
from loadtests.pair.questions import Question, Split, generate, is_correct
from loadtests.site import STORE, Site
from router.evaluation.labels import read_labels
from router.scoring.artifact import load_artifact

SEED = 4_711
FINAL_ANSWER = r"(?s)\A(?:.*Answer:)?(.+)\Z"
_LIMIT_S = 240.0


def questions(count: int) -> list[Question]:
    """Fresh ones, of training wordings: nothing is reported on them."""
    return list(generate(SEED, count, Split.TRAIN))


def write_prompts(path: Path, asked: Sequence[Question]) -> Path:
    """As a user would have them."""
    lines = [
        {
            "id": f"q{number}",
            "messages": [{"role": role, "content": content} for role, content in question.messages],
            "answer": question.answer,
            "domain": question.kind,
        }
        for number, question in enumerate(asked)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Run:
    """One folder with prompts, work and artifact, and the command that uses them."""

    def __init__(self, site: Site, folder: Path, asked: Sequence[Question]) -> None:
        self.prompts = write_prompts(folder / "prompts.jsonl", asked)
        self.out = folder / "own.score.json"
        self.work = folder / "work"
        self.journal = self.work / "journal.jsonl"
        self._site = site

    def command(self, *more: str) -> list[str]:
        """`hybrid calibrate` with what every test gives."""
        given = {"--url": self._site.url, "--prompts": self.prompts, "--out": self.out, "--work": self.work}
        given |= {"--store": STORE, "--extract": FINAL_ANSWER}
        options = [str(part) for option in given.items() for part in option]
        return [sys.executable, "-m", "router", "calibrate", *options, *more]

    def go(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """To the end."""
        return subprocess.run(
            self.command(*more), capture_output=True, text=True, timeout=_LIMIT_S, cwd=ROOT, check=False
        )

    def interrupt(self, signum: signal.Signals, *, after_lines: int) -> tuple[int, str]:
        """Begin, wait until so much is paid for, send a signal; returns the status and stderr."""
        process = subprocess.Popen(self.command(), stderr=subprocess.PIPE, text=True, cwd=ROOT)
        end = time.monotonic() + _LIMIT_S
        while process.poll() is None and self.lines() < after_lines:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be interrupted"
        process.send_signal(signum)
        _, said = process.communicate(timeout=30)
        return process.returncode, said

    def lines(self) -> int:
        """Of the journal."""
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    def records(self) -> Iterator[dict[str, str]]:
        """Of the journal, without its first line."""
        return map(json.loads, self.journal.read_text().splitlines()[1:])

    def answered(self) -> list[tuple[str, str]]:
        """Which answers were asked for, in order."""
        return [(one["id"], one["tier"]) for one in self.records() if one["type"] == "answered"]


@pytest.mark.timeout(400)
def test_own_prompts_become_an_artifact_and_labels(site: Site, tmp_path: Path) -> None:
    asked = questions(160)
    run = Run(site, tmp_path, asked)

    done = run.go("--license", "ours")

    assert done.returncode == 0, done.stderr
    assert "APGR" in done.stdout
    labels = read_labels([run.work / "calibration.jsonl"], [run.work / "calibration.answers.jsonl"])
    assert [row.id for row in labels.rows] == [f"q{number}" for number in range(160)]
    for question, row, answer in zip(asked, labels.rows, labels.answers, strict=True):
        assert answer is not None
        assert row.weak_correct == is_correct(question, answer.text)
        assert len(answer.logprobs) >= 1
        assert all(len(token.top) == 5 for token in answer.logprobs)
    assert 0 < labels.sample.edge.mean() < labels.sample.cloud.mean()
    assert load_artifact(run.out).check is not None
    assert not [question for question in asked if question.messages[-1][1] in done.stdout + done.stderr]


def test_a_killed_run_goes_on_without_asking_again(site: Site, tmp_path: Path) -> None:
    run = Run(site, tmp_path, questions(40))

    status, _ = run.interrupt(signal.SIGKILL, after_lines=20)
    paid = run.answered()
    with run.journal.open("ab") as journal:
        journal.write(b'{"type":"answered","id":"q39","ti')  # as a crash in the middle of a write leaves it
    done = run.go()

    assert status == -signal.SIGKILL
    assert len(paid) >= 8
    assert run.answered()[: len(paid)] == paid
    assert len(run.answered()) == len(set(run.answered())) == 80
    assert done.returncode == 1
    assert "40 labelled rows are too few; give at least 50" in done.stderr
    assert not run.out.exists()


def test_ctrl_c_stops_with_130_and_says_how_to_go_on(site: Site, tmp_path: Path) -> None:
    run = Run(site, tmp_path, questions(40))

    status, said = run.interrupt(signal.SIGINT, after_lines=6)

    assert status == 130
    assert said.splitlines()[-1] == "Stopped; run the same command again to go on."
    assert "Traceback" not in said
    assert not run.out.exists()
    assert len(run.answered()) == len(set(run.answered())) < 80


def test_other_prompts_in_the_same_work_are_noticed(site: Site, tmp_path: Path) -> None:
    asked = questions(4)
    run = Run(site, tmp_path, asked)
    run.go()
    write_prompts(run.prompts, asked[::-1])

    done = run.go()

    assert done.returncode == 1
    assert "was begun with other prompts" in done.stderr


def test_more_prompts_of_the_same_file_and_another_judge_ask_only_what_is_new(site: Site, tmp_path: Path) -> None:
    run = Run(site, tmp_path, questions(6))

    run.go("--limit", "2")
    first = run.answered()
    run.go()
    second = run.answered()
    judged = run.go("--judge", "command", "--judge-command", shlex.join([sys.executable, "-c", "print(1)"]))

    assert len(first) == 4
    assert second[:4] == first
    assert len(second) == 12
    assert run.answered() == second
    labels = read_labels([run.work / "calibration.jsonl"])
    assert [(row.weak_correct, row.strong_correct) for row in labels.rows] == [(1, 1)] * 6
    assert judged.returncode == 1


def test_references_that_nobody_meets_are_one_sided(site: Site, tmp_path: Path) -> None:
    asked = [replace(question, answer="nobody says this") for question in questions(52)]
    run = Run(site, tmp_path, asked)

    done = run.go("--max-tokens", "4", "--concurrency", "8")

    assert done.returncode == 1
    assert "one-sided labels: the cloud is better on only 0 of 52 rows" in done.stderr
    assert not run.out.exists()


def test_a_judge_model_that_does_not_grade_is_said_plainly(site: Site, tmp_path: Path) -> None:
    run = Run(site, tmp_path, questions(3))

    done = run.go("--judge", "model", "--judge-model", "cloud")

    assert done.returncode == 1
    assert "3 of 3 prompts left out: cloud did not grade it as asked" in done.stderr
    assert "no prompt could be used" in done.stderr


def test_a_prompt_that_a_target_refuses_is_left_out(site: Site, tmp_path: Path) -> None:
    asked = questions(3)
    run = Run(site, tmp_path, asked)
    longest = replace(asked[0], messages=(("user", "word " * 20_000),))
    write_prompts(run.prompts, [*asked, longest])

    done = run.go()

    assert "1 of 4 prompts left out: edge answers 400" in done.stderr
    assert len(read_labels([run.work / "calibration.jsonl"]).rows) == 3
    assert "word word" not in done.stderr


def test_prompts_that_the_judge_cannot_judge_cost_nothing(site: Site, tmp_path: Path) -> None:
    run = Run(site, tmp_path, questions(3))
    run.prompts.write_text('{"prompt": "What is 3 plus 4?"}\n')

    done = run.go()

    assert done.returncode == 1
    assert "1 of 1 prompts left out: no `answer` in the row to compare with" in done.stderr
    assert run.answered() == []


def test_a_router_that_is_not_there_is_named(site: Site, tmp_path: Path) -> None:
    run = Run(site, tmp_path, questions(2))
    command = run.command()
    command[command.index("--url") + 1] = "http://127.0.0.1:1/v9"

    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, cwd=ROOT, check=False)

    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
