"""When requests are due: drawn before the run from its seed, so that nothing that happens in it can move them."""

from typing import Any, cast

import numpy as np

from loadtests.swarm.scenario import Open, Scenario
from loadtests.swarm.shapes import Shape

Times = np.ndarray[Any, np.dtype[np.float64]]
_STEPS = 10_000


def draw_arrivals(shape: Shape, rate_per_s: float, seed: int, *, even: bool = False) -> Times:
    """Seconds from the start, rising: a Poisson process whose rate follows the shape.

    Its integral is inverted, on a grid of 10,000 steps: the n-th request is due when the expected number of requests
    reaches the n-th time of a Poisson process of rate 1, or n + 1/2 where they are to be evenly spaced.
    """
    grid = np.linspace(0.0, shape.duration_s, _STEPS + 1)
    middles = (grid[1:] + grid[:-1]) / 2
    rates = rate_per_s * np.array([shape.level(float(at)) for at in middles])
    expected = np.concatenate(([0.0], np.cumsum(rates) * shape.duration_s / _STEPS))
    total = float(expected[-1])
    if even:
        places = np.arange(0.5, total)
    else:
        rng = np.random.default_rng([seed, 0xA1])
        places = np.sort(rng.uniform(0.0, total, rng.poisson(total)))
    # where the rate is 0 the expected number stands still: `interp` needs it to rise
    rising = np.concatenate(([True], np.diff(expected) > 0))
    return np.interp(places, expected[rising], grid[rising])


def draw_scheduled(scenario: Scenario) -> Times:
    """Every arrival of an open scenario, of all workers."""
    arrival = cast("Open", scenario.arrival)
    return draw_arrivals(scenario.shape, arrival.rate_per_s, scenario.seed, even=arrival.even)
