"""`python -m loadtests.swarm`: run a scenario, work for a run elsewhere, compare two runs."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click
import msgspec

from edge.engine.settings import ConfigError
from loadtests.bench import FOLDER, report
from loadtests.swarm.comparison import compare_runs, differing_keys
from loadtests.swarm.page import write_report
from loadtests.swarm.place import demo_site, parse_cores, pinned
from loadtests.swarm.run import Crew, Run, RunError, generator, make_run
from loadtests.swarm.scenario import Scenario, list_scenarios, load_scenario
from loadtests.swarm.summary import print_lines, summarise
from loadtests.swarm.verdict import judge_objectives

_EXAMPLES = """\b
Examples:
  python -m loadtests.swarm run spike                  a demo site of its own, .bench/load/spike
  python -m loadtests.swarm run my.yaml --url http://router:8080 --workers 2
  python -m loadtests.swarm run soak --duration-s 7200 --rate-per-s 4
  python -m loadtests.swarm run steady --remote 3 --port 5557 --url ...   and, on three other machines:
  python -m loadtests.swarm work loadmaster:5557
  python -m loadtests.swarm compare .bench/load/before .bench/load/after
"""


@click.group(epilog=_EXAMPLES)
def main() -> None:
    """Load tests: questions with known answers, open or closed loop, judged by objectives."""


@main.command(name="list")
def list_bundled() -> None:
    """The bundled scenarios."""
    for name in list_scenarios():
        click.echo(f"{name:<10} {load_scenario(name).summary}")


@main.command(name="run", epilog=_EXAMPLES)
@click.argument("scenario")
@click.option("--url", help="A router's, without /v1; else the demo's three parts are started.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results [.bench/load/SCENARIO].")
@click.option("--workers", default=0, help="Processes that ask, here; 0: one, without a master.")
@click.option("--remote", default=0, help="Workers that will connect from elsewhere.")
@click.option("--port", default=5557, show_default=True, help="Where they connect.")
@click.option("--key-file", type=click.Path(path_type=Path, exists=True), help="Holds the API key.")
@click.option("--cores", default="", help="Cores of the generator, like 1 or 2,3; the demo gets the others.")
@click.option("--duration-s", type=float, help="Instead of the scenario's.")
@click.option("--rate-per-s", type=float, help="Instead of the scenario's, in an open loop.")
@click.option("--users", type=int, help="Instead of the scenario's, in a closed loop.")
@click.option("--seed", type=int, help="Instead of the scenario's.")
def run_scenario(
    scenario: str,
    url: str | None,
    out: Path | None,
    workers: int,
    remote: int,
    port: int,
    key_file: Path | None,
    cores: str,
    duration_s: float | None,
    rate_per_s: float | None,
    users: int | None,
    seed: int | None,
) -> None:
    """Run a bundled SCENARIO or a file; exits 1 when an objective does not hold, 2 when it could not be run."""
    name = Path(scenario).stem
    folder = (out or FOLDER / "load" / name).resolve()
    with _one_line_errors():
        given = {
            ("shape", "duration_s"): duration_s,
            ("arrival", "rate_per_s"): rate_per_s,
            ("arrival", "users"): users,
            ("seed",): seed,
        }
        values = {path: value for path, value in given.items() if value is not None}
        chosen = override(load_scenario(scenario), values)
        own = parse_cores(cores)
        with nullcontext(url.rstrip("/")) if url else demo_site(own) as router, pinned(own):
            run = make_run(chosen, router, folder, name=name, crew=Crew(workers, remote, port), key_file=key_file)
    sys.exit(tell(run, folder))


@main.command(name="work")
@click.argument("address")
def work(address: str) -> None:
    """Ask on behalf of the run that waits at ADDRESS (host:port); it brings the scenario."""
    command = generator("--join", address)
    os.execv(command[0], command)  # noqa: S606 - this interpreter, with nothing of the address but an argument


@main.command(name="compare")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Two runs' folders side by side."""
    with _one_line_errors():
        runs = Run.read(before), Run.read(after)
    if keys := differing_keys(*runs):
        click.echo(f"The scenarios differ in {', '.join(keys)}: so may the figures.\n")
    rows = [("", "before", "after", "difference", ""), *compare_runs(*runs)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for path, run in zip((before, after), runs, strict=True):
        _tell_complaints(run.complaints(), f"{path}: ")


def tell(run: Run, folder: Path) -> int:
    """Print and write everything; returns the exit status."""
    for line in print_lines(summarise(run.table)):
        click.echo(line)
    rows = judge_objectives(run.scenario.objectives, run.table)
    click.echo(f"\nreport: {write_report(folder, run, rows)}")
    _tell_complaints(run.complaints())
    click.echo()
    return report(f"load-{run.about.name}", rows) if rows else 0


def override(scenario: Scenario, values: dict[tuple[str, ...], float]) -> Scenario:
    """The scenario with some of its values replaced.

    Raises:
        ConfigError: it has no such key, or the value is out of range.
    """
    content = msgspec.to_builtins(scenario)
    for path, value in values.items():
        section = content
        for key in path[:-1]:
            section = section[key]
        if path[-1] not in section:
            option = path[-1].replace("_", "-")
            raise ConfigError(f"--{option} {value:g}: this scenario's {path[0]} has no such key; leave it out")
        section[path[-1]] = value
    try:
        return msgspec.convert(content, Scenario)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{', '.join('.'.join(path) for path in values)}: {exc}; choose another value") from exc


def _tell_complaints(complaints: Sequence[str], prefix: str = "") -> None:
    for one in complaints:
        click.echo(f"{prefix}THE GENERATOR WAS A BOTTLENECK: {one}.", err=True)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (ConfigError, RunError) as exc:
        click.echo(f"{exc}", err=True)
        sys.exit(2)
