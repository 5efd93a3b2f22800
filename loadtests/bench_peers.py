"""
`make bench-peers`: this router beside nginx, vllm-router, sglang-router, LiteLLM and bare Litestar handlers, in one
run on pinned cores, before the same upstream, with the same bodies, in interleaved turns. See `peers/README.md`.
"""

import re
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

import click

from loadtests.bench import FOLDER, report
from loadtests.peers.arena import opened
from loadtests.peers.bars import judge
from loadtests.peers.cases import CLOSED, DISPATCH, LATENCY, NAMES
from loadtests.peers.contestants import BARE_DISPATCH, CONTESTANTS, ROUTER, Contestant
from loadtests.peers.plot import draw
from loadtests.peers.run import OPEN_CONTESTANTS, Results, play
from loadtests.peers.tables import dispatch_figures, write_markdown
from loadtests.processes import ProcessError

_SLUGS = {re.sub("[^a-z]+", "-", contestant.name.lower()): contestant for contestant in CONTESTANTS}


def _stop(signum: int, frame: FrameType | None) -> None:
    """As Ctrl-C does: through every `finally`."""
    raise KeyboardInterrupt


def _needed(cases: Sequence[str], only: Sequence[str]) -> list[Contestant]:
    """Who takes part in the cases; with `only` those, and the two that everyone is set beside."""
    asked = {contestant.name for case in CLOSED if case.name in cases for contestant in case.contestants}
    if LATENCY in cases:
        asked |= {contestant.name for contestant in OPEN_CONTESTANTS}
    chosen = {_SLUGS[slug].name for slug in only} | {ROUTER.name, BARE_DISPATCH.name} if only else asked
    return [contestant for contestant in CONTESTANTS if contestant.name in asked & chosen]


def _write(name: str, content: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    partial = FOLDER / f"{name}.part"
    partial.write_text(content)
    partial.replace(FOLDER / name)


def _leave(results: Results, text: str) -> None:
    _write("peers.md", text)
    if figures := dispatch_figures(results):
        _write("peers.svg", draw(f"{DISPATCH.title}, one core: requests/s", figures))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--only", multiple=True, type=click.Choice(sorted(_SLUGS)), help="Beside this router; may be repeated.")
@click.option("--cases", multiple=True, type=click.Choice(NAMES), help="Default: all; may be repeated.")
@click.option("--repeats", default=5, type=click.IntRange(1, 50), help="Turns of each contestant in each case.")
@click.option("--turn-s", default=2, type=click.IntRange(1, 60), help="How long a turn is.")
def main(only: tuple[str, ...], cases: tuple[str, ...], repeats: int, turn_s: int) -> None:
    """Measure this router beside its peers.

    \b
    Examples:
      make bench-peers
      python -m loadtests.bench_peers --cases dispatch --repeats 7
      python -m loadtests.bench_peers --only vllm-router --cases sse --cases latency --turn-s 3
    """
    signal.signal(signal.SIGTERM, _stop)
    begun = time.monotonic()
    names = cases or NAMES
    contestants = _needed(names, only)
    try:
        with opened(contestants, click.echo) as arena:
            results = play(arena, names, repeats=repeats, turn_s=turn_s, say=click.echo)
    except ProcessError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        click.echo("Stopped; nothing was written.", err=True)
        sys.exit(130)
    rows = judge(results, frozenset(names), frozenset(one.name for one in contestants))
    text = write_markdown(results, rows)
    _leave(results, text)
    click.echo(f"\n{text}")
    status = report("peers", rows)
    click.echo(f"{time.monotonic() - begun:.0f} s; tables in {FOLDER / 'peers.md'}, plot in {FOLDER / 'peers.svg'}")
    sys.exit(status)


if __name__ == "__main__":
    main()
