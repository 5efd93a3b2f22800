"""
Labels questions with both models of the pair, in the rows that `hybrid fit` and `hybrid score` read.

    python -m loadtests.pair.label --split train --seed 20011 --count 12000 --out .bench/pair

writes `pair.jsonl` and `pair.answers.jsonl` (the edge's answers with their log-probabilities); `domain` is the kind.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from edge.engine.answer import TokenLogprobs
from edge.models.store import Store
from loadtests.pair.answers import Reply, answer_all
from loadtests.pair.questions import Question, Split, generate, is_correct
from router.evaluation.files import write_lines
from router.query import Finish
from router.scoring.dataset import AnswerRow, AnswerToken, Row, Turn

TOP_LOGPROBS = 5


def label(store: Path, questions: Sequence[Question], name: str) -> tuple[list[Row], list[AnswerRow]]:
    """Ask both models; `name` begins every id."""
    shelf = Store(store)
    edge = _ask("demo-edge answers", shelf.find("demo-edge"), questions, logprobs=TOP_LOGPROBS)
    cloud = _ask("demo-cloud answers", shelf.find("demo-cloud"), questions)
    rows, answers = [], []
    for index, (question, weak, strong) in enumerate(zip(questions, edge, cloud, strict=True)):
        rows.append(
            Row(
                id=f"{name}-{index:05}",
                messages=[Turn(role, content) for role, content in question.messages],
                domain=question.kind,
                weak_correct=float(is_correct(question, weak.text)),
                strong_correct=float(is_correct(question, strong.text)),
            )
        )
        answers.append(
            AnswerRow(
                id=f"{name}-{index:05}",
                weak_answer=weak.text,
                tokens=[_token(token) for token in weak.tokens],
                finish=Finish(weak.finish.value),
            )
        )
    return rows, answers


def _ask(title: str, artifact: Path, questions: Sequence[Question], *, logprobs: int | None = None) -> list[Reply]:
    with click.progressbar(length=len(questions), label=title) as bar:
        return answer_all(artifact, questions, logprobs=logprobs, progress=lambda n: bar.update(n - bar.pos))


def _token(place: TokenLogprobs) -> AnswerToken:
    top = [(one.text, round(one.logprob, 5)) for one in place.top]
    return AnswerToken(place.chosen.text, round(place.chosen.logprob, 5), top)


@click.command(context_settings={"show_default": True})
@click.option(
    "--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the pair's artifacts are."
)
@click.option(
    "--split", type=click.Choice([split.value for split in Split]), default="train", help="Which wordings to use."
)
@click.option("--seed", default=20_011, help="Which questions.")
@click.option("--count", default=12_000, help="How many.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write into.")
def main(store: Path, split: str, seed: int, count: int, out: Path) -> None:
    """Label questions with both models."""
    questions = list(generate(seed, count, Split(split)))
    rows, answers = label(store, questions, f"{split}-{seed}")
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / "pair.jsonl", rows)
    write_lines(out / "pair.answers.jsonl", answers)
    weak, strong = (sum(getattr(row, key) for row in rows) / count for key in ("weak_correct", "strong_correct"))
    click.echo(f"{out}: {count} rows, edge {weak:.3f}, cloud {strong:.3f}")


if __name__ == "__main__":
    main()
