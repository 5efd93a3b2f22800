"""Two runs side by side: each figure of both, and an interval for how they differ."""

from collections.abc import Iterator, Sequence

import numpy as np

from loadtests.swarm.measures import Measure, Table, Vector, measure
from loadtests.swarm.run import Run
from loadtests.swarm.summary import spell
from router.evaluation.metrics import Interval

COMPARED: dict[Measure, bool] = {
    Measure.ANSWERED_PER_S: True,
    Measure.GOODPUT_PER_S: True,
    Measure.ACCURACY: True,
    Measure.LATENCY_MEAN_MS: False,
    Measure.LATENCY_P50_MS: False,
    Measure.LATENCY_P99_MS: False,
    Measure.FIRST_TOKEN_P50_MS: False,
    Measure.QUEUE_P99_MS: False,
    Measure.OVERHEAD_P50_MS: False,
    Measure.CLOUD_SHARE: False,
    Measure.CACHED_SHARE: True,
    Measure.FAILED_SHARE: False,
    Measure.REFUSED_SHARE: False,
    Measure.MISSED_SHARE: False,
}
"""Whether more is better."""
_RESAMPLES = 400
_DEVIATIONS = 2.81
"""99.5%: a dozen figures are compared at once, and one of them should seldom differ by chance."""
_LEAST_PART = 0.01
"""A change of less than 1% is none, however sure."""
_SAME = "no difference shown"
_SLICES = 20
"""Requests near each other wait for the same things: slices of the run's time are drawn, not single requests."""


def compare_runs(before: Run, after: Run, *, seed: int = 0) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of measure, before, after, difference with its 99.5% interval, and what that says."""
    earlier, later = before.table, after.table
    for one, more_is_better in COMPARED.items():
        values = measure(one, earlier), measure(one, later)
        difference = differ(one, earlier, later, seed=seed)
        if not np.isfinite(difference.value):
            continue
        span = f"{difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}]"
        tiny = abs(difference.value) < _LEAST_PART * abs(values[0])
        verdict = _SAME if tiny else _verdict(difference, more_is_better=more_is_better)
        yield one.value, spell(values[0]), spell(values[1]), span, verdict


def differ(one: Measure, earlier: Table, later: Table, *, seed: int = 0) -> Interval:
    """The later's figure minus the earlier's, with a bootstrap over slices of each run's time.

    The interval is the bootstrap's standard error times 2.81.
    """
    rng = np.random.default_rng(seed)
    drawn = _draw(one, later, rng) - _draw(one, earlier, rng)
    value = measure(one, later) - measure(one, earlier)
    room = _DEVIATIONS * float(np.nanstd(drawn)) if np.isfinite(drawn).any() else float("nan")
    return Interval(value, value - room, value + room)


def differing_keys(before: Run, after: Run) -> Sequence[str]:
    """What the scenarios do not have in common, objectives and summary aside."""
    told = {"objectives", "summary"}
    keys = [key for key in before.scenario.__struct_fields__ if key not in told]
    return [key for key in keys if getattr(before.scenario, key) != getattr(after.scenario, key)]


def _draw(one: Measure, table: Table, rng: np.random.Generator) -> Vector:
    edges = np.linspace(table.due.min(), table.due.max(), _SLICES + 1)
    slices = np.digitize(table.due, edges[1:-1])
    rows = [np.flatnonzero(slices == index) for index in range(_SLICES)]
    drawn = [np.concatenate([rows[index] for index in rng.integers(0, _SLICES, _SLICES)]) for _ in range(_RESAMPLES)]
    return np.array([measure(one, table.where(chosen)) for chosen in drawn])


def _verdict(difference: Interval, *, more_is_better: bool) -> str:
    if difference.low <= 0 <= difference.high:
        return _SAME
    return "better" if (difference.value > 0) is more_is_better else "worse"
