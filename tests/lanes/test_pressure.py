import itertools
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.lanes import Pressure as PressureSection
from router.pressure import Pressure

CONFIG = PressureSection(
    objective_s=2,
    engage=0.7,
    release=0.3,
    most_to_cloud=1.5,
    most_to_edge=1,
    shift_per_s=0.5,
    return_per_s=0.1,
    window_s=10,
)
CALM, BUSY, LATE = 0.1, 1.0, 10.0


def hold(pressure: Pressure, edge_s: float, cloud_s: float, start: float, seconds: float) -> float:
    offset = pressure.offset
    for tenth in range(int(seconds * 10) + 1):
        offset = pressure.update(edge_s, cloud_s, start + tenth / 10)
    return offset


def test_a_late_edge_sends_more_to_the_cloud_up_to_the_limit() -> None:
    pressure = Pressure(CONFIG)

    assert hold(pressure, LATE, CALM, 0, 2) == pytest.approx(-1.0)
    assert hold(pressure, LATE, CALM, 2, 20) == -1.5
    assert pressure.shift(0.5) == pytest.approx(0.182, abs=0.001)


def test_a_late_cloud_sends_more_to_the_edge_up_to_the_limit() -> None:
    assert hold(Pressure(CONFIG), CALM, LATE, 0, 20) == 1


def test_between_engaging_and_releasing_nothing_moves() -> None:
    pressure = Pressure(CONFIG)
    assert hold(pressure, BUSY, CALM, 0, 20) == 0
    shifted = hold(pressure, LATE, CALM, 20, 2)
    assert hold(pressure, BUSY, CALM, 22, 20) == pytest.approx(shifted) == pytest.approx(-1.0)


def test_at_rest_it_returns_to_normal_and_stays() -> None:
    pressure = Pressure(CONFIG)
    hold(pressure, LATE, CALM, 0, 10)

    assert hold(pressure, CALM, CALM, 10, 5) == pytest.approx(-1.0, abs=0.02)
    assert hold(pressure, CALM, CALM, 15, 30) == 0
    assert pressure.statistics().turns == 1


def test_when_both_tiers_are_late_neither_is_burdened_with_the_other() -> None:
    assert hold(Pressure(CONFIG), LATE, 2 * LATE, 0, 20) == 0
    assert hold(Pressure(CONFIG), 2 * LATE, LATE, 0, 20) == 0
    pressure = Pressure(CONFIG)
    shifted = hold(pressure, LATE, CALM, 0, 20)

    assert hold(pressure, LATE, LATE, 20, 20) == 0 > shifted


def test_the_less_room_the_other_tier_has_the_slower_it_moves() -> None:
    offsets = [hold(Pressure(CONFIG), LATE, cloud_s, 0, 2) for cloud_s in (0.6, 1.0, 1.2, 1.4)]

    assert offsets == pytest.approx([-1, -0.5, -0.25, 0])


def test_thresholds_that_mean_always_or_never_stay() -> None:
    pressure = Pressure(CONFIG)
    hold(pressure, LATE, CALM, 0, 20)
    assert [pressure.shift(t) for t in (0.0, 1.0, 1.5)] == [0.0, 1.0, 1.5]


SECONDS = st.floats(0, 20) | st.just(inf)


@given(st.lists(st.tuples(SECONDS, SECONDS, st.floats(0, 5)), max_size=200))
@settings(deadline=None)
def test_whatever_it_is_told_it_keeps_its_limits(told: list[tuple[float, float, float]]) -> None:
    """Never beyond the limits, never faster than allowed, never two turns within a window."""
    pressure = Pressure(CONFIG)
    now = 0.0
    path = [(now, 0.0)]
    for edge_s, cloud_s, pause_s in told:
        now += pause_s
        path.append((now, pressure.update(edge_s, cloud_s, now)))
    heading, turns = 0, []
    for (before, was), (after, is_) in itertools.pairwise(path):
        assert -1.5 <= is_ <= 1
        assert abs(is_ - was) <= 0.5 * (after - before) + 1e-9
        if is_ != was:
            direction = 1 if is_ > was else -1
            if heading and direction != heading:
                turns.append(after)
            heading = direction
    assert all(b - a >= 10 for a, b in itertools.pairwise(turns))
    assert pressure.statistics().turns == len(turns)
