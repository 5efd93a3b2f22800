"""
`make bench-load`: the demo pair routed at its default threshold, beside the edge alone, the cloud alone and fixed
random mixes of the two, on the same questions at the same times; and whether routing lies on a better curve of accuracy
against latency than any fixed mix does.

Two passes. In a closed loop, all are asked as fast as they answer: that is throughput. Then in an open loop, all at one
rate, a part of what the slower of the two tiers can do: that is latency and accuracy. Every pass of a round asks the
same seeded questions at the same drawn times; a mix sends a question to the cloud where a number drawn with it is low
enough, so larger mixes send all that smaller ones send. Rounds alternate the order. No caches.

A fixed mix may be any point between two measured ones, as a coin decides between them: so routing is compared with
their upper hull. The interval is a bootstrap over questions, paired.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from loadtests.bench import FOLDER, Row, report
from loadtests.swarm.charts import Chart, Series, draw_chart
from loadtests.swarm.measures import Measure, Table, Vector, measure
from loadtests.swarm.page import render_page
from loadtests.swarm.place import demo_site, pinned
from loadtests.swarm.record import Form, Origin
from loadtests.swarm.run import Run, RunError, make_run
from loadtests.swarm.scenario import Answers, Closed, Model, Open, Scenario
from loadtests.swarm.shapes import Steady
from router.evaluation.metrics import Interval, Matrix, bootstrap

ROUTED = "routed"
FIXED = {"all edge": 0.0, "25% cloud": 0.25, "50% cloud": 0.5, "75% cloud": 0.75, "all cloud": 1.0}
"""Fixed mixes and their cloud shares."""
USERS = 16
_WARM_S = 5.0
_SEED = 4_001


@dataclass(frozen=True)
class Arm:
    """What one way of choosing a tier gave: a value for each question, shape [n]; unanswered is wrong."""

    name: str
    per_s: float
    table: Table
    complaints: Sequence[str]

    @property
    def right(self) -> Vector:
        """1 or 0."""
        right: Vector = np.where(self.table.answered, np.nan_to_num(self.table.right), 0.0)
        return right

    @property
    def latency_ms(self) -> Vector:
        """From when each question was due."""
        latency: Vector = self.table.latency_ms
        return latency


def best_mix(points: Sequence[tuple[float, float]], cost: float) -> float:
    """The most value that a mixture of points (cost, value) has at a mean cost of at most `cost`.

    Where every point costs more, the cheapest one's value.
    """
    values = [value for at, value in points if at <= cost]
    for low, low_value in points:
        for high, high_value in points:
            if low <= cost < high:
                values.append(low_value + (high_value - low_value) * (cost - low) / (high - low))
    return max(values) if values else min(points)[1]


def accuracy_above(routed: Arm, fixed: Sequence[Arm]) -> Interval:
    """How much more accurate routing is than the best fixed mix that is no slower in the mean."""

    def difference(weights: Matrix) -> Vector:
        accuracy, latency = _means(weights, routed)
        points = [_means(weights, arm) for arm in fixed]
        best = [
            best_mix([(float(slow[row]), float(right[row])) for right, slow in points], float(latency[row]))
            for row in range(len(weights))
        ]
        gained: Vector = accuracy - np.array(best)
        return gained

    return bootstrap(difference, len(routed.right))


def latency_below(routed: Arm, fixed: Sequence[Arm]) -> Interval:
    """How many ms faster in the mean routing is than the fastest fixed mix that is no less accurate."""

    def difference(weights: Matrix) -> Vector:
        accuracy, latency = _means(weights, routed)
        points = [_means(weights, arm) for arm in fixed]
        best = [
            -best_mix([(-float(right[row]), -float(slow[row])) for right, slow in points], -float(accuracy[row]))
            for row in range(len(weights))
        ]
        return np.array(best) - latency

    return bootstrap(difference, len(routed.right))


def make_scenario(share: float | None, arrival: Open | Closed, duration_s: float, seed: int) -> Scenario:
    """New questions only, easy and hard alike, whole answers and streams; `share` None: routed."""
    models = {Model.AUTO: 1.0} if share is None else {Model.CLOUD: share, Model.EDGE: 1.0 - share}
    return Scenario(
        summary="the demo pair",
        arrival=arrival,
        shape=Steady(duration_s=duration_s),
        questions={Origin.EASY: 1.0, Origin.HARD: 1.0},
        forms={Form.CHAT: 0.5, Form.STREAM: 0.5},
        models=models,
        answers=Answers(cached=False),
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """One site and how long it is asked."""

    url: str
    folder: Path
    cores: Sequence[int]
    duration_s: float
    rounds: int

    def run(self, name: str, scenario: Scenario) -> Run:
        """One pass."""
        click.echo(f"  {name}", err=True)
        with pinned(self.cores):
            return make_run(scenario, self.url, self.folder / name.replace(" ", "-").replace("%", ""), name=name)

    def measure(self, load: float) -> tuple[list[Arm], float]:
        """Both passes of every arm, routing last; and the rate of the second."""
        arms: dict[str, float | None] = {**FIXED, ROUTED: None}
        self.run("warm-up", make_scenario(None, Closed(users=USERS), _WARM_S, _SEED))
        runs = {
            name: [self.run(f"{name} closed", make_scenario(share, Closed(users=USERS), self.duration_s, _SEED + 1))]
            for name, share in arms.items()
        }
        per_s = {name: measure(Measure.ANSWERED_PER_S, first.table) for name, (first,) in runs.items()}
        rate = load * min(per_s["all edge"], per_s["all cloud"])
        for number in range(self.rounds):
            order = list(arms.items())
            for name, share in order[:: -1 if number % 2 else 1]:
                scenario = make_scenario(share, Open(rate_per_s=rate), self.duration_s, _SEED + 2 + number)
                runs[name].append(self.run(f"{name} {number + 1}", scenario))
        return [_join(name, per_s[name], runs[name]) for name in arms], rate


def list_rows(arms: Sequence[Arm], rate: float) -> Iterator[Row]:
    """Every arm's figures, then the bars."""
    routed, fixed = arms[-1], arms[:-1]
    yield Row("questions, and the rate at which they came", f"{len(routed.right)} at {rate:.2f}/s", "-", holds=True)
    for arm in arms:
        table = arm.table
        yield Row(f"{arm.name}: throughput, closed loop", f"{arm.per_s:.1f}/s", "-", holds=True)
        times = [measure(one, table) for one in (Measure.LATENCY_P50_MS, Measure.LATENCY_P99_MS)]
        yield Row(f"{arm.name}: p50, p99", "{:.0f} ms, {:.0f} ms".format(*times), "-", holds=True)
        yield Row(f"{arm.name}: mean", f"{arm.latency_ms.mean():.1f} ms", "-", holds=True)
        share = measure(Measure.CLOUD_SHARE, table)
        yield Row(f"{arm.name}: accuracy, cloud share", f"{arm.right.mean():.3f}, {share:.3f}", "-", holds=True)
    lost = sum(int((~arm.table.answered).sum()) for arm in arms)
    yield Row("unanswered", f"{lost}", "0", lost == 0)
    degraded = sum(int((arm.table.degraded != "").sum()) for arm in arms)
    yield Row("answered by a fallback", f"{degraded}", "0", degraded == 0)
    complaints = sum(bool(arm.complaints) for arm in arms)
    yield Row("arms in which the generator was a bottleneck", f"{complaints} of {len(arms)}", "0", complaints == 0)
    above, below = accuracy_above(routed, fixed), latency_below(routed, fixed)
    yield Row("accuracy above the best fixed mix that is no slower", f"{above}", "interval above 0", above.low > 0)
    faster = f"{below.value:.0f} ms [{below.low:.0f}, {below.high:.0f}]"
    yield Row("mean latency below the fastest as accurate fixed mix", faster, "interval above 0", below.low > 0)


def draw_curve(arms: Sequence[Arm]) -> Iterator[Chart]:
    """Accuracy against mean, median and worst latency; the line joins the fixed mixes."""
    for name, part in (("mean", None), ("median", 50), ("99th percentile", 99)):
        points = [(_latency(arm, part), float(arm.right.mean()), arm.name) for arm in arms]
        fixed = sorted(points[:-1])
        line = Series("fixed mixes", [x for x, _, _ in fixed], [y for _, y, _ in fixed])
        chart = draw_chart(f"Accuracy against latency: {name}", f"{name} latency, ms", "accuracy", [line], points)
        if chart is not None:
            yield chart


def _latency(arm: Arm, part: int | None) -> float:
    return float(arm.latency_ms.mean() if part is None else np.percentile(arm.latency_ms, part))


def _means(weights: Matrix, arm: Arm) -> tuple[Vector, Vector]:
    """Accuracy and mean latency, shape [replicates] each."""
    total = weights.sum(1)
    return weights @ arm.right / total, weights @ arm.latency_ms / total


def _join(name: str, per_s: float, runs: Sequence[Run]) -> Arm:
    """The open rounds of an arm one after the other, in the order in which questions were due."""
    records = [record for run in runs[1:] for record in sorted(run.records, key=lambda one: one.number)]
    return Arm(name, per_s, Table.of(records), [line for run in runs for line in run.complaints()])


def write_page(folder: Path, rows: Sequence[Row], arms: Sequence[Arm]) -> Path:
    """The table and the plots."""
    facts = ["The demo pair at its default threshold beside fixed mixes of its two models, in one run."]
    complaints = list(dict.fromkeys(f"{arm.name}: {line}" for arm in arms for line in arm.complaints))
    path = folder / "report.html"
    path.write_text(
        render_page("Routing the demo pair under load", facts, rows, [], list(draw_curve(arms)), complaints)
    )
    return path


@click.command()
@click.option("--duration-s", default=30.0, show_default=True, help="Of each pass.")
@click.option("--rounds", default=3, show_default=True, help="Of the open loop.")
@click.option("--load", default=0.5, show_default=True, help="Part of the slower tier's throughput that is asked for.")
@click.option("--share-cores", is_flag=True, help="Let the site have the generator's core, too.")
def main(duration_s: float, rounds: int, load: float, *, share_cores: bool) -> None:
    """Measure on this machine; exits 1 when a bar does not hold."""
    cores = os.sched_getaffinity(0)
    own = [] if share_cores or len(cores) == 1 else [max(cores)]
    folder = (FOLDER / "load" / "pair").resolve()
    try:
        with demo_site(own) as url:
            arms, rate = Bench(url, folder, own, duration_s, rounds).measure(load)
    except RunError as exc:
        sys.exit(f"{exc}")
    rows = list(list_rows(arms, rate))
    click.echo(f"report: {write_page(folder, rows, arms)}\n")
    sys.exit(report("load", rows))


if __name__ == "__main__":
    main()
