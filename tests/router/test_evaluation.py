"""The measures, on cases that a person can work out, and beside the program that wrote the definitions down."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from router.evaluation.errors import EvaluationError
from router.evaluation.metrics import (
    Sample,
    assess,
    compare,
    domain_napgr,
    draw_weights,
    measure_ordering,
    quality_at,
    share_reaching,
    within_domains,
)
from router.evaluation.reliability import expected_ece, make_bins, measure_brier, measure_ece, measure_skill

REFERENCE = Path("shared", "routing-eval", "evaluate.py")
FOUR = Sample.of([1, 0, 0, 1], [1, 1, 1, 0])  # gains 0, 1, 1, -1


def point(sample: Sample, score: "list[float]") -> dict[str, float]:
    """Every measure on the sample itself."""
    measures = measure_ordering(sample, np.array(score, float), np.ones((1, len(sample))))
    return {name: float(getattr(measures, name)[0]) for name in type(measures).__slots__}


def random_case(seed: int, count: int = 300) -> tuple[Sample, "np.ndarray[Any, Any]"]:
    """Answers in thirds and scores with ties, somewhat related."""
    rng = np.random.default_rng(seed)
    edge = rng.integers(0, 4, count) / 3
    cloud = np.maximum(edge, rng.integers(0, 4, count) / 3) - (rng.random(count) < 0.1) / 3
    return Sample(edge, cloud), np.round(0.5 + (cloud - edge) / 4 + rng.normal(0, 0.2, count), 1)


def test_a_case_worked_by_hand() -> None:
    # calls in the order of gains 1, 0, 1, -1: quality gained 0, 1, 1, 2, 1 after 0..4 calls; the gap is 1
    found = point(FOUR, [0.6, 0.9, 0.4, 0.1])

    assert found["apgr"] == pytest.approx((0.5 + 1 + 1.5 + 1.5) / 4)
    assert found["cpt50"] == pytest.approx(0.125)
    assert found["cpt80"] == pytest.approx(0.2)
    assert found["auroc"] == pytest.approx(3 / 4)
    assert found["oracle"] == pytest.approx((0.5 + 1.5 + 2 + 1.5) / 4)
    assert found["napgr"] == pytest.approx((4.5 / 4 - 0.5) / (5.5 / 4 - 0.5))
    assert found["calls95"] == pytest.approx((0.95 * 3 - 2) / 4)


def test_a_share_that_is_reached_exactly_and_then_kept_counts_from_its_first_call() -> None:
    assert point(Sample.of([0, 1, 0], [1, 1, 1]), [0.9, 0.5, 0.1])["cpt50"] == pytest.approx(1 / 3)


def test_equal_scores_are_a_random_order_whatever_the_file_says() -> None:
    found = point(FOUR, [0.3, 0.3, 0.3, 0.3])

    assert found["apgr"] == 0.5
    assert found["cpt50"] == 0.5
    assert found["auroc"] == 0.5
    assert found["napgr"] == 0.0


def test_the_true_gain_is_the_ceiling() -> None:
    found = point(FOUR, [0.0, 1.0, 1.0, -1.0])

    assert found["apgr"] == found["oracle"]
    assert found["napgr"] == 1.0
    assert found["auroc"] == 1.0


def test_a_share_that_is_never_reached_is_not_a_number() -> None:
    level = Sample.of([0, 1], [1, 1])

    assert share_reaching(level, np.array([0.9, 0.1]), 0.75) == pytest.approx(0.25)
    assert share_reaching(level, np.array([0.9, 0.1]), 0.5) == 0.0
    assert share_reaching(level, np.array([0.9, 0.1]), 1.01) is None


def test_quality_at_shares_runs_from_the_edges_to_the_clouds() -> None:
    quality = quality_at(FOUR, np.array([0.6, 0.9, 0.4, 0.1]), np.array([0, 0.25, 0.5, 1.0]), np.ones((1, 4)))

    assert quality[0] == pytest.approx([0.5, 0.75, 0.75, 0.75])


def test_a_cloud_that_is_no_better_has_no_gap() -> None:
    with pytest.raises(EvaluationError, match="no gap to recover"):
        assess(Sample.of([1, 1], [1, 0]), np.array([0.2, 0.3]))


def test_drawing_a_row_twice_is_having_it_twice() -> None:
    sample, score = random_case(3, 40)
    weights = next(iter(draw_weights(40, 1, seed=5)))
    rows = np.repeat(np.arange(40), weights[0].astype(int))

    drawn = measure_ordering(sample, score, weights)

    copied = point(sample.take(rows), score[rows].tolist())
    assert {name: float(getattr(drawn, name)[0]) for name in copied} == pytest.approx(copied)


def test_a_paired_difference_is_narrower_than_the_two_apart() -> None:
    sample, score = random_case(1, 400)
    near = score + np.random.default_rng(0).normal(0, 0.01, 400)

    paired = compare(sample, near, score)

    alone = assess(sample, score).apgr
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    assert paired.low < 0 < paired.high
    assert compare(sample, score, score).high == 0
    assert compare(sample, sample.gain, score).low > 0


def test_within_domains_the_topic_is_worth_nothing() -> None:
    sample = Sample.of([1, 0, 1, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 0])
    domains = list("aaaabbbb")
    topic = np.array([0.9] * 4 + [0.1] * 4)

    assert within_domains(sample, topic, domains).value == 0.0
    assert within_domains(sample, sample.gain, domains).value == 1.0


def test_a_domain_whose_gains_are_all_equal_has_nothing_to_order() -> None:
    assert np.isnan(domain_napgr(Sample.of([1, 1], [0, 0]), np.array([0.1, 0.2]), np.ones((1, 2)))[0])


def test_within_a_domain_without_a_gap_order_still_counts() -> None:
    losing = Sample.of([1, 1, 0], [0, 0, 1])  # the cloud loses two and wins one

    best = domain_napgr(losing, np.array([0.1, 0.2, 0.9]), np.ones((1, 3)))
    worst = domain_napgr(losing, np.array([0.9, 0.8, 0.1]), np.ones((1, 3)))

    assert (best[0], worst[0]) == pytest.approx((1.0, -1.0))


def test_brier_skill_and_calibration_error_by_hand() -> None:
    gained = np.array([True, False, True, True])
    score = np.array([0.9, 0.1, 0.9, 0.1])

    bins = make_bins(gained, score)

    assert measure_brier(gained, score) == pytest.approx((0.01 + 0.01 + 0.01 + 0.81) / 4)
    assert measure_skill(gained, score).value == pytest.approx(1 - 0.21 / (0.75 * 0.25))
    assert [(one.count, one.gained_share) for one in bins] == [(2, 0.5), (2, 1.0)]
    assert measure_ece(bins) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)


def test_always_the_base_rate_has_no_skill_and_a_constant_one_has_no_error() -> None:
    gained = np.arange(100) < 30

    assert measure_skill(gained, np.full(100, 0.3)).value == pytest.approx(0)
    assert measure_ece(make_bins(gained, np.full(100, 0.3))) == pytest.approx(0)
    assert make_bins(np.array([True]), np.array([1.0]))[0].count == 1


def test_a_perfect_predictors_error_shrinks_with_rows_and_is_what_simulation_says() -> None:
    few, many = (expected_ece(np.full(count, 0.5)) for count in (100, 10_000))

    assert few.value == pytest.approx(0.5 * math.sqrt(2 / (math.pi * 100)), rel=0.1)  # E|N(0, p(1-p)/n)|
    assert many.value == pytest.approx(few.value / 10, rel=0.2)
    assert few.low < few.value < few.high


def reference() -> ModuleType:
    """The evaluation program that wrote the definitions down."""
    path = next((above / REFERENCE for above in Path(__file__).parents if (above / REFERENCE).is_file()), None)
    if path is None:
        pytest.skip(f"{REFERENCE} is neither in nor beside this checkout")
    spec = importlib.util.spec_from_file_location("reference_evaluation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(5))
def test_values_and_intervals_are_the_reference_programs(seed: int) -> None:
    sample, score = random_case(seed)

    theirs = reference().evaluate(sample.edge, sample.cloud, score, bootstrap=200, seed=seed)

    ours = assess(sample, score, resamples=200, seed=seed)
    for name in ("APGR", "CPT50", "CPT80", "AUROC", "ORACLE", "NAPGR", "CALLS95"):
        found = getattr(ours, name.lower())
        assert [found.value, found.low, found.high] == pytest.approx([theirs[name], *theirs[name + "_ci"]]), name
