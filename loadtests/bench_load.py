"""
`make bench-load`: the demo pair routed at its default threshold, beside the edge alone, the cloud alone and fixed
random mixes of the two, on the same questions at the same times; and whether routing lies on a better curve of accuracy
against latency than any fixed mix does (`curve.py`).

First a closed loop, in which all are asked as fast as they answer: that is throughput. Then an open loop, all at one
rate, a part of what the slower of the two tiers can do: that is latency and accuracy. Arms take short turns, every
second round in reverse, so that what else the machine does falls on all of them. Every turn of a round asks the same
seeded questions at the same drawn times; a mix sends a question to the cloud where a number drawn with it is low
enough, so larger mixes send all that smaller ones send. No caches.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np

from loadtests.bench import FOLDER, Row, report
from loadtests.curve import Arm, accuracy_above, in_turns, latency_below
from loadtests.swarm.charts import Chart, Series, draw_chart
from loadtests.swarm.measures import Measure, Table, measure
from loadtests.swarm.page import draw_svg, render_page
from loadtests.swarm.place import demo_site, pinned
from loadtests.swarm.record import Form, Origin
from loadtests.swarm.run import Run, RunError, make_run
from loadtests.swarm.scenario import Answers, Closed, Model, Open, Scenario
from loadtests.swarm.shapes import Steady

ROUTED = "routed"
SHARES: Mapping[str, float | None] = {
    "all edge": 0.0,
    "25% cloud": 0.25,
    "50% cloud": 0.5,
    "75% cloud": 0.75,
    "all cloud": 1.0,
    ROUTED: None,
}
"""Of the cloud, of each arm; routing has none to give."""
USERS = 16
_WARM_S = 5.0
_CLOSED_S, FILL_S = 6.0, 1.5
"""A turn of the closed loop, and its beginning, which is not counted: its users start together."""
_CLOSED_ROUNDS = 3
_SEED = 4_001
_ARMS = "arm"
_HEADS = ("", "answers/s", "p50 ms", "p99 ms", "mean ms", "first token ms", "right", "to the cloud")


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


def throughput(run: Run) -> float:
    """Answers per second of a closed loop, from when it runs evenly to when its users stop asking."""
    ended, answered = run.table.ended, run.table.answered
    counted = answered & (ended > FILL_S) & (ended <= run.scenario.shape.duration_s)
    return float(counted.sum()) / (run.scenario.shape.duration_s - FILL_S)


@dataclass(frozen=True, slots=True)
class Bench:
    """One site, and who asks it from where."""

    url: str
    folder: Path
    cores: Sequence[int]

    def run(self, name: str, scenario: Scenario) -> Run:
        """One turn."""
        click.echo(f"  {name}", err=True)
        with pinned(self.cores):
            return make_run(scenario, self.url, self.folder / name.replace(" ", "-").replace("%", ""), name=name)

    def play(self, label: str, arrival: Open | Closed, duration_s: float, rounds: range) -> dict[str, list[Run]]:
        """A turn of each arm in each round, every second round in reverse."""
        runs: dict[str, list[Run]] = {name: [] for name in SHARES}
        for number in rounds:
            order = list(SHARES.items())
            for name, share in order[:: -1 if number % 2 else 1]:
                scenario = make_scenario(share, arrival, duration_s, _SEED + number)
                runs[name].append(self.run(f"{label} {number} {name}", scenario))
        return runs

    def measure(self, load: float, duration_s: float, rounds: int) -> tuple[list[Arm], float]:
        """Both loops of every arm, routing last; and the rate of the open one."""
        self.run("warm-up", make_scenario(None, Closed(users=USERS), _WARM_S, _SEED))
        first = _CLOSED_ROUNDS + 1
        closed = self.play("closed", Closed(users=USERS), _CLOSED_S, range(1, first))
        per_s = {name: [throughput(run) for run in runs] for name, runs in closed.items()}
        rate = load * min(float(np.median(per_s[name])) for name in ("all edge", "all cloud"))
        opened = self.play("open", Open(rate_per_s=rate), duration_s, range(first, first + rounds))
        return [_make_arm(name, per_s[name], closed[name], opened[name]) for name in SHARES], rate


def list_rows(arms: Sequence[Arm], rate: float) -> Iterator[Row]:
    """Every arm's figures, then the bars."""
    routed, fixed = arms[-1], arms[:-1]
    yield Row("questions, and the rate at which they came", f"{len(routed.table)} at {rate:.2f}/s", "-", holds=True)
    yield Row(_ARMS, "; ".join(_HEADS[1:]), "-", holds=True)
    for arm in arms:
        yield Row(arm.name, "; ".join(list_cells(arm)[1:]), "-", holds=True)
    lost = sum(int((~arm.table.answered).sum()) for arm in arms)
    yield Row("unanswered", f"{lost}", "0", lost == 0)
    degraded = sum(int((arm.table.degraded != "").sum()) for arm in arms)
    yield Row("answered by a fallback", f"{degraded}", "0", degraded == 0)
    complaints = sum(bool(arm.complaints()) for arm in arms)
    yield Row("arms in which the generator was a bottleneck", f"{complaints} of {len(arms)}", "0", complaints == 0)
    above, below = accuracy_above(routed, fixed), latency_below(routed, fixed)
    yield Row("accuracy above the best fixed mix that is no slower", f"{above}", "interval above 0", above.low > 0)
    gains = in_turns(accuracy_above, routed, fixed)
    yield Row("the same in each round", ", ".join(f"{one:+.3f}" for one in gains), "-", holds=True)
    faster = f"{below.value:.0f} ms [{below.low:.0f}, {below.high:.0f}]"
    yield Row("mean latency below the fastest as accurate fixed mix", faster, "interval above 0", below.low > 0)
    gains = in_turns(latency_below, routed, fixed)
    yield Row("the same in each round", ", ".join(f"{one:+.0f} ms" for one in gains), "-", holds=True)


def list_cells(arm: Arm) -> list[str]:
    """An arm's line of the table; throughput with its lowest and highest turn, means with their 95% intervals."""
    table, mean = arm.table, arm.latency_ms()
    p50, p99, first = (
        f"{measure(one, table):.0f}"
        for one in (Measure.LATENCY_P50_MS, Measure.LATENCY_P99_MS, Measure.FIRST_TOKEN_P50_MS)
    )
    per_s = f"{np.median(arm.per_s):.1f} [{min(arm.per_s):.1f}, {max(arm.per_s):.1f}]"
    latency = f"{mean.value:.0f} [{mean.low:.0f}, {mean.high:.0f}]"
    return [
        arm.name, per_s, p50, p99, latency, first, str(arm.accuracy()), f"{measure(Measure.CLOUD_SHARE, table):.3f}",
    ]  # fmt: skip


def write_table(arms: Sequence[Arm], rows: Sequence[Row], facts: Sequence[str]) -> str:
    """Everything as Markdown."""
    lines = [_HEADS, ["---"] * len(_HEADS), *(list_cells(arm) for arm in arms)]
    judged = [f"- {row.name}: {row.value}{_verdict(row)}" for row in rows if row.name not in {_ARMS, *SHARES}]
    return "\n".join([*facts, "", *(f"| {' | '.join(cells)} |" for cells in lines), "", *judged, ""])


def draw_curve(arms: Sequence[Arm]) -> Iterator[Chart]:
    """Accuracy against mean, median and worst latency; the line joins the fixed mixes."""
    for name, part in (("mean", None), ("median", 50), ("99th percentile", 99)):
        points = [(_latency(arm.table, part), arm.accuracy().value, arm.name) for arm in arms]
        fixed = sorted(points[:-1])
        line = Series("fixed mixes", [x for x, _, _ in fixed], [y for _, y, _ in fixed])
        chart = draw_chart(f"Accuracy against latency: {name}", f"{name} latency, ms", "accuracy", [line], points)
        if chart is not None:
            yield chart


def write_results(folder: Path, arms: Sequence[Arm], rows: Sequence[Row], facts: Sequence[str]) -> Path:
    """Leave `table.md`, `curve.svg` and a page; returns the page's path."""
    complaints = list(dict.fromkeys(f"{arm.name}: {line}" for arm in arms for line in arm.complaints()))
    charts = list(draw_curve(arms))
    (folder / "table.md").write_text(write_table(arms, rows, facts), encoding="utf-8")
    (folder / "curve.svg").write_text(draw_svg(charts[0]), encoding="utf-8")
    path = folder / "report.html"
    page = render_page("Routing the demo pair under load", facts, rows, [], charts, complaints)
    path.write_text(page, encoding="utf-8")
    return path


def _make_arm(name: str, per_s: Sequence[float], closed: Sequence[Run], opened: Sequence[Run]) -> Arm:
    turns = [Table.of(sorted(run.records, key=lambda one: one.number)) for run in opened]
    return Arm(name, per_s, turns, [strain for run in (*closed, *opened) for strain in run.strains])


def _latency(table: Table, part: int | None) -> float:
    return float(table.latency_ms.mean() if part is None else np.percentile(table.latency_ms, part))


def _verdict(row: Row) -> str:
    return "" if row.bar == "-" else f" ({row.bar}: {'holds' if row.holds else 'DOES NOT HOLD'})"


def _list_facts(run: Run, load: float, began_under: float) -> list[str]:
    """Where it was measured, and what else the machine did."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "nvidia-pytriton", "locust"))
    return [
        f"{run.about.began}; {run.about.machine}; {versions}.",
        f"Load average before it began: {began_under:.2f} (0: nothing else ran).",
        f"Closed loop: {USERS} users, {_CLOSED_ROUNDS} rounds. Open loop: {load:g} of what the slower tier did.",
    ]


@click.command()
@click.option(
    "--duration-s",
    default=12.0,
    type=click.FloatRange(1, 3600),
    show_default=True,
    help="Of each turn of the open loop.",
)
@click.option("--rounds", default=7, type=click.IntRange(1, 1000), show_default=True, help="Of the open loop.")
@click.option(
    "--load", default=0.5, type=click.FloatRange(0.01, 2), show_default=True, help="Of the slower tier's throughput."
)
@click.option("--share-cores", is_flag=True, help="Let the site have the generator's core, too.")
def main(duration_s: float, rounds: int, load: float, *, share_cores: bool) -> None:
    """Measure on this machine; exits 1 when a bar does not hold."""
    cores, began_under = os.sched_getaffinity(0), os.getloadavg()[0]
    own = [] if share_cores or len(cores) == 1 else [max(cores)]
    folder = (FOLDER / "load" / "pair").resolve()
    try:
        with demo_site(own) as url:
            arms, rate = Bench(url, folder, own).measure(load, duration_s, rounds)
        facts = _list_facts(Run.read(folder / "warm-up"), load, began_under)
    except RunError as exc:
        sys.exit(f"{exc}")
    rows = list(list_rows(arms, rate))
    click.echo(f"report: {write_results(folder, arms, rows, facts)}\n")
    sys.exit(report("load", rows))


if __name__ == "__main__":
    main()
