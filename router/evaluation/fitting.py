"""
From labelled rows to an artifact that states its own quality.

The quality is measured by nested cross-validation: every row is scored by a fit, with all its choices, that saw no row
with the same prompt, and by the same functions that score live requests.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import click
import numpy as np

from edge.engine.encoder import Encoder
from router.embedder import open_embedding
from router.evaluation.assessment import check_calibration, suggest_thresholds
from router.evaluation.embedding import EmbeddingChoice, RememberingEncoder
from router.evaluation.errors import EvaluationError
from router.evaluation.labels import Labels, read_labels, split_folds
from router.evaluation.metrics import Quality, Sample, assess
from router.evaluation.scoring import Stages
from router.evaluation.summary import describe_suggestion
from router.scoring import Evidence, Score
from router.scoring.answer_check import AnswerChecker, CheckModel
from router.scoring.artifact import Provenance, ReliabilityBin, ScoreArtifact, SourceFile, save_artifact
from router.scoring.query_model import QueryFile
from router.scoring.stage_one import QueryScorer

FEWEST_ROWS = 50
FEWEST_OF_A_KIND = 10
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fitting:
    """What a fit is told."""

    embedding: EmbeddingChoice
    pair: str = ""
    source: str = ""
    license: str = ""
    folds: int = 5


@dataclass(frozen=True, slots=True)
class Models:
    """Both stages, fitted; no check where no answers are known."""

    query: QueryFile
    check: CheckModel | None

    def stages(self, encoder: Encoder | None) -> Stages:
        """At work."""
        query = QueryScorer(self.query, encoder.width if encoder else None)
        return Stages(query, AnswerChecker(self.check) if self.check else None, encoder)


class Workbench:
    """Labels with all that is read of their prompts once, so that they can be fitted again and again."""

    def __init__(self, labels: Labels, encoder: Encoder | None) -> None:
        from router.scoring.fit_query import prepare_prompts  # noqa: PLC0415 - needs scikit-learn

        self.labels = labels
        self.encoder = encoder
        self._prepared = prepare_prompts([row.conversation() for row in labels.rows], encoder)

    def fit(self, places: Sequence[int] | None = None, progress: Progress = lambda _: None) -> Models:
        """Both stages on all rows, or on some.

        Raises:
            EvaluationError: the rows are too few, or too much alike.
        """
        from router.scoring.fit_check import fit_check  # noqa: PLC0415 - needs scikit-learn
        from router.scoring.fit_query import fit_query  # noqa: PLC0415

        rows = np.arange(len(self.labels.rows)) if places is None else np.asarray(places, np.intp)
        labels = self.labels.take(rows)
        try:
            sample = labels.sample
            fitted = fit_query(self._prepared.select(rows), sample.edge, sample.cloud, progress=progress)
            answered = labels.answered
            if not answered:
                return Models(fitted.model, None)
            log_odds = fitted.first if fitted.refined is None else fitted.refined
            known = labels.take(answered)
            answers = [answer for answer in known.answers if answer is not None]
            unseen = (1 / (1 + np.exp(-log_odds[answered]))).tolist()
            return Models(fitted.model, fit_check(known.rows, answers, unseen, progress=progress))
        except ValueError as exc:
            raise EvaluationError(f"these rows cannot be fitted: {exc}") from exc


@dataclass(frozen=True, slots=True)
class CrossScores:
    """A score for every row by a fit that had not seen it: stage one's, and with the answer where it is known."""

    first: list[Score]
    final: list[Score]


def cross_score(bench: Workbench, folds: Sequence[Sequence[int]], progress: Progress = lambda _: None) -> CrossScores:
    """Fit on all folds but one, score that one, for each."""
    labels = bench.labels
    nothing = Score(0.5, Evidence.NONE)
    first, final = [nothing] * len(labels.rows), [nothing] * len(labels.rows)
    for number, held in enumerate(folds, 1):
        progress(f"cross-validation, fold {number} of {len(folds)}")
        out = set(held)
        models = bench.fit([at for at in range(len(labels.rows)) if at not in out])
        stages, part = models.stages(bench.encoder), labels.take(held)
        queried = stages.score_prompts(part)
        for at, one, other in zip(held, queried, stages.check_answers(part, queried), strict=True):
            first[at], final[at] = one, other
    return CrossScores(first, final)


def fit_labels(
    labels: Labels, fitting: Fitting, progress: Progress = lambda _: None
) -> tuple[ScoreArtifact, list[str]]:
    """An artifact, and what it is worth in lines of text.

    Raises:
        EvaluationError: the labels are too few, or one-sided.
        ConfigError: the embedding model is not there.
    """
    check_enough(labels.sample)
    folder = fitting.embedding.find()
    identity = None if folder is None else open_embedding(folder)[0]
    encoder = None if folder is None else RememberingEncoder(folder)
    progress(f"{len(labels.rows)} rows, {len(labels.answered)} with the edge's answer; reading the prompts")
    bench = Workbench(labels, encoder)
    models = bench.fit(progress=progress)
    scores = cross_score(bench, split_folds(labels.rows, fitting.folds), progress)
    stages = {"query": _Unseen.of(labels, range(len(labels.rows)), scores.first)}
    if models.check is not None:
        stages["check"] = _Unseen.of(labels, labels.answered, scores.final)
    last = list(stages.values())[-1]
    artifact = ScoreArtifact(
        provenance=Provenance(
            pair=fitting.pair,
            files=[SourceFile(one.name, one.sha256, one.rows) for one in labels.data_files + labels.answer_files],
            source=fitting.source,
            license=fitting.license,
        ),
        embedding=identity,
        query=models.query,
        check=models.check,
        metrics={f"{stage}.{name}": value for stage, one in stages.items() for name, value in one.metrics().items()},
        reliability=last.reliability(),
    )
    return artifact, [line for stage, one in stages.items() for line in one.describe(stage)] + last.suggest()


def fit_files(data: Sequence[Path], answers: Sequence[Path], fitting: Fitting, out: Path) -> None:
    """Fit, write the artifact, print what it is worth; progress goes to stderr."""
    artifact, lines = fit_labels(read_labels(data, answers), fitting, lambda line: click.echo(line, err=True))
    save_artifact(out, artifact)
    click.echo("\n".join(lines))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB", err=True)


def check_enough(sample: Sample) -> None:
    """Whether there is anything to learn.

    Raises:
        EvaluationError: there is not; the message says what is missing.
    """
    gained, count = int(sample.gained.sum()), len(sample)
    if count < FEWEST_ROWS:
        raise EvaluationError(
            f"{count} labelled rows are too few; give at least {FEWEST_ROWS}, a few hundred are a good start"
        )
    if gained < FEWEST_OF_A_KIND:
        raise EvaluationError(
            f"one-sided labels: the cloud is better on only {gained} of {count} rows, {FEWEST_OF_A_KIND} are needed; "
            "give more or harder prompts, see that right answers are judged right, or keep everything on the edge"
        )
    if count - gained < FEWEST_OF_A_KIND:
        raise EvaluationError(
            f"one-sided labels: the edge is as good on only {count - gained} of {count} rows, {FEWEST_OF_A_KIND} are "
            "needed; give more or easier prompts, see that right answers are judged right, or use the cloud for all"
        )
    if sample.gain.sum() <= 0:
        raise EvaluationError(
            f"the cloud's answers are no better on average ({sample.cloud.mean():.3f}, the edge's "
            f"{sample.edge.mean():.3f}): there is no gap to recover; keep everything on the edge"
        )


class _Unseen:
    """Out-of-fold scores of one stage, measured."""

    def __init__(self, sample: Sample, score: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
        self._sample = sample
        self._score = score
        self._quality: Quality = assess(sample, score)
        self._calibration = check_calibration(sample, score)

    @classmethod
    def of(cls, labels: Labels, places: Sequence[int], scores: Sequence[Score]) -> "_Unseen":
        """Of some rows."""
        return cls(labels.take(places).sample, np.array([scores[at].value for at in places]))

    def metrics(self) -> Mapping[str, float]:
        """By name; an interval's ends are `NAME_low` and `NAME_high`. What is undefined is left out."""
        intervals = {one.name: getattr(self._quality, one.name) for one in fields(Quality)}
        intervals["brier_skill"] = self._calibration.skill
        found = {
            f"{name}{end}": value
            for name, one in intervals.items()
            for end, value in (("", one.value), ("_low", one.low), ("_high", one.high))
        }
        found |= {"ece": self._calibration.ece, "ece_of_perfect": self._calibration.ece_of_perfect.value}
        found |= {"rows": float(len(self._sample))}
        found |= {"edge": float(self._sample.edge.mean()), "cloud": float(self._sample.cloud.mean())}
        return {name: round(value, 6) for name, value in found.items() if np.isfinite(value)}

    def reliability(self) -> list[ReliabilityBin]:
        """Of these scores."""
        return [ReliabilityBin(one.mean_score, one.gained_share, one.count) for one in self._calibration.bins]

    def describe(self, stage: str) -> Iterator[str]:
        """Lines for a person."""
        quality, calibration = self._quality, self._calibration
        yield f"{_NAMES[stage]}, cross-validated on {len(self._sample)} rows:"
        yield f"  APGR {quality.apgr}, CPT50 {quality.cpt50}, CPT80 {quality.cpt80}, NAPGR {quality.napgr}"
        yield (
            f"  Brier skill {calibration.skill}, ECE {calibration.ece:.3f} "
            f"(a perfect predictor {calibration.ece_of_perfect.value:.3f})"
        )

    def suggest(self) -> list[str]:
        """Lines with thresholds."""
        return [f"  {describe_suggestion(one)}" for one in suggest_thresholds(self._sample, self._score)]


_NAMES = {"query": "Before the answer (the prompt alone)", "check": "With the edge's answer"}
