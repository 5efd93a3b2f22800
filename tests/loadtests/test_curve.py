"""What `make bench-load` makes of its arms."""

import random

import pytest

from loadtests.bench_load import Arm, accuracy_above, best_mix, draw_curve, latency_below, list_rows
from tests.loadtests.runs import make_record, make_table

COUNT = 400


def make_arm(name: str, took_s: float, accuracy: float, *, lost: int = 0) -> Arm:
    """An arm with latencies around a mean, and exactly so many right answers."""
    rng = random.Random(name)
    right = [n < accuracy * COUNT for n in range(COUNT)]
    rng.shuffle(right)
    records = [
        make_record(n, due=n, took=took_s * rng.uniform(0.8, 1.2), right=right[n], status=429 if n < lost else 200)
        for n in range(COUNT)
    ]
    return Arm(name, 10.0, make_table(records), [])


EDGE, CLOUD = make_arm("all edge", 0.1, 0.6), make_arm("all cloud", 1.0, 0.97)


@pytest.mark.parametrize(("cost", "value"), [(0.5, 1.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (9.0, 3.0)], ids=str)
def test_best_mix_is_the_upper_hull(cost: float, value: float) -> None:
    assert best_mix([(1.0, 1.0), (2.0, 0.5), (3.0, 3.0), (4.0, 2.0)], cost) == pytest.approx(value)


def test_better_routing_is_shown_better() -> None:
    routed = make_arm("routed", 0.4, 0.92)
    above, below = accuracy_above(routed, [EDGE, CLOUD]), latency_below(routed, [EDGE, CLOUD])
    assert above.value == pytest.approx(0.92 - (0.6 + 0.37 / 3), abs=0.06)
    assert above.low > 0
    assert below.value == pytest.approx(100 + 900 * 0.32 / 0.37 - 400, abs=120)
    assert below.low > 0


def test_a_coin_is_not_shown_better() -> None:
    coin = make_arm("routed", 0.55, 0.785)
    assert accuracy_above(coin, [EDGE, CLOUD]).low < 0
    assert latency_below(coin, [EDGE, CLOUD]).low < 0


def test_rows_fail_when_requests_are_lost() -> None:
    routed = make_arm("routed", 0.4, 0.92)
    good = {row.name: row.holds for row in list_rows([EDGE, CLOUD, routed], 5.0)}
    assert all(good.values())
    lossy = make_arm("all cloud", 1.0, 0.97, lost=3)
    bad = {row.name: row.holds for row in list_rows([EDGE, lossy, routed], 5.0)}
    assert [name for name, holds in bad.items() if not holds] == ["unanswered"]
    assert lossy.right[:3].tolist() == [0, 0, 0]


def test_curve_has_a_dot_for_each_arm() -> None:
    charts = list(draw_curve([EDGE, CLOUD, make_arm("routed", 0.4, 0.92)]))
    assert len(charts) == 3
    assert [dot.title for dot in charts[0].dots] == ["all edge", "all cloud", "routed"]
