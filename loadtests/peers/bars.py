"""What has to hold of a run's figures, and what stands beside it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.bench import Row
from loadtests.peers.cases import DISPATCH, HIT, LATENCY, STREAM, Case
from loadtests.peers.comparison import compare_differences, compare_ratios
from loadtests.peers.contestants import (
    BARE,
    BARE_DISPATCH,
    BARE_OWN_DISPATCH,
    CHECKING_ROUTER,
    EMBEDDING_ROUTER,
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
from loadtests.peers.trust import judge_trust

_NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours has to be so many times theirs, or that is only shown; `moonshot` is what to dream of."""

    case: Case
    ours: Contestant
    theirs: Contestant
    bar: float | None = None
    moonshot: float | None = None

    @property
    def name(self) -> str:
        """As the table says it."""
        return f"{self.case.name}: {self.ours.name} / {self.theirs.name}"

    @property
    def said(self) -> str:
        """The bar, as the table says it."""
        if self.bar is None:
            return "-"
        return f">= {self.bar}" if self.moonshot is None else f">= {self.bar} (moonshot {self.moonshot})"


@dataclass(frozen=True, slots=True)
class Added:
    """What this router may add to a percentile of the upstream's own times; None: it is only shown."""

    name: str
    timings: Callable[[Results], dict[str, list[Timings]]]
    values: Callable[[Timings], list[float]]
    percentile: float
    most_ms: float | None


RATIOS: Final = (
    Ratio(DISPATCH, ROUTER, BARE_DISPATCH, 0.55, moonshot=0.7),
    Ratio(DISPATCH, ROUTER, VLLM, 0.15, moonshot=0.3),
    Ratio(DISPATCH, ROUTER, LITELLM, 12.0),
    Ratio(DISPATCH, ROUTER, BARE_OWN_DISPATCH),
    Ratio(DISPATCH, ROUTER, NGINX),
    Ratio(DISPATCH, ROUTER, SGLANG),
    Ratio(DISPATCH, CHECKING_ROUTER, BARE_DISPATCH),
    Ratio(DISPATCH, EMBEDDING_ROUTER, BARE_DISPATCH),
    Ratio(DISPATCH, EMBEDDING_ROUTER, VLLM),
    Ratio(DISPATCH, SEMANTIC_ROUTER, BARE_DISPATCH),
    Ratio(DISPATCH, SEMANTIC_ROUTER, VLLM),
    Ratio(DISPATCH, SEMANTIC_ROUTER, LITELLM),
    Ratio(HIT, ROUTER, BARE, 0.5, moonshot=0.7),
    Ratio(STREAM, ROUTER, VLLM, 0.3),
    Ratio(STREAM, EMBEDDING_ROUTER, VLLM),
    Ratio(STREAM, ROUTER, BARE_DISPATCH),
)
_WHOLE: Final = f"added latency at {RATE:.0f}/s"
_FIRST: Final = f"added time to the first chunk at {STREAM_RATE:.0f}/s"
ADDED: Final = (
    Added(f"{_WHOLE}, p50", lambda results: results.whole, lambda timings: timings.whole_ms, 50, 0.7),
    Added(f"{_WHOLE}, p99", lambda results: results.whole, lambda timings: timings.whole_ms, 99, 3.0),
    Added(f"{_FIRST}, p50", lambda results: results.streams, lambda timings: timings.first_ms, 50, 1.0),
    Added(f"{_FIRST}, p99", lambda results: results.streams, lambda timings: timings.first_ms, 99, None),
)


def judge(results: Results, names: frozenset[str], wanted: frozenset[str]) -> list[Row]:
    """A row for each bar of the cases and contestants that this run was to measure; one without figures fails."""
    rows: list[Row] = []
    for ratio in RATIOS:
        if ratio.case.name in names and {ratio.ours.name, ratio.theirs.name} <= wanted:
            rows += _judge_ratio(results, ratio)
    if {HIT.name, DISPATCH.name} <= names and {ROUTER.name, VLLM.name} <= wanted:
        rows.append(_set_hit_beside_dispatch(results))
    if LATENCY in names:
        for added in ADDED:
            rows += _judge_added(results, added)
    return [*rows, *judge_trust(results)]


def _judge_ratio(results: Results, ratio: Ratio) -> Iterator[Row]:
    ours, theirs = (results.turns.get((ratio.case.name, one.name), []) for one in (ratio.ours, ratio.theirs))
    name = f"{ratio.name}, {ratio.case.unit}"
    if not ours or not theirs or not all(turn.answers for turn in theirs):
        yield Row(name, _NOT_MEASURED, ratio.said, ratio.bar is None)
        return
    found = compare_ratios([turn.per_s for turn in ours], [turn.per_s for turn in theirs])
    yield Row(name, f"{found:.3g}", ratio.said, ratio.bar is None or found.median >= ratio.bar)
    if ratio.bar is not None and all(turn.answers for turn in ours):
        times = compare_ratios([turn.us for turn in theirs], [turn.us for turn in ours])
        yield Row("  the same in processor time", f"{times:.3g}", "-", holds=True)


def _set_hit_beside_dispatch(results: Results) -> Row:
    hit, dispatch = results.per_s(HIT, ROUTER.name), results.per_s(DISPATCH, VLLM.name)
    value = f"{compare_ratios(hit, dispatch):.3g}" if hit and dispatch and all(dispatch) else _NOT_MEASURED
    return Row(f"{HIT.name}: {ROUTER.name} / {VLLM.name}'s dispatch", value, "-", holds=True)


def _judge_added(results: Results, added: Added) -> Iterator[Row]:
    timings = added.timings(results)
    bar = "-" if added.most_ms is None else f"<= {added.most_ms} ms"
    if ROUTER.name not in timings:
        yield Row(f"{added.name}: {ROUTER.name}", _NOT_MEASURED, bar, added.most_ms is None)
    for name in timings:
        if name == DIRECT:
            continue
        found = compare_differences(_percentiles(added, timings[name]), _percentiles(added, timings[DIRECT]))
        judged = name == ROUTER.name and added.most_ms is not None
        holds = not judged or added.most_ms is None or found.median <= added.most_ms
        yield Row(f"{added.name}: {name}", f"{found:.2f} ms", bar if judged else "-", holds)


def _percentiles(added: Added, timings: Sequence[Timings]) -> list[float]:
    return [percentile_ms(added.values(one), added.percentile) for one in timings]
