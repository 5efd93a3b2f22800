import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.lanes import Quota, Quotas
from router.errors import QuotaError
from router.quota import Accounts, format_duration


def accounts(
    requests: float | None = 60, tokens: float | None = 6000, burst_s: float = 60, most: int = 100
) -> Accounts:
    quota = Quota(requests_per_min=requests, tokens_per_min=tokens, burst_s=burst_s)
    return Accounts(Quotas(default=quota, most_tenants=most))


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 400), st.floats(0, 1)), max_size=120),
    st.sampled_from([1.0, 10.0, 60.0]),
)
@settings(deadline=None)
def test_no_window_takes_more_than_its_rate_and_one_burst(asks: list[tuple[float, int, float]], burst_s: float) -> None:
    """Every request uses at most its estimate, and is settled at once."""
    limits = accounts(60, 6000, burst_s)
    taken: list[tuple[float, float]] = []
    now = 0.0
    for pause_s, tokens, part in asks:
        now += pause_s
        try:
            hold = limits.reserve("ann", tokens, now)
        except QuotaError:
            continue
        limits.settle(hold, tokens * part, now)
        taken.append((now, tokens * part))

    for i, (start, _) in enumerate(taken):
        for j, (end, _) in enumerate(taken[i:], i):
            assert j - i + 1 <= max(burst_s, 1) + (end - start) + 1e-6
            assert sum(used for _, used in taken[i : j + 1]) <= 100 * burst_s + 100 * (end - start) + 1e-6


@given(st.floats(0, 3), st.integers(1, 600))
@settings(deadline=None)
def test_who_comes_back_when_told_is_admitted_and_not_sooner(pause_s: float, tokens: int) -> None:
    limits = accounts(60, 600, 60)
    limits.reserve("ann", 600, 0)

    with pytest.raises(QuotaError) as refused:
        limits.reserve("ann", tokens, 0)
    after_s = refused.value.retry_after_s
    assert after_s is not None
    with pytest.raises(QuotaError):
        limits.reserve("ann", tokens, after_s * 0.99)

    limits.reserve("ann", tokens, after_s + 1e-9)


def test_an_estimate_that_was_too_high_is_given_back_and_one_too_low_paid() -> None:
    limits = accounts(tokens=6000)
    high = limits.reserve("ann", 5000, 0)
    limits.settle(high, 100, 0)
    low = limits.reserve("ann", 5800, 0)
    limits.settle(low, 6900, 0)
    limits.settle(low, 0, 0)

    with pytest.raises(QuotaError) as refused:
        limits.reserve("ann", 1, 0)

    assert refused.value.retry_after_s == pytest.approx(10.01)


def test_a_refusal_takes_nothing() -> None:
    limits = accounts(requests=60, tokens=600)
    for _ in range(100):
        with pytest.raises(QuotaError):
            limits.reserve("ann", 601, 0)

    for _ in range(60):
        limits.reserve("ann", 10, 0)


def test_more_than_ever_fits_is_told_so() -> None:
    with pytest.raises(QuotaError, match="too large") as refused:
        accounts().reserve("ann", 6001, 0)
    assert refused.value.retry_after_s is None


def test_tenants_do_not_share_and_may_have_their_own() -> None:
    limits = Accounts(
        Quotas(default=Quota(requests_per_min=1), tenants={"big": Quota(requests_per_min=3), "free": Quota()})
    )
    for tenant, most in (("ann", 1), ("bob", 1), ("big", 3)):
        for _ in range(most):
            limits.reserve(tenant, 1e9, 0)
        with pytest.raises(QuotaError):
            limits.reserve(tenant, 1, 0)
    for _ in range(1000):
        limits.reserve("free", 1e9, 0)
    assert limits.headers("free", 0) == {}


def test_headers_are_openais() -> None:
    limits = accounts(requests=60, tokens=150_000)
    limits.reserve("ann", 900, 0)

    assert limits.headers("ann", 0) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149100",
        "x-ratelimit-reset-tokens": "360ms",
    }


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0ms"), (0.0004, "1ms"), (0.017, "17ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (3605.25, "1h0m5.25s")],
)
def test_durations_are_written_as_openai_does(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


def test_memory_is_bounded_and_full_accounts_are_forgotten() -> None:
    limits = accounts(most=10)
    for i in range(1000):
        limits.reserve(f"tenant-{i}", 10, i * 0.001)
    assert len(limits) <= 10

    limits.reserve("ann", 10, 1000)
    limits.reserve("ann", 10, 1000)
    for _ in range(10):
        limits.reserve("ann", 10, 1000)
    assert len(limits) == 1
