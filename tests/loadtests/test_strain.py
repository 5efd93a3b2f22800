"""The generator tells when it is the bottleneck, and only then."""

import time

import msgspec
import pytest

from loadtests.swarm.strain import Strain, StrainWatch, average_strains, list_strains
from tests.loadtests.runs import CALM, make_record, make_table

PUNCTUAL = make_table([make_record(n, due=n, late=0.001) for n in range(100)])


def test_calm_generator_says_nothing() -> None:
    assert list(list_strains([CALM], PUNCTUAL)) == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("busy", 0.95, "computed 95% of the time"),
        ("waited", 0.3, "waited for its core 30%"),
        ("lag_p99_ms", 80.0, "woke 80 ms late"),
        ("lag_most_ms", 2500.0, "stood still for 2.5 s"),
    ],
)
def test_each_strain_is_told(key: str, value: float, told: str) -> None:
    strained = msgspec.structs.replace(CALM, worker=3, **{key: value})
    (line,) = list_strains([CALM, strained], PUNCTUAL)
    assert "worker 3" in line
    assert told in line


def test_one_bad_turn_of_many_is_none_unless_it_stood_still() -> None:
    hindered = msgspec.structs.replace(CALM, waited=0.3, lag_p99_ms=60.0)
    assert list(list_strains([average_strains([hindered, *[CALM] * 9])], PUNCTUAL)) == []
    assert len(list(list_strains([average_strains([hindered] * 3)], PUNCTUAL))) == 2
    stopped = msgspec.structs.replace(CALM, lag_most_ms=2500.0)
    (line,) = list_strains([average_strains([stopped, *[CALM] * 9])], PUNCTUAL)
    assert "stood still" in line


def test_late_requests_are_told() -> None:
    late = make_table([make_record(n, due=n, late=0.2 * (n >= 95)) for n in range(100)])
    (line,) = list_strains([CALM], late)
    assert "sent 200 ms late" in line


def test_lateness_that_latency_hides_is_not_told() -> None:
    slow = make_table([make_record(n, due=n, late=0.02, took=3.0) for n in range(100)])
    assert list(list_strains([CALM], slow)) == []


def test_watch_sees_work_and_lag() -> None:
    calls = 0

    def oversleep(asked_s: float) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise StopIteration
        time.sleep(asked_s + 0.03)

    began = time.perf_counter()
    watch = StrainWatch(oversleep)
    with pytest.raises(StopIteration):
        watch.run()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    strain: Strain = watch.end(7)
    assert strain.worker == 7
    assert strain.lag_p99_ms >= 30
    assert strain.lag_most_ms >= strain.lag_p99_ms
    assert 0.9 * 0.2 / (time.perf_counter() - began) < strain.busy < 1
