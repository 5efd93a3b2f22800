"""`hybrid fit`, `hybrid score` and `hybrid evaluate`: a score on anyone's labelled prompts, and what it is worth."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from router.config import EmbeddingUse
from router.evaluation.assessment import Assessment, assess_scores
from router.evaluation.embedding import EmbeddingChoice
from router.evaluation.files import write_file, write_lines
from router.evaluation.fitting import Fitting, fit_files
from router.evaluation.labels import Labels, read_labels
from router.evaluation.options import (
    answers_option,
    data_option,
    embedding_options,
    fitting_options,
    readable,
    reported,
    tell,
)
from router.evaluation.report import Title, render_report
from router.evaluation.scoring import open_stages
from router.evaluation.summary import describe_assessment
from router.scoring import Evidence, Score
from router.scoring.artifact import load_artifact

_artifact_option = click.option("--artifact", type=readable, required=True, help="What `hybrid fit` wrote.")
_use_option = click.option(
    "--use-embedding",
    "use",
    type=click.Choice([*map(str, EmbeddingUse)]),
    default=str(EmbeddingUse.ALWAYS),
    show_default=True,
    callback=lambda _ctx, _param, value: EmbeddingUse(value),
    help="auto: only where it can change the side of the threshold.",
)
_threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Scores from here up are cloud.",
)


class ScoreLine(Struct, frozen=True):
    """A row of the file that `hybrid score` writes."""

    id: str
    score: float
    evidence: Evidence


@click.command()
@data_option
@answers_option
@click.option("--out", type=readable, required=True, help="The artifact to write.")
@fitting_options
def fit(data: tuple[Path, ...], answers: tuple[Path, ...], out: Path, fitting: Fitting) -> None:
    """Fit the score on labelled prompts, and say by cross-validation what it is worth.

    A row of DATA has `id`, `prompt` (or `messages`), `weak_correct` and `strong_correct` (quality of the edge's and the
    cloud's answer, higher is better), and may have `domain`. With ANSWERS the answer check is fitted too; a row of it
    has `id` and `weak_answer`, and may have `tokens` with log-probabilities. The same files give the same artifact.

    \b
    Examples:
      hybrid fit --data labels.jsonl --out pair.score.json
      hybrid fit --data labels.jsonl --answers answers.jsonl --out pair.score.json --pair "small < large"
    """
    with reported():
        fit_files(data, answers, fitting, out)


@click.command()
@_artifact_option
@data_option
@answers_option
@click.option("--out", type=readable, required=True, help="The scores to write, JSON lines.")
@_use_option
@_threshold_option
@embedding_options
def score(
    artifact: Path,
    data: tuple[Path, ...],
    answers: tuple[Path, ...],
    out: Path,
    use: EmbeddingUse,
    threshold: float,
    embedding: EmbeddingChoice,
) -> None:
    """Score rows as the router would score such requests, one `{"id", "score", "evidence"}` a line.

    A score is the probability that the cloud's answer is better. With ANSWERS it is the answer check's, which knows
    what the edge answered.

    \b
    Examples:
      hybrid score --artifact pair.score.json --data rows.jsonl --out scores.jsonl
      hybrid score --artifact pair.score.json --data rows.jsonl --out scores.jsonl --use-embedding auto --threshold 0.3
    """
    with reported():
        labels = read_labels(data, answers)
        scores = _score(artifact, labels, embedding, use, threshold)
        rows = zip(labels.rows, scores, strict=True)
        write_lines(out, [ScoreLine(row.id, one.value, one.evidence) for row, one in rows])
        tell(f"{out}: {len(scores)} scores")


@click.command()
@_artifact_option
@data_option
@answers_option
@click.option("--out", type=readable, help="An HTML report to write; one file that needs nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@_use_option
@_threshold_option
@embedding_options
def evaluate(
    artifact: Path,
    data: tuple[Path, ...],
    answers: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    use: EmbeddingUse,
    threshold: float,
    embedding: EmbeddingChoice,
) -> None:
    """Say what an artifact's scores are worth on labelled rows, with 95% intervals, and write a report.

    \b
    Examples:
      hybrid evaluate --artifact pair.score.json --data fresh.jsonl --out report.html
      hybrid evaluate --artifact pair.score.json --data fresh.jsonl --answers fresh.answers.jsonl --json
    """
    with reported():
        labels = read_labels(data, answers)
        scores = _score(artifact, labels, embedding, use, threshold)
        provenance = load_artifact(artifact).provenance
        known = {file.sha256 for file in provenance.files}
        known_rows = sum(file.rows for file in labels.data_files if file.sha256 in known)
        found = assess_scores(labels.rows, scores, threshold=threshold, known_rows=known_rows)
        if out is not None:
            title = Title(artifact.name, provenance.pair, [one.name for one in labels.data_files], _today())
            write_file(out, render_report(title, found).encode())
        _show(found, as_json=as_json)


def _show(found: Assessment, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1))
        return
    if found.known_rows:
        click.secho(f"Fitted on these rows: the artifact saw {found.known_rows} of {found.rows}.", fg="red", err=True)
    click.echo("\n".join(describe_assessment(found)))


def _score(
    artifact: Path, labels: Labels, embedding: EmbeddingChoice, use: EmbeddingUse, threshold: float
) -> list[Score]:
    needed = load_artifact(artifact).embedding is not None and use is not EmbeddingUse.NEVER
    stages = open_stages(artifact, embedding.find() if needed else None, use=use, threshold=threshold)
    with click.progressbar(length=len(labels.rows), label="rows", file=sys.stderr) as bar:
        return stages.score(labels, progress=bar.update)


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
