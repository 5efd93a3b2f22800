"""
Fits the demo's score on the pair's own results: both models answer training questions, and the router's linear scorer
learns where the cloud was right and the edge was not.

    python -m loadtests.pair.fit_score --out deploy/sites/demo/pair.score.json
"""

from pathlib import Path

import click
import msgspec
from click._termui_impl import ProgressBar

from edge.models.store import Store
from loadtests.pair.answers import answer_all
from loadtests.pair.questions import Question, Split, generate, is_correct
from router.scoring.fit import Label, fit_linear

SEED = 20_011


@click.command(context_settings={"show_default": True})
@click.option(
    "--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the pair's artifacts are."
)
@click.option("--count", default=8000, help="Questions to label.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The artifact to write.")
def main(store: Path, count: int, out: Path) -> None:
    """Label questions with both models and fit the score."""
    questions = list(generate(SEED, count, Split.TRAIN))
    right = {}
    for name in ("demo-edge", "demo-cloud"):
        with click.progressbar(length=count, label=f"{name} answers") as bar:
            right[name] = _ask(Store(store).find(name), questions, bar)
        click.echo(f"{name}: {sum(right[name]) / count:.3f} right")
    labels = [
        Label(question.messages[-1][1], gained=cloud and not edge)
        for question, edge, cloud in zip(questions, right["demo-edge"], right["demo-cloud"], strict=True)
    ]
    artifact = fit_linear(labels, pair="demo-edge < demo-cloud", progress=click.echo)
    partial = out.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(artifact), indent=1))
    partial.replace(out)
    click.echo(f"{out}: {artifact.rows} rows, {len(artifact.grams)} n-grams, {out.stat().st_size} bytes")


def _ask(artifact: Path, questions: list[Question], bar: "ProgressBar[int]") -> list[bool]:
    replies = answer_all(artifact, questions, progress=lambda n: bar.update(n - bar.pos))
    return [is_correct(question, reply.text) for question, reply in zip(questions, replies, strict=True)]


if __name__ == "__main__":
    main()
