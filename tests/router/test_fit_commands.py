"""`hybrid fit`, `score` and `evaluate` on small labelled files, through the command line."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.demo import ROOT
from loadtests.site import STORE
from router.cli import main
from router.scoring.artifact import load_artifact

pytestmark = pytest.mark.timeout(400)  # a fit takes seconds, on a busy machine a minute
Spoil = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
_WORDS = ["apples", "boats", "clocks", "doors", "eggs", "forks", "goats", "hats", "inks", "jars", "keys", "lamps"]


def rows(count: int, seed: int) -> list[dict[str, object]]:
    """Sums: the cloud gains on long numbers, mostly; two domains."""
    rng = random.Random(seed)
    made: list[dict[str, object]] = []
    for number in range(count):
        digits = rng.randint(1, 4)
        first, second = (rng.randint(10 ** (digits - 1), 10**digits - 1) for _ in range(2))
        edge = rng.random() < (0.95 if digits < 3 else 0.2)
        made.append(
            {
                "id": f"{seed}-{number}",
                "prompt": f"How many {rng.choice(_WORDS)} are {first} and {second} {rng.choice(_WORDS)}?",
                "domain": rng.choice(["stock", "farm"]),
                "weak_correct": int(edge),
                "strong_correct": int(rng.random() < 0.95),
            }
        )
    return made


def answers(data: list[dict[str, object]], seed: int) -> list[dict[str, object]]:
    """The edge is unsure of its wrong answers."""
    rng = random.Random(seed)
    made: list[dict[str, object]] = []
    for row in data:
        doubt = rng.uniform(0, 0.4) if row["weak_correct"] else rng.uniform(0.2, 2.0)
        made.append(
            {
                "id": row["id"],
                "weak_answer": "It is 12.",
                "tokens": [
                    {"token": "It is ", "logprob": -0.01, "top": [["It is ", -0.01], ["No", -5.0]]},
                    {"token": "12.", "logprob": -doubt, "top": [["12.", -doubt], ["13.", -doubt - 0.3]]},
                ],
            }
        )
    return made


def write(path: Path, lines: list[dict[str, object]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(*arguments: object) -> Result:
    """One call, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels to fit on, fresh ones, and an artifact of text features with a check."""
    folder = tmp_path_factory.mktemp("fit")
    for name, count, seed in (("seen", 300, 1), ("fresh", 200, 2)):
        data = rows(count, seed)
        write(folder / f"{name}.jsonl", data)
        write(folder / f"{name}.answers.jsonl", answers(data, seed))
    done = run(*fit_command(folder, folder / "pair.score.json"))
    assert done.exit_code == 0, done.output
    return folder


def fit_command(folder: Path, out: Path) -> list[object]:
    """A fit without the embedding."""
    return [
        *("fit", "--data", folder / "seen.jsonl", "--answers", folder / "seen.answers.jsonl", "--out", out),
        *("--no-embedding", "--pair", "small < large", "--license", "ours"),
    ]


def test_an_artifact_says_what_it_was_fitted_on_and_how_good_it_is(folder: Path) -> None:
    artifact = load_artifact(folder / "pair.score.json")

    assert [(one.name, one.rows) for one in artifact.provenance.files] == [
        ("seen.jsonl", 300),
        ("seen.answers.jsonl", 300),
    ]
    assert (artifact.provenance.pair, artifact.provenance.license) == ("small < large", "ours")
    assert artifact.embedding is None
    metrics = artifact.metrics
    assert metrics["query.apgr_low"] < metrics["query.apgr"] < metrics["query.apgr_high"]
    assert 0.6 < metrics["query.apgr"] < metrics["check.apgr"]
    assert metrics["check.brier_skill_low"] > 0
    assert sum(one.rows for one in artifact.reliability) == 300


def test_what_it_says_is_what_it_is_worth_on_fresh_rows(folder: Path) -> None:
    stated = load_artifact(folder / "pair.score.json").metrics

    found = evaluate(folder, "fresh", "--answers", folder / "fresh.answers.jsonl")

    assert found["known_rows"] == 0
    apgr = found["quality"]["apgr"]
    assert stated["check.apgr_low"] < apgr["value"] < stated["check.apgr_high"]
    assert found["evidence"] == {"answer": 200}
    assert found["above_length"]["low"] > 0


def test_noise_is_stated_as_noise_even_where_prompts_repeat(folder: Path) -> None:
    rng = random.Random(6)
    noise = [row | {"weak_correct": int(rng.random() < 0.5), "strong_correct": 1} for row in rows(150, 6)]
    data = write(folder / "noise.jsonl", [row | {"id": f"{row['id']}-{k}"} for row in noise for k in range(2)])
    out = folder / "noise.score.json"

    done = run("fit", "--data", data, "--out", out, "--no-embedding", "--folds", 3)

    assert done.exit_code == 0, done.output
    metrics = load_artifact(out).metrics
    assert metrics["query.apgr"] < 0.57
    assert metrics["query.brier_skill"] < 0.03


def evaluate(folder: Path, name: str, *more: object) -> Any:
    """`hybrid evaluate --json`."""
    given = ["--artifact", folder / "pair.score.json", "--data", folder / f"{name}.jsonl"]
    done = run("evaluate", *given, "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_same_files_give_the_same_artifact(folder: Path) -> None:
    again = folder / "again.score.json"

    assert run(*fit_command(folder, again)).exit_code == 0

    assert again.read_bytes() == (folder / "pair.score.json").read_bytes()


def test_scores_name_their_evidence_and_come_in_the_order_of_the_rows(folder: Path) -> None:
    given = ["--artifact", folder / "pair.score.json", "--data", folder / "fresh.jsonl"]

    asked = run("score", *given, "--out", folder / "asked")
    checked = run("score", *given, "--answers", folder / "fresh.answers.jsonl", "--out", folder / "checked")

    assert (asked.exit_code, checked.exit_code) == (0, 0)
    first, second = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()] for name in ("asked", "checked")
    )
    assert [one["id"] for one in first] == [row["id"] for row in rows(200, 2)]
    assert {one["evidence"] for one in first} == {"features"}
    assert {one["evidence"] for one in second} == {"answer"}
    assert all(0 <= one["score"] <= 1 for one in first + second)


class Page(HTMLParser):
    """What a report consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element, and whatever it would load."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]

    def handle_data(self, data: str) -> None:
        """Text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(" ".join(self.words).split())


def report(folder: Path, name: str) -> Page:
    """The page of one evaluation."""
    data, out = folder / f"{name}.jsonl", folder / f"{name}.html"
    done = run("evaluate", "--artifact", folder / "pair.score.json", "--data", data, "--out", out)
    assert done.exit_code == 0, done.output
    page = Page()
    page.feed(out.read_text())
    return page


def test_the_report_needs_nothing_else_and_shows_everything(folder: Path) -> None:
    page = report(folder, "fresh")

    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("svg") >= 2
    assert page.tags.count("path") >= 6
    for said in ("95% band", "prompt length alone", "random", "oracle", "Reliability", "farm", "Worst regrets"):
        assert said in page.text
    assert "10% to the cloud" in page.text
    assert "95% of the cloud's quality" in page.text
    assert "Fitted on these rows" not in page.text


def test_rows_that_the_fit_saw_are_called_so_in_red(folder: Path) -> None:
    assert "Fitted on these rows: the artifact saw 300 of these 300 rows" in report(folder, "seen").text
    assert evaluate(folder, "seen")["known_rows"] == 300


def test_prompts_are_shortened_and_escaped(folder: Path) -> None:
    data = rows(60, 3)
    for row in data:
        row["prompt"] = f"<script>alert(1)</script> & {row['prompt']} " + "and so on " * 100
    write(folder / "hostile.jsonl", data)

    page = report(folder, "hostile")

    assert "script" not in page.tags
    assert "<script>alert(1)</script> & How many" in page.text
    assert "and so on " * 20 not in page.text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:30], "30 labelled rows are too few; give at least 50"),
        (
            lambda data: [row | {"weak_correct": 1} for row in data],
            "the cloud is better on only 0 of",
        ),
        (lambda data: [row | {"weak_correct": -1} for row in data], "the edge is as good on only 0"),
        (lambda data: data + data[:1], "occurs twice"),
        (lambda data: [row | {"prompt": ""} for row in data], "neither prompt nor messages"),
        (lambda data: [{"id": "x"}], "missing required field"),
        (lambda data: [], "has no rows"),
    ],
)
def test_labels_that_teach_nothing_are_refused_in_one_line(folder: Path, spoil: Spoil, said: str) -> None:
    data, out = write(folder / "bad.jsonl", spoil(rows(100, 4))), folder / "bad.score.json"

    done = run("fit", "--data", data, "--out", out, "--no-embedding")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_rows_without_a_gap_cannot_be_evaluated(folder: Path) -> None:
    data = write(folder / "level.jsonl", [row | {"weak_correct": 1} for row in rows(60, 5)])
    out = folder / "level.html"

    done = run("evaluate", "--artifact", folder / "pair.score.json", "--data", data, "--out", out)

    assert done.exit_code == 1
    assert "no gap to recover" in done.stderr
    assert not out.exists()


def test_answers_of_other_rows_are_refused(folder: Path) -> None:
    done = run(
        *("fit", "--data", folder / "fresh.jsonl", "--answers", folder / "seen.answers.jsonl"),
        *("--out", folder / "x", "--no-embedding"),
    )

    assert done.exit_code == 1
    assert "has no answer to any row" in done.stderr


def test_a_store_without_the_embedding_is_named_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    done = run("fit", "--data", folder / "seen.jsonl", "--out", folder / "x", "--store", tmp_path)

    assert done.exit_code == 1
    assert "hybrid models pull all-minilm-l6-v2-fast" in done.stderr


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    done = run(
        *("score", "--artifact", folder / "pair.score.json", "--data", folder / "fresh.jsonl"),
        *("--out", folder / "absent" / "scores.jsonl"),
    )

    assert done.exit_code == 1
    assert "absent/scores.jsonl: cannot be written" in done.stderr


def test_ctrl_c_ends_a_fit_with_130_and_leaves_nothing(folder: Path) -> None:
    out = folder / "stopped" / "pair.score.json"
    out.parent.mkdir()
    command = [sys.executable, "-m", "router", *map(str, fit_command(folder, out))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    assert "300 rows" in process.stderr.readline()

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert said.splitlines()[-1] == "Stopped; nothing was written."
    assert "Traceback" not in said
    assert list(out.parent.iterdir()) == []


def test_with_the_embedding_the_text_counts_and_auto_uses_it_where_it_matters(folder: Path) -> None:
    artifact = folder / "embedded.score.json"
    given = ["--store", STORE, "--data"]
    fitted = run("fit", *given, folder / "seen.jsonl", "--out", artifact, "--folds", 2)
    assert fitted.exit_code == 0, fitted.output

    def scored(use: str, threshold: float) -> list[Any]:
        out = folder / f"{use}.scores"
        options = ["--artifact", artifact, "--out", out, "--use-embedding", use, "--threshold", threshold]
        done = run("score", *given, folder / "fresh.jsonl", *options)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in out.read_text().splitlines()]

    never = scored("never", 0.5)
    somebodys = sorted(one["score"] for one in never)[100]
    auto, always = scored("auto", somebodys), scored("always", 0.5)

    assert {one["evidence"] for one in never} == {"features"}
    assert {one["evidence"] for one in always} == {"embedding"}
    assert {one["evidence"] for one in auto} == {"features", "embedding"}
    for row, cheap, dear in zip(auto, never, always, strict=True):
        expected = dear if row["evidence"] == "embedding" else cheap
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
    identity = load_artifact(artifact).embedding
    assert identity is not None
    assert identity.name == "all-minilm-l6-v2-fast"


@pytest.mark.parametrize("command", ["fit", "score", "evaluate", "calibrate"])
def test_help_has_examples(command: str) -> None:
    done = run(command, "--help")

    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"hybrid {command} " in done.output
