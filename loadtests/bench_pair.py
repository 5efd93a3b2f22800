"""
`make bench-pair`: how good the demo pair is, and what routing between its models is worth, on fresh questions whose
wordings no training saw, all of them asked through a running router in front of the real edge and the real Triton.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from deploy.demo import ROOT
from edge.engine.artifact import ArtifactKind, write_manifest
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint
from loadtests.bench import FOLDER, Row, report
from loadtests.pair.answers import answer_all
from loadtests.pair.live import Explained, LiveRouter, Routed
from loadtests.pair.questions import Kind, Question, Split, generate, is_correct
from loadtests.site import DEMO_ARTIFACT, running_site
from router.evaluation.assessment import Assessment, assess_scores
from router.evaluation.metrics import Interval, Matrix, Sample, Vector, bootstrap, compare, quality_at
from router.evaluation.report import Title, render_report
from router.scoring import Evidence, Score
from router.scoring.dataset import Row as LabelledRow
from router.scoring.dataset import Turn

SEED = 770_077
COUNT = 2000
_MOST_BYTES = 16_000_000
_EDGE_UNLESS_RULED = {"x-answer-check": "on", "x-route-threshold": "1"}

Right = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Results:
    """Who was right on which question, and what the router thought of it."""

    questions: Sequence[Question]
    edge_float: Right
    edge: Sequence[Routed]
    cloud: Sequence[Routed]
    queried: Sequence[Explained]
    checked: Sequence[Routed]
    auto: Sequence[Routed]

    @property
    def sample(self) -> Sample:
        """The labels: what each tier answered through the router."""
        return Sample.of([float(one.right) for one in self.edge], [float(one.right) for one in self.cloud])

    def rows(self) -> list[LabelledRow]:
        """The labels, as an evaluation takes them."""
        triples = zip(self.questions, self.edge, self.cloud, strict=True)
        return [
            LabelledRow(
                id=f"live-{index}",
                messages=[Turn(role, content) for role, content in question.messages],
                domain=question.kind,
                weak_correct=float(edge.right),
                strong_correct=float(cloud.right),
            )
            for index, (question, edge, cloud) in enumerate(triples)
        ]


def measure(count: int) -> Results:
    """Ask both models and the router every question."""
    questions = list(generate(SEED, count, Split.TEST))
    edge_float = _ask_float(questions)
    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder)) as site:
        return asyncio.run(_ask_live(site.url, questions, edge_float))


async def _ask_live(url: str, questions: Sequence[Question], edge_float: Right) -> Results:
    async with LiveRouter(url) as router:

        async def answers(label: str, model: str, headers: dict[str, str]) -> list[Routed]:
            with _bar(label, len(questions)) as progress:
                return await router.answer(questions, model, headers, progress)

        edge = await answers("edge", "edge", {})
        cloud = await answers("cloud", "cloud", {})
        with _bar("score", len(questions)) as progress:
            queried = await router.explain(questions, progress)
        checked = await answers("checked edge", "auto", _EDGE_UNLESS_RULED)
        auto = await answers("auto", "auto", {})
    return Results(questions, edge_float, edge, cloud, queried, checked, auto)


def _ask_float(questions: Sequence[Question]) -> Right:
    """The edge's model before quantization, on the project's own engine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        export_checkpoint(ROOT / "edge" / "demo", path, Precision.FLOAT32)
        write_manifest(path, kind=ArtifactKind.CHAT, name="demo-edge", version="float32", source={})
        with _bar("edge, float32", len(questions)) as progress:
            replies = answer_all(path, questions, progress=progress)
    return np.array([is_correct(question, reply.text) for question, reply in zip(questions, replies, strict=True)])


@contextmanager
def _bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Progress on stderr; yields what is told how many are done."""
    with click.progressbar(length=length, label=f"{label:<14}", file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)


def judge_pair(results: Results, graded: int) -> list[Row]:
    """What the two models are."""
    sample = results.sample
    edge, cloud, edge_float = float(sample.edge.mean()), float(sample.cloud.mean()), float(results.edge_float.mean())
    trained = {question.wording for question in generate(1, 20_000, Split.TRAIN)}
    shared = {question.wording for question in results.questions} & trained
    size, drift = pair_bytes(), edge - edge_float
    return [
        Row("edge accuracy", f"{edge:.3f}", "0.40 to 0.75", 0.40 <= edge <= 0.75),
        Row("cloud accuracy", f"{cloud:.3f}", ">= 0.90 (moonshot 0.97)", cloud >= 0.90),
        Row("cloud above edge", f"{cloud - edge:+.3f}", ">= 0.25", cloud - edge >= 0.25),
        Row("quantized above float edge", f"{drift:+.4f}", "within 0.02", abs(drift) <= 0.02),
        Row("kinds with edge in 0.2..0.8", f"{graded} of {len(Kind)}", ">= half", 2 * graded >= len(Kind)),
        Row("test wordings seen in training", f"{len(shared)}", "0", not shared),
        Row("both checkpoints", f"{size / 1e6:.1f} MB", "< 16 MB", size < _MOST_BYTES),
    ]


def judge_scores(
    results: Results, name: str, assessment: Assessment, score: Vector, bars: tuple[float, float]
) -> list[Row]:
    """What one score is worth: `bars` for NAPGR overall and within kinds."""
    sample = results.sample
    whole, within = bars
    napgr, inside, calibration = assessment.quality.napgr, assessment.within_domains, assessment.calibration
    half = _at_share(sample, score, 0.5)
    of_cloud = float(half / sample.cloud.mean())
    rows = [
        Row(f"{name}: NAPGR", str(napgr), f">= {whole:.2f}", napgr.value >= whole),
        Row(f"{name}: NAPGR within kind", str(inside), f">= {within:.2f}", inside.value >= within),
        Row(f"{name}: APGR", str(assessment.quality.apgr), "-", holds=True),
        Row(f"{name}: CPT50 / CPT80", f"{assessment.quality.cpt50} / {assessment.quality.cpt80}", "-", holds=True),
        Row(f"{name}: of the cloud's accuracy at share 0.5", f"{of_cloud:.3f}", ">= 0.92", of_cloud >= 0.92),
        Row(f"{name}: Brier skill", str(calibration.skill), "interval above 0", calibration.skill.low > 0),
        Row(f"{name}: ECE", f"{calibration.ece:.4f}", "<= 0.03", calibration.ece <= 0.03),
    ]
    for control, other in _controls(results).items():
        above = compare(sample, score, other)
        rows.append(Row(f"{name}: APGR above {control}", str(above), "interval above 0", above.low > 0))
    return rows


def judge_auto(results: Results) -> list[Row]:
    """What `model: auto` gave at the demo's own settings."""
    sample = results.sample
    to_cloud = np.array([one.tier == "cloud" for one in results.auto], np.float64)
    right = np.array([one.right for one in results.auto], np.float64)
    escalated = float(np.mean([one.reason == "escalated" for one in results.auto]))
    share = float(to_cloud.mean())

    def above(other: Callable[[Matrix], Vector]) -> Interval:
        return bootstrap(lambda weights: weights @ right / weights.sum(1) - other(weights), len(sample))

    def random(weights: Matrix) -> Vector:
        part = weights @ to_cloud / weights.sum(1)
        routed: Vector = (part * (weights @ sample.cloud) + (1 - part) * (weights @ sample.edge)) / weights.sum(1)
        return routed

    shuffled = _controls(results)["a shuffled score"]
    rows = [
        Row("auto: accuracy / cloud share", f"{right.mean():.3f} / {share:.3f}", "-", holds=True),
        Row("auto: escalated after the answer check", f"{escalated:.3f}", "-", holds=True),
    ]
    controls: dict[str, Callable[[Matrix], Vector]] = {
        "random at that share": random,
        "the shuffled score at that share": lambda w: quality_at(sample, shuffled, np.array([share]), w)[:, 0],
    }
    for name, other in controls.items():
        gain = above(other)
        rows.append(Row(f"auto: above {name}", str(gain), "interval above 0", gain.low > 0))
    return rows


def _controls(results: Results) -> dict[str, Vector]:
    """What a score must beat. The lookup knows every kind's mean gain on these very questions: no real one can."""
    gain = results.sample.gain
    kinds = np.array([question.kind for question in results.questions])
    by_kind = {kind: float(gain[kinds == kind].mean()) for kind in set(kinds.tolist())}
    shuffled = np.array([one.score for one in results.checked])
    np.random.default_rng(0).shuffle(shuffled)
    return {
        "prompt length": np.array([float(sum(len(text) for _, text in one.messages)) for one in results.questions]),
        "a lookup by kind": np.array([by_kind[kind] for kind in kinds.tolist()]),
        "a shuffled score": shuffled,
    }


def _at_share(sample: Sample, score: Vector, share: float) -> float:
    return float(quality_at(sample, score, np.array([share]), np.ones((1, len(sample))))[0, 0])


def kind_table(results: Results) -> tuple[list[str], int]:
    """A line per kind of question, and in how many kinds the edge is neither hopeless nor perfect."""
    lines = [f"{'kind':<16}{'n':>5}{'edge':>8}{'cloud':>8}{'auto':>8}{'to cloud':>10}{'escalated':>11}"]
    kinds = np.array([question.kind for question in results.questions])
    sample, graded = results.sample, 0
    for kind in Kind:
        here = np.flatnonzero(kinds == kind)
        auto = [results.auto[at] for at in here]
        edge, cloud = (float(part[here].mean()) for part in (sample.edge, sample.cloud))
        graded += 0.2 <= edge <= 0.8
        shares = (np.mean([one.right for one in auto]), np.mean([one.tier == "cloud" for one in auto]))
        escalated = np.mean([one.reason == "escalated" for one in auto])
        lines.append(
            f"{kind:<16}{len(here):>5}{edge:>8.3f}{cloud:>8.3f}{shares[0]:>8.3f}{shares[1]:>10.2f}{escalated:>11.2f}"
        )
    return lines, graded


def pair_bytes() -> int:
    """The size of both checkpoints in the project."""
    return sum(f.stat().st_size for part in ("edge", "cloud") for f in (ROOT / part / "demo").iterdir())


def write_report(assessment: Assessment) -> Path:
    """The checked scores as a page."""
    FOLDER.mkdir(exist_ok=True)
    title = Title(
        str(DEMO_ARTIFACT.relative_to(ROOT)),
        "demo-edge < demo-cloud",
        [f"{assessment.rows} fresh questions, asked live"],
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    path = FOLDER / "pair.html"
    path.write_text(render_report(title, assessment), encoding="utf-8")
    return path


@click.command(context_settings={"show_default": True})
@click.option("--count", default=COUNT, help="How many questions to ask, each five times.")
def main(count: int) -> None:
    """Measure the demo pair and the routing between its models."""
    results = measure(count)
    lines, graded = kind_table(results)
    click.echo("\n".join(lines) + "\n")
    labels = results.rows()
    queried = [Score(one.score, Evidence(one.evidence)) for one in results.queried]
    checked = [Score(one.score, Evidence(one.evidence)) for one in results.checked]
    rows = judge_pair(results, graded)
    for name, scores, bars in (("query", queried, (0.40, 0.20)), ("answer check", checked, (0.65, 0.45))):
        assessment = assess_scores(labels, scores)
        rows += judge_scores(results, name, assessment, np.array([one.value for one in scores]), bars)
        rows.append(Row(f"{name}: evidence", _spell(assessment.evidence), "-", holds=True))
    click.echo(f"report: {write_report(assessment)}\n")
    sys.exit(report("pair", [*rows, *judge_auto(results)]))


def _spell(evidence: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in evidence.items())


if __name__ == "__main__":
    main()
