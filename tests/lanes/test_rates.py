import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.concurrency import Gradient
from router.rates import Rates, Sample, Work


def learn(rates: Rates, rng: np.random.Generator, count: int, *, streamed: bool = True, slow: float = 1.0) -> None:
    """Answers of a target with 30 ms overhead, 2,000 prompt and 100 answer tokens a second."""
    for _ in range(count):
        work = Work(float(rng.integers(10, 2000)), float(rng.integers(10, 200)))
        first_s = slow * (0.03 + work.prompt_tokens / 2000) * rng.uniform(0.9, 1.1)
        service_s = first_s + slow * work.completion_tokens / 100 * rng.uniform(0.9, 1.1)
        rates.add(Sample(work, service_s, first_s if streamed else None))


def test_rates_are_found_in_noisy_samples() -> None:
    rates = Rates()
    learn(rates, np.random.default_rng(0), 300)

    assert rates.decode_s == pytest.approx(1 / 100, rel=0.1)
    assert rates.prefill_s == pytest.approx(1 / 2000, rel=0.1)
    assert rates.overhead_s == pytest.approx(0.03, abs=0.03)
    assert rates.predict(Work(1000, 100)) == pytest.approx(1.53, rel=0.1)
    assert rates.predict_first(Work(1000, 100)) == pytest.approx(0.53, rel=0.1)


def test_rates_follow_a_target_that_gets_slower() -> None:
    rates = Rates()
    rng = np.random.default_rng(1)
    learn(rates, rng, 200)
    learn(rates, rng, 400, slow=3)

    assert rates.predict(Work(1000, 100)) == pytest.approx(3 * 1.53, rel=0.15)


def test_one_wild_sample_moves_nothing_much() -> None:
    rates = Rates()
    learn(rates, np.random.default_rng(2), 300)
    before = rates.predict(Work(1000, 100))

    rates.add(Sample(Work(1000, 100), 3600.0, 1800.0))

    assert rates.predict(Work(1000, 100)) == pytest.approx(before, rel=0.25)


def test_answers_that_were_not_streamed_teach_how_long_answers_take() -> None:
    rates = Rates()
    for _ in range(50):
        rates.add(Sample(Work(100, 50), 1.0))

    assert rates.predict(Work(100, 50)) == pytest.approx(1.0, rel=0.05)


def test_nothing_is_predicted_from_too_little() -> None:
    rates = Rates()
    learn(rates, np.random.default_rng(0), 4)
    assert not rates.known
    assert rates.predict(Work(10, 10)) == 0 == rates.predict_first(Work(10, 10))


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e5), st.floats(0, 1e4), st.floats(0, 1e4) | st.none()), max_size=40
    )
)
@settings(deadline=None)
def test_predictions_are_never_below_zero(samples: list[tuple[float, float, float, float | None]]) -> None:
    rates = Rates()
    for prompt, completion, service_s, first_s in samples:
        rates.add(Sample(Work(prompt, completion), service_s, first_s))
        for work in (Work(0, 0), Work(1, 1), Work(1e6, 1e6)):
            assert rates.predict(work) >= 0
            assert rates.predict_first(work) >= 0
            assert rates.service_s >= 0


def drive(limit: Gradient, room: int, count: int) -> None:
    """A target that runs `room` at once without slowing down, and slows down in proportion beyond."""
    for _ in range(count):
        limit.add(max(limit.slots / room, 1.0), limit.slots)


@pytest.mark.parametrize("room", [4, 16])
def test_the_limit_finds_how_many_fit(room: int) -> None:
    limit = Gradient(least=1, most=64)

    drive(limit, room, 2000)
    found = limit.slots

    assert room <= found <= 2 * room


def test_the_limit_falls_when_latency_rises_and_comes_back() -> None:
    limit = Gradient(least=2, most=32)
    drive(limit, 64, 300)
    high = limit.slots
    for _ in range(20):
        limit.add(4.0, limit.slots)
    low = limit.slots
    drive(limit, 64, 300)

    assert (high, limit.slots) == (32, 32)
    assert low <= 6


def test_few_running_say_nothing_of_the_limit() -> None:
    limit = Gradient(least=8, most=32)
    for _ in range(100):
        limit.add(1.0, 3)
    assert limit.slots == 8


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.integers(1, 100)), max_size=200))
@settings(deadline=None)
def test_the_limit_keeps_its_bounds(samples: list[tuple[float, int]]) -> None:
    limit = Gradient(least=2, most=9)
    for latency, running in samples:
        limit.add(latency, running)
        assert 2 <= limit.slots <= 9
