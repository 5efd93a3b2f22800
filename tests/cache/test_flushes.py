"""What is remembered of flushes."""

import time

from hypothesis import given
from hypothesis import strategies as st

from router.cache import Flush, Selector
from router.cache.breaker import Breaker
from router.cache.flushes import Flushes
from tests.cache.tier_records import make_record

_NAMES = st.sampled_from([None, "a", "b"])
_FLUSHES = st.lists(st.builds(Flush, st.builds(Selector, _NAMES, _NAMES, _NAMES), st.integers(0, 10).map(float)))


@given(_FLUSHES, st.sampled_from("ab"), st.sampled_from("ab"), st.sets(st.sampled_from("ab")), st.integers(0, 10))
def test_kills_what_any_of_them_killed(given: list[Flush], tenant: str, model: str, tags: set[str], at: int) -> None:
    record = make_record(0, size=0, tenant=tenant, model=model, tags=tuple(tags), stored_at=float(at))
    flushes = Flushes()
    for flush in given:
        flushes.add(flush)

    assert flushes.kill(record) == any(flush.selector.matches(record) and at <= flush.at for flush in given)


@given(_FLUSHES)
def test_a_bound_kills_more_and_never_less(given: list[Flush]) -> None:
    flushes = Flushes(most=2)
    for flush in given:
        flushes.add(flush)
        assert len(flushes) <= 2
        record = make_record(0, size=0, tenant="a", model="a", tags=("a",), stored_at=flush.at)
        assert flushes.kill(record) or not flush.selector.matches(record)


def test_a_clock_that_runs_ahead_kills_nothing_to_come() -> None:
    flushes, now = Flushes(), time.time()

    flushes.learn(Flush(Selector(), now + 1e9), now)
    flushes.learn(Flush(Selector(tenant="acme"), float("nan")), now)

    assert flushes.kill(make_record("a", stored_at=now))
    assert not flushes.kill(make_record("a", stored_at=now + 1))


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    breaker = Breaker(failures_to_open=2, open_s=5.0)
    breaker.fail(1.0, 0.9)
    breaker.succeed(1.1)
    breaker.fail(2.0, 1.9)
    assert breaker.admit(2.0)
    breaker.fail(3.0, 2.9)

    assert [breaker.admit(now) for now in (3.0, 7.9, 8.0, 8.1, 12.9, 13.0)] == [False, False, True, False, False, True]
    breaker.succeed(13.1)
    assert breaker.admit(13.1)


def test_calls_given_up_while_others_succeed_open_no_breaker() -> None:
    breaker = Breaker(failures_to_open=2, open_s=5.0)
    breaker.succeed(1.0)

    for _ in range(100):
        breaker.fail(1.1, 0.5)

    assert breaker.admit(1.2)
