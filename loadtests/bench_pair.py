"""
`make bench-pair`: how good the demo pair is, and what routing between its models is worth, on fresh questions whose
wordings no training saw. Every answer comes from the project's own engine on the artifacts that `make demo` serves.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from deploy.demo import ROOT, SITE
from edge.engine.artifact import ArtifactKind, write_manifest
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint
from edge.models.store import Store
from loadtests.bench import Row, report
from loadtests.pair.answers import answer_all
from loadtests.pair.questions import Kind, Question, Split, generate, is_correct
from router.config import load_config
from router.decision import Rules, Tier, decide, select_eligible
from router.query import Conversation, Message, Parameters, Query
from router.scoring.linear import load_linear

SEED = 770_077
COUNT = 2000
_RESAMPLES = 2000
_MOST_BYTES = 16_000_000

Right = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Results:
    """Who was right on which question; `to_cloud` is where `auto` would send it."""

    questions: Sequence[Question]
    edge: Right
    edge_float: Right
    cloud: Right
    to_cloud: Right

    @property
    def auto(self) -> Right:
        """Whether the routed answer was right."""
        right: Right = np.where(self.to_cloud, self.cloud, self.edge)
        return right


def measure(store: Path) -> Results:
    """Ask both models every question, and the router's own code where it would send it."""
    questions = list(generate(SEED, COUNT, Split.TEST))
    shelf = Store(store)
    with tempfile.TemporaryDirectory() as folder:
        float_edge = Path(folder)
        export_checkpoint(ROOT / "edge" / "demo", float_edge, Precision.FLOAT32)
        write_manifest(float_edge, kind=ArtifactKind.CHAT, name="demo-edge", version="float32", source={})
        edge_float = _ask("edge, float32", float_edge, questions)
    edge = _ask("edge, as served", shelf.find("demo-edge"), questions)
    cloud = _ask("cloud, as served", shelf.find("demo-cloud"), questions)
    return Results(questions, edge, edge_float, cloud, _route(questions))


def _ask(label: str, artifact: Path, questions: Sequence[Question]) -> Right:
    with click.progressbar(length=len(questions), label=f"{label:<17}", file=sys.stderr) as bar:
        replies = answer_all(artifact, questions, progress=lambda n: bar.update(n - bar.pos))
    return np.array([is_correct(question, reply.text) for question, reply in zip(questions, replies, strict=True)])


def _route(questions: Sequence[Question]) -> Right:
    config = load_config(SITE / "router.yaml")
    if config.scoring.artifact is None:
        raise click.ClickException(f"{SITE / 'router.yaml'} names no scoring.artifact")
    scorer = load_linear(config.scoring.artifact)
    eligible = select_eligible(Rules(), config.chat_targets())
    up = {target.name for target in eligible.targets}
    chosen = []
    for question in questions:
        query = Query(Conversation(tuple(Message(*message) for message in question.messages)), Parameters())
        score = scorer.explain_now(query.prompt).score
        chosen.append(decide(eligible, score=score, threshold=0.5, up=up).tier is Tier.CLOUD)
    return np.array(chosen)


def routing_gain(results: Results) -> tuple[float, float, float]:
    """Accuracy of `auto` above random routing at the same cloud share: mean and 95% bootstrap interval."""
    rng = np.random.default_rng(1)
    rows = np.arange(len(results.questions))

    def gain(sample: "np.ndarray[Any, Any]") -> float:
        share = results.to_cloud[sample].mean()
        random = share * results.cloud[sample].mean() + (1 - share) * results.edge[sample].mean()
        return float(results.auto[sample].mean() - random)

    resampled = [gain(rng.choice(rows, len(rows))) for _ in range(_RESAMPLES)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return gain(rows), float(low), float(high)


def kind_table(results: Results) -> tuple[list[str], int]:
    """A line per kind of question, and in how many kinds the edge is neither hopeless nor perfect."""
    lines = [f"{'kind':<16}{'n':>5}{'edge':>8}{'float':>8}{'cloud':>8}{'auto':>8}{'to cloud':>10}"]
    graded = 0
    for kind in Kind:
        of_kind = np.array([question.kind is kind for question in results.questions])
        edge = results.edge[of_kind].mean()
        graded += bool(0.2 <= edge <= 0.8)
        shares = (edge, *(one[of_kind].mean() for one in (results.edge_float, results.cloud, results.auto)))
        numbers = "".join(f"{share:>8.3f}" for share in shares)
        lines.append(f"{kind:<16}{of_kind.sum():>5}{numbers}{results.to_cloud[of_kind].mean():>10.2f}")
    return lines, graded


def pair_bytes() -> int:
    """The size of both checkpoints in the project."""
    return sum(f.stat().st_size for part in ("edge", "cloud") for f in (ROOT / part / "demo").iterdir())


def judge(results: Results, graded: int) -> list[Row]:
    """Every claim with its bar."""
    edge, edge_float, cloud = (float(one.mean()) for one in (results.edge, results.edge_float, results.cloud))
    trained = {question.wording for question in generate(1, 20_000, Split.TRAIN)}
    shared = {question.wording for question in results.questions} & trained
    gain, low, high = routing_gain(results)
    share, auto = float(results.to_cloud.mean()), float(results.auto.mean())
    size, drift = pair_bytes(), edge - edge_float
    return [
        Row("edge accuracy", f"{edge:.3f}", "0.40 to 0.75", 0.40 <= edge <= 0.75),
        Row("cloud accuracy", f"{cloud:.3f}", ">= 0.90 (moonshot 0.97)", cloud >= 0.90),
        Row("cloud above edge", f"{cloud - edge:+.3f}", ">= 0.25", cloud - edge >= 0.25),
        Row("quantized above float edge", f"{drift:+.4f}", "within 0.02", abs(drift) <= 0.02),
        Row("kinds with edge in 0.2..0.8", f"{graded} of {len(Kind)}", ">= half", 2 * graded >= len(Kind)),
        Row("test wordings seen in training", f"{len(shared)}", "0", not shared),
        Row("both checkpoints", f"{size / 1e6:.1f} MB", "< 16 MB", size < _MOST_BYTES),
        Row("auto: accuracy / cloud share", f"{auto:.3f} / {share:.3f}", "-", holds=True),
        Row("random at that share", f"{auto - gain:.3f}", "-", holds=True),
        Row("auto above random", f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]", "interval above 0", low > 0),
    ]


@click.command(context_settings={"show_default": True})
@click.option(
    "--store", type=click.Path(path_type=Path), default=Path(".models"), help="Where the pair's artifacts are."
)
def main(store: Path) -> None:
    """Measure the demo pair and the routing between its models."""
    results = measure(store)
    lines, graded = kind_table(results)
    click.echo("\n".join(lines) + "\n")
    sys.exit(report("pair", judge(results, graded)))


if __name__ == "__main__":
    main()
