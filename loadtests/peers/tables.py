"""A run as Markdown: a table a case, who took no part, and the machine."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from loadtests.bench import Row
from loadtests.peers.arena import Turn
from loadtests.peers.cases import CLOSED, DISPATCH, HIT, Case
from loadtests.peers.comparison import Spread
from loadtests.peers.environments import pinned_versions
from loadtests.peers.latency import percentile_ms
from loadtests.peers.run import DIRECT, RATE, STREAM_RATE, Results
from loadtests.peers.trust import SATURATED

_HEAD = (
    "| | {unit}, median [least, most] | / {yardstick} | p50 ms | p99 ms | p99.9 ms | µs of the core an answer "
    "| memory MB | cores busy: server's own of all, load's |\n|---|---|---|---|---|---|---|---|---|"
)


def write_markdown(results: Results, rows: Sequence[Row]) -> str:
    """The whole text."""
    parts = [f"{_describe_machine()}; {', '.join(pinned_versions())}."]
    for case in CLOSED:
        if any(key[0] == case.name for key in results.turns):
            parts += [f"**{case.title}**", "\n".join(_case_lines(results, case))]
    if results.whole:
        parts += [f"**Open loop, {RATE:.0f} requests/s and {STREAM_RATE:.0f} streams/s**", _latency_table(results)]
    bars = [f"| {row.name.strip()} | {row.value} | {row.bar} | {_verdict(row)} |" for row in rows]
    parts.append("\n".join(["| | value | bar | |", "|---|---|---|---|", *bars]))
    parts += [f"- {name} took no part: {reason}" for name, reason in results.missing.items()]
    return "\n\n".join(parts) + "\n"


def _verdict(row: Row) -> str:
    return "" if row.bar == "-" else "holds" if row.holds else "does not hold"


def _case_lines(results: Results, case: Case) -> Iterator[str]:
    yardstick = "bare Litestar" if case is HIT else "bare Litestar + transport"
    measure = results.per_s(case, yardstick)
    yield _HEAD.format(unit=case.unit, yardstick=yardstick)
    for contestant in case.contestants:
        turns = results.turns.get((case.name, contestant.name))
        if turns:
            per_s = results.per_s(case, contestant.name)
            ratio = f"{median(a / b for a, b in zip(per_s, measure, strict=True)):.2f}" if all(measure or [0]) else "-"
            yield f"| {contestant.name} | {Spread.of(per_s):,.0f} | {ratio} | {_figures(turns)} |"


def _figures(turns: Sequence[Turn]) -> str:
    flag = " (not the limit)" if any(turn.server_busy < SATURATED for turn in turns) else ""
    own, core, load = (
        median(getattr(turn, name) for turn in turns) for name in ("own_busy", "server_busy", "load_busy")
    )
    busy = f"{own:.0%} of {core:.0%}{flag}, {load:.0%}"
    percentiles = [median(getattr(turn.load, name) for turn in turns) / 1e3 for name in ("p50_us", "p99_us", "p999_us")]
    values = [f"{value:.1f}" for value in percentiles]
    values += [f"{median(t.us for t in turns):,.0f}", f"{max(t.resident_bytes for t in turns) / 1e6:.0f}", busy]
    return " | ".join(values)


def _latency_table(results: Results) -> str:
    lines = ["| | p50 ms | p99 ms | first chunk p50 ms | load late, p99 ms |", "|---|---|---|---|---|"]
    for name in (DIRECT, *(one for one in results.whole if one != DIRECT)):
        whole, streams = results.whole.get(name), results.streams.get(name)
        if whole and streams:
            values = (
                Spread.of([percentile_ms(one.whole_ms, 50) for one in whole]),
                Spread.of([percentile_ms(one.whole_ms, 99) for one in whole]),
                Spread.of([percentile_ms(one.first_ms, 50) for one in streams]),
                Spread.of([percentile_ms(one.late_ms, 99) for one in whole]),
            )
            lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)


def _describe_machine() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("litestar", "uvicorn", "uvloop", "httpx-aiohttp"))
    model = f"{len(models)} x {models[0]}" if models else platform.machine()
    # of one version a build without profiles runs the same code half as fast as Debian's
    python = f"Python {platform.python_version()} ({platform.python_compiler()}, {platform.python_build()[1]})"
    return f"{model}, Linux {platform.release()}, {python}, {libraries}"


def dispatch_figures(results: Results) -> list[tuple[str, Spread]]:
    """For the plot: the requests a second of every contestant."""
    names = [contestant.name for contestant in DISPATCH.contestants if results.per_s(DISPATCH, contestant.name)]
    return [(name, Spread.of(results.per_s(DISPATCH, name))) for name in names]
