"""Shapes and the arrivals drawn from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.swarm.arrivals import draw_arrivals
from loadtests.swarm.shapes import AnyShape, Diurnal, Overload, Ramp, Soak, Spike, Steady

SHAPES: list[AnyShape] = [
    Steady(duration_s=60),
    Soak(duration_s=60),
    Ramp(duration_s=60, start=0, end=1),
    Spike(duration_s=60, peak=5, part=0.2),
    Diurnal(duration_s=60, night=0.1, days=2),
    Overload(duration_s=60, factor=3),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_arrivals_follow_the_shape(shape: AnyShape) -> None:
    rate, bins = 400.0, 12
    arrivals = draw_arrivals(shape, rate, seed=3)
    assert (np.diff(arrivals) >= 0).all()
    assert arrivals[0] >= 0
    assert arrivals[-1] <= 60
    found = np.histogram(arrivals, bins, (0, 60))[0]
    fine = np.array([shape.level(at) for at in np.linspace(0, 60, 12_000, endpoint=False)])
    wanted = rate * fine.reshape(bins, -1).mean(1) * 60 / bins
    # five standard deviations of a Poisson count
    assert (np.abs(found - wanted) <= 5 * np.sqrt(wanted) + 1).all()


@given(st.sampled_from(SHAPES), st.floats(0, 59.999))
def test_no_level_is_above_the_highest(shape: AnyShape, at: float) -> None:
    assert 0 <= shape.level(at) <= shape.highest + 1e-12


def test_seed_decides() -> None:
    shape = Steady(duration_s=10)
    assert (draw_arrivals(shape, 20, 1) == draw_arrivals(shape, 20, 1)).all()
    assert draw_arrivals(shape, 20, 1).tolist() != draw_arrivals(shape, 20, 2).tolist()


def test_random_gaps_are_poisson() -> None:
    gaps = np.diff(draw_arrivals(Steady(duration_s=1000), 20, 7))
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1, abs=0.05)


def test_even_spacing() -> None:
    assert np.diff(draw_arrivals(Steady(duration_s=10), 5, 1, even=True)) == pytest.approx(0.2)


def test_nothing_comes_while_the_level_is_zero() -> None:
    arrivals = draw_arrivals(Overload(duration_s=30, factor=0), 50, 5)
    assert not ((arrivals > 10.01) & (arrivals < 19.99)).any()
    assert len(arrivals) == pytest.approx(1000, rel=0.2)
