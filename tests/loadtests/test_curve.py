"""What `make bench-load` makes of its arms."""

import random
from collections.abc import Sequence
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from loadtests.bench_load import FILL_S, draw_curve, list_cells, list_rows, throughput, write_table
from loadtests.curve import Arm, accuracy_above, best_mix, in_turns, latency_below
from loadtests.swarm.page import draw_svg
from tests.loadtests.runs import CALM, make_record, make_run, make_table

ROUNDS, COUNT = 4, 100


def make_arm(name: str, took_s: float, accuracy: float, *, lost: int = 0, seed: str = "") -> Arm:
    """An arm with latencies around a mean, exactly so many right answers, and `lost` of each turn without any."""
    rng = random.Random(f"{name}{seed}")
    right = [n < accuracy * ROUNDS * COUNT for n in range(ROUNDS * COUNT)]
    rng.shuffle(right)
    turns = [
        make_table(
            [
                make_record(
                    n,
                    due=n,
                    took=took_s * rng.uniform(0.8, 1.2),
                    right=right.pop(),
                    status=429 if n < lost else 200,
                    tier=name.rsplit(maxsplit=1)[-1],
                )
                for n in range(COUNT)
            ]
        )
        for _ in range(ROUNDS)
    ]
    return Arm(name, [9.0, 11.0, 10.0], turns, [CALM])


EDGE, CLOUD = make_arm("all edge", 0.1, 0.6), make_arm("all cloud", 1.0, 0.97)
FIXED = [EDGE, CLOUD]


@pytest.mark.parametrize(("cost", "value"), [(0.5, 1.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (9.0, 3.0)], ids=str)
def test_best_mix_is_the_upper_hull(cost: float, value: float) -> None:
    assert best_mix([(1.0, 1.0), (2.0, 0.5), (3.0, 3.0), (4.0, 2.0)], cost) == pytest.approx(value)


def test_means_of_an_arm() -> None:
    accuracy, latency = CLOUD.accuracy(), CLOUD.latency_ms()
    assert accuracy.value == pytest.approx(0.97)
    assert accuracy.low < 0.97 < accuracy.high
    assert latency.value == pytest.approx(float(CLOUD.table.latency_ms.mean()))
    assert latency.low < latency.value < latency.high
    assert [turn[:, 0].tolist() for turn in CLOUD.totals()] == [[25] * 4] * ROUNDS


def test_better_routing_is_shown_better() -> None:
    routed = make_arm("routed", 0.4, 0.92)
    above, below = accuracy_above(routed, FIXED), latency_below(routed, FIXED)
    assert above.value == pytest.approx(0.92 - (0.6 + 0.37 / 3), abs=0.02)
    assert above.low > 0
    assert below.value == pytest.approx(100 + 900 * 0.32 / 0.37 - 400, abs=40)
    assert below.low > 0
    assert np.mean(in_turns(accuracy_above, routed, FIXED)) == pytest.approx(above.value, abs=0.03)


def test_a_coin_is_seldom_shown_better() -> None:
    """On the line between the tiers: one in forty is above it by chance."""
    coins = [make_arm("routed", 0.55, 0.785, seed=str(n)) for n in range(20)]
    for measure in (accuracy_above, latency_below):
        assert sum(measure(coin, FIXED).low > 0 for coin in coins) <= 3


def make_wavy(slice_s: float, round_s: float) -> Arm:
    """Half a second, more and less by turns: from slice to slice, and from round to round."""
    turns = [
        make_table(
            [make_record(n, due=n, took=0.5 + slice_s * (-1) ** (n // 25) + round_s * sign) for n in range(COUNT)]
        )
        for sign in (1, -1) * (ROUNDS // 2)
    ]
    return Arm("routed", [1.0], turns)


@pytest.mark.parametrize(("slice_s", "round_s", "error_ms"), [(0, 0, 0), (0.3, 0, 300 / 4), (0, 0.3, 300 / 2)])
def test_questions_that_wait_together_count_as_one(slice_s: float, round_s: float, error_ms: float) -> None:
    """The standard error is that of 16 slices or 4 rounds, and not of 400 questions."""
    mean = make_wavy(slice_s, round_s).latency_ms()
    assert mean.value == pytest.approx(500)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * error_ms, rel=0.2, abs=1e-6)


def failing(arms: Sequence[Arm]) -> list[str]:
    """Names of the bars that do not hold."""
    return [row.name for row in list_rows(arms, 5.0) if not row.holds]


def test_rows_fail_when_requests_are_lost() -> None:
    routed = make_arm("routed", 0.4, 0.92)
    assert failing([*FIXED, routed]) == []
    lossy = make_arm("all cloud", 1.0, 0.97, lost=3)
    assert failing([EDGE, lossy, routed]) == ["unanswered"]
    assert lossy.accuracy().value < CLOUD.accuracy().value


def test_rows_fail_when_the_generator_or_a_tier_was_not_well() -> None:
    routed = make_arm("routed", 0.4, 0.92)
    busy = Arm("routed", routed.per_s, routed.turns, [msgspec.structs.replace(CALM, busy=0.99)])
    assert failing([*FIXED, busy]) == ["arms in which the generator was a bottleneck"]
    degraded = make_table([make_record(n, due=n, took=1.0, degraded="fallback") for n in range(COUNT)])
    fallen = Arm("all cloud", CLOUD.per_s, [degraded] * ROUNDS, [CALM])
    assert "answered by a fallback" in failing([EDGE, fallen, routed])


def test_rows_fail_when_routing_is_no_better_than_a_coin() -> None:
    assert set(failing([*FIXED, make_arm("routed", 0.7, 0.7)])) == {
        "accuracy above the best fixed mix that is no slower",
        "mean latency below the fastest as accurate fixed mix",
    }


def test_throughput_counts_what_ends_while_all_ask() -> None:
    """Ten a second from the first moment; the last two seconds of twelve are after the users' end."""
    run = make_run([make_record(n, due=n / 10, took=0.05) for n in range(120)])
    assert run.scenario.shape.duration_s == 10
    assert throughput(run) == pytest.approx(10, abs=2 / (10 - FILL_S))
    lost = make_run([make_record(n, due=n / 10, took=0.05, status=500 * (n % 2) or 200) for n in range(120)])
    assert throughput(lost) == pytest.approx(5, abs=2 / (10 - FILL_S))


def test_table_has_a_line_for_each_arm() -> None:
    arms = [*FIXED, make_arm("routed", 0.4, 0.92)]
    table = write_table(arms, list(list_rows(arms, 5.0)), ["a fact."])
    lines = table.splitlines()
    assert lines[0] == "a fact."
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:] == [f"| {arm.name}" for arm in arms]
    assert list_cells(CLOUD)[1] == "10.0 [9.0, 11.0]"
    assert list_cells(CLOUD)[-1] == "1.000"
    assert "(interval above 0: holds)" in table


def test_curve_has_a_dot_for_each_arm() -> None:
    charts = list(draw_curve([EDGE, CLOUD, make_arm("routed", 0.4, 0.92)]))
    assert len(charts) == 3
    assert [dot.title for dot in charts[0].dots] == ["all edge", "all cloud", "routed"]
    alone = ElementTree.fromstring(draw_svg(charts[0]))
    assert alone.tag == "{http://www.w3.org/2000/svg}svg"
    words = [text.text for text in alone.iter("{http://www.w3.org/2000/svg}text")]
    assert {"all edge", "all cloud", "routed"} <= set(words)
