"""A run as one HTML file that needs nothing else, and its figures as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

import jinja2

from loadtests.bench import Row
from loadtests.swarm.charts import HEIGHT, WIDTH, Chart, draw_run
from loadtests.swarm.measures import Measure
from loadtests.swarm.run import Run
from loadtests.swarm.summary import SHOWN, Line, spell, summarise

PAGE, FIGURES = "report.html", "figures.csv"


def write_report(folder: Path, run: Run, rows: Sequence[Row]) -> Path:
    """Leave the page and the CSV in the run's folder; returns the page's path."""
    lines = summarise(run.table)
    with (folder / FIGURES).open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        writer.writerow(["column", "value", *Measure])
        writer.writerows([line.column, line.value, *line.figures.values()] for line in lines)
    title = f"Load test: {run.about.name}"
    facts = [run.scenario.summary, f"{run.about.began}; {run.about.machine}; locust {run.about.locust}"]
    page = render_page(title, facts, rows, lines, list(draw_run(run.table)), run.complaints())
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def render_page(
    title: str,
    facts: Sequence[str],
    rows: Sequence[Row],
    lines: Sequence[Line],
    charts: Sequence[Chart],
    complaints: Sequence[str] = (),
) -> str:
    """The page: verdicts, drawings, a table of figures; any of them may be empty."""
    template = _environment().get_template("report.html")
    return template.render(
        title=title,
        facts=facts,
        rows=rows,
        lines=lines,
        shown=SHOWN,
        charts=charts,
        complaints=complaints,
        width=WIDTH,
        height=HEIGHT,
        alone=False,
    )


def draw_svg(chart: Chart) -> str:
    """One drawing as a file of its own; lines have one colour."""
    return _environment().get_template("chart.svg").render(chart=chart, width=WIDTH, height=HEIGHT, alone=True)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spell"] = spell
    return environment
