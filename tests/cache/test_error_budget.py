"""The error budget: what its evidence is worth, and how it acts on streams of hits whose true rate is known."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache.error_budget import BudgetState, ErrorBudget, Gate, Measure, Step
from router.cache.evidence import Evidence, wilson
from router.config.cache import ErrorBudget as ErrorBudgetSection

ONE = b"1" * 32
SIMILARITY = 0.8


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def make_budget(clock: Clock | None = None, most_partitions: int = 100, **section: float) -> ErrorBudget:
    config = ErrorBudgetSection(**section)  # type: ignore[arg-type]
    return ErrorBudget(config, similarity=SIMILARITY, clock=clock or Clock(), most_partitions=most_partitions)


def hits_until_shut(budget: ErrorBudget, wrong: Callable[[float], float], rng: random.Random, most: int) -> int | None:
    """Serve hits of random similarity; `wrong` gives the chance that one of a similarity is wrong."""
    served = 0
    while served < most:
        gate = budget.gate(ONE)
        if gate.state is BudgetState.SHUT:
            return served
        similarity = rng.uniform(SIMILARITY, 1.0)
        if gate.passable and similarity >= gate.similarity:
            served += 1
            if budget.count_hit(ONE):
                budget.record(ONE, similarity, right=rng.random() >= wrong(similarity))
    return None


@given(st.integers(0, 12), st.floats(0.001, 0.9))
def test_the_evidence_is_expected_to_be_one_at_the_bound_and_less_below(count: int, bound: float) -> None:
    values = []
    for wrong in range(count + 1):
        evidence = Evidence(bound)
        for number in range(count):
            evidence.observe(failed=number < wrong)
        values.append(evidence.value)

    def expected(share: float) -> float:
        return sum(
            math.comb(count, wrong) * share**wrong * (1 - share) ** (count - wrong) * value
            for wrong, value in enumerate(values)
        )

    assert expected(bound) == pytest.approx(1.0, rel=1e-6)
    assert expected(bound / 3) <= 1.0 + 1e-9
    assert values == sorted(values)


def test_wilsons_interval_is_the_published_one() -> None:
    # as R gives it for 3 of 20, without its correction for continuity
    interval = wilson(3, 20)

    assert (interval.low, interval.share, interval.high) == pytest.approx((0.05237, 0.15, 0.36042), abs=1e-4)
    assert wilson(0, 0).high == 1.0


@pytest.mark.parametrize("rate", [0.001, 0.005])
def test_a_good_partition_is_hardly_ever_shut(rate: float) -> None:
    shut = sum(
        hits_until_shut(make_budget(), lambda _: rate, random.Random(f"{rate}/{run}"), 3_000) is not None
        for run in range(100)
    )

    assert shut < 5


def test_at_the_very_bound_it_is_shut_in_less_than_one_run_of_twenty() -> None:
    shut = sum(
        hits_until_shut(make_budget(), lambda _: 0.01, random.Random(f"bound/{run}"), 3_000) is not None
        for run in range(100)
    )

    assert shut < 5


def test_a_fifth_wrong_is_shut_soon() -> None:
    hits = sorted(
        hits_until_shut(make_budget(), lambda _: 0.2, random.Random(f"fifth/{run}"), 2_000) or 2_000
        for run in range(200)
    )

    assert hits[100] <= 30
    assert hits[190] <= 200


def test_all_wrong_is_shut_within_ten_hits() -> None:
    hits = [hits_until_shut(make_budget(), lambda _: 1.0, random.Random(run), 200) or 200 for run in range(50)]

    assert max(hits) <= 10


def test_what_is_wrong_only_near_the_threshold_is_mostly_cured_by_tightening() -> None:
    states = []
    for run in range(60):
        budget = make_budget()
        hits_until_shut(budget, lambda near: float(near < 0.85), random.Random(f"low/{run}"), 1_000)
        states.append(budget.gate(ONE).state)

    assert states.count(BudgetState.TIGHTENED) >= 36
    assert BudgetState.OPEN not in states


def record(budget: ErrorBudget, *similarities: float, right: bool = False) -> list[Measure]:
    """Audits of so many hits; what they led to."""
    measures = [budget.record(ONE, similarity, right=right) for similarity in similarities]
    return [measure for measure in measures if measure is not None]


def test_one_wrong_hit_is_no_evidence_yet() -> None:
    budget = make_budget()

    assert record(budget, 0.81) == []
    assert budget.gate(ONE).similarity == SIMILARITY


def test_the_similarity_rises_above_what_was_wrong_and_then_the_partition_shuts_and_opens_again() -> None:
    clock = Clock()
    budget = make_budget(clock, shut_s=100.0)

    (tightened,) = record(budget, 0.81, 0.83)
    raised = budget.gate(ONE)
    (shut,) = record(budget, 0.95, 0.96)
    closed = budget.gate(ONE)
    clock.now += 101

    assert (tightened.step, shut.step) == (Step.TIGHTENED, Step.SHUT)
    assert raised.state is BudgetState.TIGHTENED
    assert 0.83 < raised.similarity < 0.9
    assert closed.state is BudgetState.SHUT
    assert "2 of 2 audited hits were wrong" in closed.why
    assert "after the similarity had been raised" in closed.why
    assert budget.gate(ONE).state is BudgetState.TIGHTENED
    assert budget.gate(ONE).similarity == raised.similarity


def test_with_nothing_left_to_raise_it_shuts_at_once() -> None:
    budget = make_budget()

    (measure,) = record(budget, 0.999, 0.999)

    assert measure.step is Step.SHUT
    assert budget.gate(b"2" * 32).state is BudgetState.OPEN


def test_audits_of_hits_below_the_raised_similarity_count_no_more() -> None:
    budget = make_budget()
    record(budget, 0.81, 0.83)

    assert record(budget, 0.82, 0.82, 0.82) == []


def test_the_first_hits_are_audited_and_then_a_share() -> None:
    budget = make_budget(first_hits=10, share=0.05, most_unaudited=1_000)

    sampled = [budget.count_hit(ONE) for _ in range(410)]

    assert all(sampled[:10])
    assert sum(sampled[10:]) == 20


def test_without_audits_it_pauses_and_lets_one_hit_a_minute_through() -> None:
    clock = Clock()
    budget = make_budget(clock, most_unaudited=50)
    served = 0
    while budget.gate(ONE).passable:
        budget.count_hit(ONE)
        served += 1
    paused = budget.gate(ONE)
    clock.now += 61
    probe = budget.gate(ONE).passable, budget.count_hit(ONE), budget.gate(ONE).state
    record(budget, 0.9, right=True)

    assert served == 50
    assert (paused.state, paused.why) == (BudgetState.PAUSED, "50 hits since the last audit")
    assert probe == (True, True, BudgetState.PAUSED)
    assert budget.gate(ONE).state is BudgetState.OPEN


def test_after_a_wrong_one_each_hit_waits_for_its_audit() -> None:
    budget = make_budget()
    record(budget, 0.85)

    waits = []
    for _ in range(20):
        assert budget.count_hit(ONE)
        waits.append(budget.gate(ONE).state)
        record(budget, 0.9, right=True)

    assert waits[0] is BudgetState.PAUSED
    assert budget.gate(ONE).passable


def test_a_measure_holds_for_another_budget_too() -> None:
    budget, other = make_budget(), make_budget()
    (tightened,) = record(budget, 0.81, 0.83)
    other.learn(tightened)
    after_one = other.gate(ONE)
    (shut,) = record(budget, 0.95, 0.96)
    other.learn(shut)

    assert after_one == Gate(BudgetState.TIGHTENED, tightened.similarity)
    assert other.gate(ONE) == budget.gate(ONE)


def test_partitions_remembered_are_bounded_and_shut_ones_stay_longest() -> None:
    budget = make_budget(most_partitions=20)
    record(budget, 0.999, 0.999)

    for number in range(500):
        budget.count_hit(number.to_bytes(32, "big"))

    assert sum(budget.statistics().states.values()) == 20
    assert budget.gate(ONE).state is BudgetState.SHUT


def test_statistics_pool_all_and_name_the_worst() -> None:
    budget = make_budget()
    for number in range(100):
        budget.record(b"2" * 32, 0.9, right=number != 7)
    record(budget, 0.9, 0.9)

    now = budget.statistics()

    assert (now.audits, now.wrong) == (102, 3)
    assert now.pooled == wilson(3, 102)
    assert now.worst == wilson(2, 2)
    assert now.states[BudgetState.SHUT] == 1
