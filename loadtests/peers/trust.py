"""Whether a run's figures may be believed: no errors, no caches, the server's core the limit, the load in time."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

from loadtests.bench import Row
from loadtests.peers.cases import DISPATCH, HIT
from loadtests.peers.comparison import Spread
from loadtests.peers.contestants import ROUTER, SEMANTIC_ROUTER
from loadtests.peers.counters import Counters
from loadtests.peers.latency import percentile_ms
from loadtests.peers.run import Results

SATURATED: Final = 0.95
"""A turn in which the server's core was less busy was not limited by it."""
_LATE_MS: Final = 0.5


def judge_trust(results: Results) -> Iterator[Row]:
    """A row for each reason to doubt."""
    yield from _errors(results)
    yield from _caches(results)
    yield from _cores(results)
    if sent := [one for some in results.whole.values() for one in some]:
        late = Spread.of([percentile_ms(one.late_ms, 99) for one in sent])
        note = " (too late to judge by)" if late.median > _LATE_MS else ""
        yield Row("the open load itself was late, p99", f"{late:.2f} ms{note}", "-", holds=True)
    for name, reason in results.missing.items():
        yield Row(f"{name} takes no part", textwrap.shorten(reason, 60), "-", holds=True)


def _errors(results: Results) -> Iterator[Row]:
    if results.turns:
        errors = {key: sum(turn.load.errors.all for turn in turns) for key, turns in results.turns.items()}
        yield Row("closed load: errors", _list_counts(errors), "0", not any(errors.values()))
    if results.whole or results.streams:
        failed = sum(one.failed for part in (results.whole, results.streams) for some in part.values() for one in some)
        yield Row("open load: errors", str(failed), "0", failed == 0)


def _caches(results: Results) -> Iterator[Row]:
    distinct = {key: found for key, found in results.counters.items() if key[0] != HIT.name}
    if distinct:
        hits = {(case, name): _hits(name, found) for (case, name), found in distinct.items()}
        yield Row("distinct bodies: hits in this router's caches", _list_counts(hits), "0", not any(hits.values()))
    for (case, name), found in distinct.items():
        if case == DISPATCH.name and found.requests:
            asked, late, tried = (n / found.requests for n in (found.embedded, found.not_had, found.trials))
            text = f"{asked:.2f} ({late:.2f} not had in time), {tried:.2f}"
            yield Row(f"full embeddings and trials a request: {name}", text, "-", holds=True)
    dispatched = {key: turns for key, turns in results.turns.items() if key[0] != HIT.name}
    if dispatched:
        short = {
            name for (_, name), turns in dispatched.items() if sum(turn.asked - turn.load.answers for turn in turns) < 0
        }
        text = ", ".join(sorted(short)) or "none"
        yield Row("distinct bodies: answers without the upstream", text, "none", not short)
    if repeated := results.turns.get((HIT.name, ROUTER.name)):
        count = sum(turn.asked for turn in repeated)
        yield Row("one body again and again: asked of the upstream", str(count), "0", count == 0)


def _list_counts(counts: Mapping[tuple[str, str], int]) -> str:
    """Where they are not zero."""
    return "; ".join(f"{name}, {case}: {count}" for (case, name), count in counts.items() if count) or "0"


def _hits(name: str, found: Counters) -> int:
    """With the semantic cache a request's own vector, made for the score, is found there a moment later."""
    return found.answer_hits + (0 if name == SEMANTIC_ROUTER.name else found.vector_hits)


def _cores(results: Results) -> Iterator[Row]:
    turns = [turn for some in results.turns.values() for turn in some]
    if turns:
        idle = sum(turn.server_busy < SATURATED for turn in turns)
        disturbed = sum(turn.server_busy - turn.own_busy > 1 - SATURATED for turn in turns)
        yield Row("turns that the server's core did not limit", f"{idle} of {len(turns)}", "-", holds=True)
        yield Row("turns in which others had over 5% of that core", f"{disturbed} of {len(turns)}", "-", holds=True)
