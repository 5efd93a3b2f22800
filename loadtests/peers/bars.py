"""What has to hold of a run's figures, and what stands beside it."""

import textwrap
from collections.abc import Callable, Iterator
from typing import Final

from loadtests.bench import Row
from loadtests.peers.cases import CLOSED, DISPATCH, HIT, STREAM, Case
from loadtests.peers.comparison import Spread, compare_differences, compare_ratios
from loadtests.peers.contestants import (
    BARE,
    BARE_DISPATCH,
    CHECKING_ROUTER,
    LEAN_ROUTER,
    LITELLM,
    NGINX,
    ROUTER,
    SEMANTIC_ROUTER,
    SGLANG,
    VLLM,
    Contestant,
)
from loadtests.peers.latency import Timings, percentile_ms
from loadtests.peers.run import DIRECT, RATE, STREAM_RATE, Results

SATURATED: Final = 0.95
"""A turn in which the server's core was less busy was not the server's limit."""
_RATIOS: Final = (
    (DISPATCH, ROUTER, BARE_DISPATCH, 0.55, 0.7),
    (DISPATCH, ROUTER, VLLM, 0.15, 0.3),
    (DISPATCH, ROUTER, LITELLM, 12.0, None),
    (DISPATCH, ROUTER, NGINX, None, None),
    (DISPATCH, ROUTER, SGLANG, None, None),
    (DISPATCH, CHECKING_ROUTER, BARE_DISPATCH, None, None),
    (DISPATCH, LEAN_ROUTER, BARE_DISPATCH, None, None),
    (DISPATCH, SEMANTIC_ROUTER, BARE_DISPATCH, None, None),
    (DISPATCH, SEMANTIC_ROUTER, VLLM, None, None),
    (DISPATCH, SEMANTIC_ROUTER, LITELLM, None, None),
    (HIT, ROUTER, BARE, 0.5, 0.7),
    (STREAM, ROUTER, VLLM, 0.3, None),
    (STREAM, ROUTER, BARE_DISPATCH, None, None),
)


def judge(results: Results, names: frozenset[str], wanted: frozenset[str]) -> list[Row]:
    """A row for each bar of the cases and contestants that this run was to measure; one without figures fails."""
    rows = []
    for case, ours, theirs, bar, moonshot in _RATIOS:
        if case.name in names and {ours.name, theirs.name} <= wanted:
            rows += list(_compare(results, case, ours, theirs, bar, moonshot))
    if {HIT.name, DISPATCH.name} <= names and {ROUTER.name, VLLM.name} <= wanted:
        rows.append(_hit_beside_dispatch(results))
    rows += list(_added(results))
    rows += list(_honest(results))
    return rows


def _compare(
    results: Results, case: Case, ours: Contestant, theirs: Contestant, bar: float | None, moonshot: float | None
) -> Iterator[Row]:
    title = f"{case.name}: {ours.name} / {theirs.name}"
    said = "-" if bar is None else f">= {bar}" if moonshot is None else f">= {bar} (moonshot {moonshot})"
    mine, other = (results.turns.get((case.name, one.name), []) for one in (ours, theirs))
    if not mine or not other or not all(turn.answers for turn in other):
        yield Row(f"{title}, {case.unit}", "not measured", said, bar is None)
        return
    found = compare_ratios(results.per_s(case, ours.name), results.per_s(case, theirs.name))
    yield Row(f"{title}, {case.unit}", f"{found:.3g}", said, bar is None or found.median >= bar)
    if bar is not None and all(turn.answers for turn in mine):
        times = compare_ratios([turn.us for turn in other], [turn.us for turn in mine])
        yield Row("  the same in processor time", f"{times:.3g}", "-", holds=True)


def _hit_beside_dispatch(results: Results) -> Row:
    hit, dispatch = results.per_s(HIT, ROUTER.name), results.per_s(DISPATCH, VLLM.name)
    value = f"{compare_ratios(hit, dispatch):.3g}" if hit and dispatch else "not measured"
    return Row(f"{HIT.name}: {ROUTER.name} / {VLLM.name}'s dispatch", value, "-", holds=True)


def _added(results: Results) -> Iterator[Row]:
    whole = f"added latency at {RATE:.0f}/s"
    first = f"added time to the first chunk at {STREAM_RATE:.0f}/s"
    parts: tuple[
        tuple[str, dict[str, list[Timings]], Callable[[Timings], list[float]], tuple[float, float | None]], ...
    ]
    parts = (
        (whole, results.whole, lambda one: one.whole_ms, (0.7, 3.0)),
        (first, results.streams, lambda one: one.first_ms, (1.0, None)),
    )
    for title, timings, of, bars in parts:
        for name in timings:
            for percentile, bar in zip((50, 99), bars, strict=True):
                if name != DIRECT and (bar is not None or name == ROUTER.name):
                    judged = bar if name == ROUTER.name else None
                    yield _difference(f"{title}, p{percentile}: {name}", timings, name, of, percentile, judged)
    if direct := results.whole.get(DIRECT):
        late = Spread.of([percentile_ms(one.late_ms, 99) for one in direct])
        yield Row("the load itself was late, p99", f"{late:.2f} ms", "-", holds=True)
    if results.whole or results.streams:
        failed = sum(one.failed for part in (results.whole, results.streams) for some in part.values() for one in some)
        yield Row("open loop: failed requests", str(failed), "0", failed == 0)


def _difference(
    title: str,
    timings: dict[str, list[Timings]],
    name: str,
    of: Callable[[Timings], list[float]],
    percentile: int,
    bar: float | None,
) -> Row:
    through, direct = ([percentile_ms(of(one), percentile) for one in timings[which]] for which in (name, DIRECT))
    found = compare_differences(through, direct)
    return Row(title, f"{found:.2f} ms", "-" if bar is None else f"<= {bar} ms", bar is None or found.median <= bar)


def _honest(results: Results) -> Iterator[Row]:
    """Whether the figures may be believed: no errors, no caches, the server's core the limit."""
    errors = sum(turn.load.errors.all for turns in results.turns.values() for turn in turns)
    yield Row("closed loop: errors", str(errors), "0", errors == 0)
    distinct = [case for case in CLOSED if not case.repeated]
    hits = [results.counters[key].hits for key in results.counters if key[0] in {case.name for case in distinct}]
    if hits:
        yield Row("distinct bodies: hits in this router's caches", str(sum(hits)), "0", sum(hits) == 0)
    from_cache = sorted(
        {
            name
            for (case, name), turns in results.turns.items()
            if case != HIT.name and sum(turn.asked for turn in turns) < sum(turn.load.answers for turn in turns)
        }
    )
    yield Row("answers that the upstream was not asked for", ", ".join(from_cache) or "none", "none", not from_cache)
    for (case, name), found in results.counters.items():
        if case == DISPATCH.name and found.requests:
            share = found.embedded / found.requests
            trials = found.trials / found.requests
            text = f"{share:.1%} embedded in full, {trials:.1%} on trial"
            yield Row(f"dispatch: prompts at {name}", text, "-", holds=True)
    idle = {
        f"{case}: {name}"
        for (case, name), turns in results.turns.items()
        for turn in turns
        if turn.server_busy < SATURATED
    }
    yield Row("not limited by the server's core in some turn", f"{len(idle)} of {len(results.turns)}", "-", holds=True)
    for name, reason in results.missing.items():
        yield Row(f"{name} takes no part", textwrap.shorten(reason, 60), "-", holds=True)
