"""Whether a run kept its objectives."""

import math
from collections.abc import Sequence

from loadtests.bench import Row
from loadtests.swarm.measures import Table, measure
from loadtests.swarm.scenario import Objective


def judge_objectives(objectives: Sequence[Objective], table: Table) -> list[Row]:
    """A row each; one that has nothing to measure does not hold."""
    rows = []
    for one in objectives:
        value = measure(one.measure, table.only(one.only.columns))
        low, high = one.least, one.most
        holds = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        limits = [f">= {low:g}" if low is not None else "", f"<= {high:g}" if high is not None else ""]
        rows.append(Row(one.name, f"{value:.4g}", " and ".join(filter(None, limits)), holds))
    return rows
