"""
`make bench-scoring DATA=DIR`: what the score is worth on labelled prompts that no fit saw, through the code that fits
artifacts and the code that scores live requests.

DIR holds NAME.jsonl files, rows as `hybrid fit` takes them, each with NAME's answers beside it where there are any
(`gsm8k.dev.jsonl`, `gsm8k.answers.dev.jsonl`). Rows are scored out of fold; where there are NAME.train.jsonl and
NAME.test.jsonl, the fit is on the one and the scores on the other. Without DATA the demo pair answers questions first.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge.engine.encoder import Encoder
from loadtests.bench import Row, report
from loadtests.pair.label import label
from loadtests.pair.questions import Split, generate
from router.config import EmbeddingUse
from router.embedder import open_embedding
from router.evaluation.assessment import check_calibration, prompt_lengths
from router.evaluation.embedding import EmbeddingChoice, RememberingEncoder
from router.evaluation.errors import EvaluationError
from router.evaluation.files import write_lines
from router.evaluation.fitting import Workbench
from router.evaluation.labels import Labels, read_labels, split_domains, split_folds
from router.evaluation.metrics import (
    Interval,
    Sample,
    assess,
    compare,
    draw_weights,
    interval,
    measure_ordering,
    quality_at,
    within_domains,
)
from router.evaluation.scoring import Stages, open_stages
from router.scoring import Evidence, Score
from router.scoring.answer_check import AnswerChecker
from router.scoring.artifact import Provenance, ScoreArtifact, load_artifact, save_artifact
from router.scoring.stage_one import QueryScorer

FOLDS = 5
DOMAIN_FOLDS = 19
"""Few domains a fold, so that every fit knows nearly all others, as one for a new topic would."""
FEWEST_ROWS = 200
PAIR = Path(".bench") / "pair"
PAIR_COUNTS = {Split.TRAIN: 4000, Split.TEST: 2000}
PAIR_SEEDS = {Split.TRAIN: 20_011, Split.TEST: 770_077}
DRAWS, DRAWN, DRAW_TESTS = 20, 300, 1000

Vector = np.ndarray[Any, np.dtype[np.float64]]
Places = Sequence[int]


@dataclass(frozen=True, slots=True)
class Bar:
    """What issue a benchmark's measure has to reach."""

    measure: str
    limit: float

    @property
    def least(self) -> bool:
        """Whether the limit is a floor; shares of cloud calls and errors have ceilings."""
        return not self.measure.startswith(("cpt", "ece"))

    def text(self) -> str:
        """As the table shows it."""
        return f"{'>=' if self.least else '<='} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.limit if self.least else value <= self.limit


BARS: dict[tuple[str, str], dict[str, float]] = {
    ("mmlu", "query"): {"apgr": 0.66, "cpt50": 0.29, "cpt80": 0.59, "ece": 0.03},
    ("mmlu", "unseen domains"): {"apgr": 0.60},
    ("gsm8k", "query"): {"apgr": 0.60},
    ("gsm8k", "with the answer"): {"apgr": 0.79, "cpt50": 0.18, "cpt80": 0.38},
    ("pair", "query"): {"napgr": 0.40, "within": 0.20, "ece": 0.03},
    ("pair", "with the answer"): {"napgr": 0.65, "within": 0.45, "ece": 0.03, "half": 0.92},
}
MUST_BEAT_LENGTH = {"mmlu", "pair"}


@dataclass(frozen=True, slots=True)
class Fold:
    """Places to fit on, and places to score."""

    fit: Places
    held: Places


@dataclass(frozen=True, slots=True)
class Dataset:
    """One benchmark; `test` are the places that are reported on, None for all."""

    name: str
    labels: Labels
    test: frozenset[int] | None

    def folds(self) -> list[Fold]:
        """Fit on the train part and hold out the test part, or cross-validation over all."""
        every = range(len(self.labels.rows))
        if self.test is not None:
            return [Fold([at for at in every if at not in self.test], sorted(self.test))]
        return [_leave(every, held) for held in split_folds(self.labels.rows, FOLDS)]

    def domain_folds(self) -> list[Fold]:
        """No domain on both sides; empty where there is only one."""
        if len({row.domain for row in self.labels.rows}) < 2:
            return []
        test = self.test if self.test is not None else frozenset(range(len(self.labels.rows)))
        fit = [at for at in range(len(self.labels.rows)) if self.test is None or at not in self.test]
        groups = split_domains(self.labels.rows, DOMAIN_FOLDS)
        return [Fold(_leave(fit, group).fit, [at for at in group if at in test]) for group in groups]


@dataclass(frozen=True, slots=True)
class Results:
    """Scores of the rows that were held out: without the full embedding, where it matters, always, with the answer;
    and with the answer but without the embedding.
    """

    places: Places
    never: list[Score]
    auto: list[Score]
    always: list[Score]
    answered: list[Score]
    answered_cheaply: list[Score]

    @property
    def embedded_share(self) -> float:
        """Of `auto`."""
        return sum(one.evidence is Evidence.EMBEDDING for one in self.auto) / len(self.auto)


def _leave(every: Sequence[int], held: Places) -> Fold:
    out = set(held)
    return Fold([at for at in every if at not in out], held)


def read_datasets(folder: Path) -> list[Dataset]:
    """All benchmarks of a folder, by name."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if "answers" not in path.name.split("."):
            files.setdefault(path.name.split(".")[0], []).append(path)
    return [_read_dataset(name, paths) for name, paths in files.items()]


def _read_dataset(name: str, paths: Sequence[Path]) -> Dataset:
    answers = [found for path in paths if (found := _answers_of(path)) is not None]
    labels = read_labels(paths, answers)
    parts = [path.name.split(".")[1] for path in paths]
    if parts != ["test", "train"]:
        return Dataset(name, labels, None)
    return Dataset(name, labels, frozenset(range(labels.data_files[0].rows)))


def _answers_of(path: Path) -> Path | None:
    name, _, rest = path.name.partition(".")
    found = path.with_name(f"{name}.answers.{rest}"), path.with_name(f"{path.stem}.answers.jsonl")
    return next((one for one in found if one.is_file()), None)


def score_folds(bench: Workbench, folds: Sequence[Fold], embedding: Path, *, thorough: bool) -> Results:
    """Fit, write the artifact, read it again, score; `thorough` tries every use of the embedding and the answers."""
    found: dict[int, tuple[Score, ...]] = {}
    for number, fold in enumerate(folds, 1):
        click.echo(f"  fold {number} of {len(folds)}: {len(fold.fit)} rows to fit, {len(fold.held)} to score", err=True)
        part = bench.labels.take(fold.held)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fold.score.json"
            save_artifact(path, _artifact(bench, fold, embedding))
            stages = _open_stages(path, bench.encoder)
        always = stages.score_prompts(part)
        columns = [always] * 5
        if thorough:
            never = replace(stages, use=EmbeddingUse.NEVER).score_prompts(part)
            half = float(np.median([one.value for one in never]))  # the threshold that splits the calls in half
            auto = replace(stages, use=EmbeddingUse.AUTO, threshold=half).score_prompts(part)
            columns = [never, auto, always, stages.check_answers(part, always), stages.check_answers(part, never)]
        found |= dict(zip(fold.held, zip(*columns, strict=True), strict=True))
    places = sorted(found)
    return Results(places, *([found[at][column] for at in places] for column in range(5)))


def _open_stages(path: Path, encoder: Encoder | None) -> Stages:
    """As `open_scoring` makes them, around an encoder that remembers."""
    artifact = load_artifact(path)
    check = AnswerChecker(artifact.check) if artifact.check is not None else None
    return Stages(QueryScorer(artifact.query, encoder.width if encoder else None), check, encoder)


def _artifact(bench: Workbench, fold: Fold, embedding: Path) -> ScoreArtifact:
    models = bench.fit(fold.fit)
    return ScoreArtifact(
        provenance=Provenance(pair="", files=[]),
        embedding=open_embedding(embedding)[0],
        query=models.query,
        check=models.check,
    )


def judge_dataset(dataset: Dataset, encoder: Encoder, embedding: Path) -> list[Row]:
    """Every row of the table for one benchmark."""
    click.echo(f"{dataset.name}: {len(dataset.labels.rows)} rows", err=True)
    bench = Workbench(dataset.labels, encoder)
    results = score_folds(bench, dataset.folds(), embedding, thorough=True)
    held = dataset.labels.take(results.places)
    sample = held.sample
    head = f"{len(sample)}; edge {sample.edge.mean():.3f}, cloud {sample.cloud.mean():.3f}"
    rows = [Row(f"{dataset.name}: rows scored", head, "-", holds=True)]
    rows += judge_scores(dataset.name, "query", held, results.always)
    for name, scores in (("never", results.never), (f"auto ({results.embedded_share:.0%} of rows)", results.auto)):
        apgr = assess(sample, _values(scores)).apgr
        rows.append(Row(f"{dataset.name}: query, full embedding {name}: APGR", str(apgr), "-", holds=True))
    if held.answered:
        rows += judge_scores(dataset.name, "with the answer", held, results.answered)
        more = compare(sample, _values(results.answered), _values(results.answered_cheaply))
        title = f"{dataset.name}: with the answer, APGR above the same without the full embedding"
        rows.append(_above(title, more, must=False))
    if folds := dataset.domain_folds():
        unseen = score_folds(bench, folds, embedding, thorough=False)
        rows += judge_scores(dataset.name, "unseen domains", dataset.labels.take(unseen.places), unseen.always)
    return rows


def judge_scores(name: str, what: str, labels: Labels, scores: Sequence[Score]) -> list[Row]:
    """One score's measures beside the benchmark's bars."""
    sample, score = labels.sample, _values(scores)
    quality, length = assess(sample, score), prompt_lengths(labels.rows)
    calibration = check_calibration(sample, score)
    bars = BARS.get((name, what), {})
    rows = [_measure(name, what, measure, getattr(quality, measure), bars) for measure in _SHOWN]
    if len({row.domain for row in labels.rows}) > 1:
        within = within_domains(sample, score, [row.domain for row in labels.rows])
        rows.append(_measure(name, what, "within", within, bars))
    above = compare(sample, score, length)
    proven = what != "unseen domains" and len(sample) >= FEWEST_ROWS
    held = proven and name in MUST_BEAT_LENGTH
    rows.append(_above(f"{name}: {what}, APGR above prompt length", above, must=held))
    random = Interval(quality.apgr.value - 0.5, quality.apgr.low - 0.5, quality.apgr.high - 0.5)
    rows.append(_above(f"{name}: {what}, APGR above random", random, must=held))
    rows.append(_above(f"{name}: {what}, Brier skill", calibration.skill, must=proven))
    perfect = f"{calibration.ece:.3f} (perfect {calibration.ece_of_perfect})"
    rows.append(_row(f"{name}: {what}, ECE", perfect, "ece", calibration.ece, bars))
    half = float(quality_at(sample, score, np.array([0.5]), np.ones((1, len(sample))))[0, 0] / sample.cloud.mean())
    rows.append(_row(f"{name}: {what}, quality at half the calls, of the cloud's", f"{half:.3f}", "half", half, bars))
    return rows


_SHOWN = ("apgr", "cpt50", "cpt80", "napgr", "auroc")


def _measure(name: str, what: str, measure: str, found: Interval, bars: dict[str, float]) -> Row:
    title = "NAPGR within domains" if measure == "within" else measure.upper()
    return _row(f"{name}: {what}, {title}", str(found), measure, found.value, bars)


def _row(title: str, shown: str, measure: str, value: float, bars: dict[str, float]) -> Row:
    if measure not in bars:
        return Row(title, shown, "-", holds=True)
    bar = Bar(measure, bars[measure])
    return Row(title, shown, bar.text(), bar.holds(value))


def _above(title: str, found: Interval, *, must: bool) -> Row:
    return Row(title, str(found), "interval above 0" if must else "-", found.low > 0 or not must)


def _values(scores: Sequence[Score]) -> Vector:
    return np.array([one.value for one in scores])


def judge_calibration(dataset: Dataset, encoder: Encoder, embedding: Path, default: Path) -> list[Row]:
    """Whether labels of one's own are worth their price: fits on a few of them beside the general artifact."""
    title = f"{dataset.name}: {DRAWN} own labels ({DRAWS} draws), APGR above the general artifact"
    if dataset.test is None or not default.is_file():
        return [Row(title, f"not run: {default} is not there", "-", holds=True)]
    click.echo(f"{dataset.name}: {DRAWS} draws of {DRAWN} labels", err=True)
    rng = np.random.default_rng(0)
    tests = sorted(dataset.test)[:DRAW_TESTS]
    train = np.array([at for at in range(len(dataset.labels.rows)) if at not in dataset.test])
    part, bench = dataset.labels.take(tests), Workbench(dataset.labels, encoder)
    general = _values(open_stages(default, embedding).score_prompts(part))
    own = []
    for _ in range(DRAWS):
        models = bench.fit(rng.choice(train, DRAWN, replace=False).tolist())
        own.append(_values(models.stages(encoder).score_prompts(part)))
    lift = _lift(part.sample, own, general)
    base = assess(part.sample, general).apgr
    return [
        Row(f"{dataset.name}: the general artifact, APGR", str(base), "-", holds=True),
        _above(title, lift, must=True),
    ]


def _lift(sample: Sample, own: Sequence[Vector], general: Vector) -> Interval:
    """Mean difference over draws; replicates draw questions and draws anew."""
    rng = np.random.default_rng(1)

    def differences(weights: Vector) -> Vector:
        base = measure_ordering(sample, general, weights).apgr
        return np.stack([measure_ordering(sample, one, weights).apgr - base for one in own])

    drawn = []
    for weights in draw_weights(len(sample), 400, seed=0):
        chosen = rng.multinomial(len(own), [1 / len(own)] * len(own), len(weights)).T
        drawn.append((differences(weights) * chosen).sum(0) / len(own))
    return interval(float(differences(np.ones((1, len(sample)))).mean()), np.concatenate(drawn))


def label_pair(store: Path, folder: Path) -> None:
    """The demo pair's labels, made once: training wordings to fit on, test wordings to report on."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in PAIR_COUNTS.items():
        data = folder / f"pair.{split}.jsonl"
        if data.is_file():
            continue
        rows, answers = label(store, list(generate(PAIR_SEEDS[split], count, split)), f"{split}-{PAIR_SEEDS[split]}")
        write_lines(folder / f"pair.{split}.answers.jsonl", answers)
        write_lines(data, rows)


@click.command(context_settings={"show_default": True})
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A folder of labelled rows."
)
@click.option("--store", type=click.Path(path_type=Path), default=Path(".models"), help="The model store.")
@click.option(
    "--default",
    type=click.Path(path_type=Path),
    default=Path("router") / "scoring" / "general.score.json",
    help="The general artifact that own labels are compared with.",
)
def main(data: Path | None, store: Path, default: Path) -> None:
    """Measure the score on labelled prompts."""
    if data is None:
        click.echo(
            f"No DATA is given: the demo pair's own labels are used, from {PAIR} (made now if absent).", err=True
        )
        label_pair(store, PAIR)
    embedding = EmbeddingChoice(None, store).find()
    if embedding is None:
        raise click.ClickException("the bars are for scores with an embedding")
    encoder = RememberingEncoder(embedding)
    rows: list[Row] = []
    for dataset in read_datasets(data or PAIR):
        try:
            rows += judge_dataset(dataset, encoder, embedding)
        except EvaluationError as exc:
            rows.append(Row(f"{dataset.name}: not fitted", str(exc), "-", holds=True))
        if dataset.name == "pair":
            rows += judge_calibration(dataset, encoder, embedding, default)
    sys.exit(report("scoring", rows))


if __name__ == "__main__":
    main()
