"""`Cache-Control` of requests, and what an answer of some age may do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache.directives import (
    CacheControl,
    Caching,
    Use,
    judge_use,
    lifetime_s,
    longest_use_s,
    parse_cache_control,
)
from router.config.cache import Freshness

HOUR = Freshness(ttl_s=3600, jitter=0, stale_while_revalidate_s=60, stale_if_error_s=600)


@pytest.mark.parametrize(
    ("header", "control"),
    [
        ("", CacheControl()),
        ("no-cache", CacheControl(no_cache=True)),
        ("No-Store, private", CacheControl(no_store=True)),
        ("max-age=60 , only-if-cached", CacheControl(only_if_cached=True, max_age_s=60)),
        ('max-age="5"', CacheControl(max_age_s=5)),
        ("max-age=soon", CacheControl(max_age_s=0)),
        ("max-age=-1", CacheControl(max_age_s=0)),
        ("max-stale", CacheControl(max_stale_s=math.inf)),
        (
            "max-stale=30, min-fresh=9, stale-if-error=7",
            CacheControl(min_fresh_s=9, max_stale_s=30, stale_if_error_s=7),
        ),
    ],
)
def test_directives_are_understood(header: str, control: CacheControl) -> None:
    assert parse_cache_control(header) == control


@given(st.text())
def test_no_header_is_too_strange(header: str) -> None:
    assert isinstance(parse_cache_control(header), CacheControl)


@pytest.mark.parametrize(
    ("age_s", "header", "use"),
    [
        (0, "", Use.FRESH),
        (3600, "", Use.FRESH),
        (3601, "", Use.REVALIDATE),
        (3661, "", Use.ON_ERROR),
        (4201, "", Use.NONE),
        (10, "max-age=5", Use.ON_ERROR),
        (10, "max-age=5, stale-if-error=0", Use.ON_ERROR),
        (10, "no-cache", Use.NONE),
        (3595, "min-fresh=10", Use.REVALIDATE),
        (4000, "max-stale=500", Use.FRESH),
        (9_000_000, "max-stale", Use.FRESH),
        (4000, "stale-if-error=60", Use.NONE),
        (9000, "stale-if-error=9000", Use.NONE),
    ],
)
def test_what_an_answer_of_some_age_may_do(age_s: float, header: str, use: Use) -> None:
    assert judge_use(age_s, 3600, HOUR, parse_cache_control(header)) is use


@given(st.binary(min_size=32, max_size=32), st.floats(0, 1))
def test_jitter_only_shortens_a_life_and_no_more_than_it_says(key: bytes, jitter: float) -> None:
    life = lifetime_s(Freshness(ttl_s=100, jitter=jitter), key)

    assert 100 * (1 - jitter) - 1e-9 <= life <= 100


def test_lives_differ_from_key_to_key() -> None:
    lives = [lifetime_s(Freshness(ttl_s=100, jitter=0.5), bytes([i]) * 32) for i in range(256)]

    assert min(lives) < 51
    assert max(lives) > 99
    assert len(set(lives)) == 256


def test_records_outlive_their_last_use() -> None:
    assert longest_use_s(HOUR) == 4200


@pytest.mark.parametrize(
    ("none_match", "has"), [("", False), ('"a1"', True), ('W/"a1"', True), ('"b", W/"a1"', True), ("*", False)]
)
def test_a_client_names_the_answers_that_it_has(none_match: str, has: bool) -> None:
    assert Caching(none_match=none_match).has("a1") is has
