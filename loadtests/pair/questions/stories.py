"""Word problems in two steps."""

import random

from loadtests.pair.questions.question import Split, Task
from loadtests.pair.questions.wording import choose, fill, load_wordings, phrase
from loadtests.pair.questions.working import add_columns, multiply_digit, subtract_columns

SHAPES = ("plus_times", "times_minus", "plus_minus", "minus_minus", "minus_times")


def make_story(rng: random.Random, split: Split) -> Task:
    """Difficulty 1: small numbers throughout; 2 and 3: larger amounts and factors."""
    (difficulty,) = rng.choices((1, 2, 3), (3, 2, 1))
    shape = rng.choice(SHAPES)
    a, b, c = _draw_amounts(rng, shape, difficulty)
    answer, working = _solve(shape, a, b, c)
    wording = phrase(rng, split, f"story_{shape}")
    name, other = rng.sample(load_wordings()["things"]["names"], 2)
    text = fill(wording, a=a, b=b, c=c, name=name, other=other, things=choose(rng, "things", "count"))
    return Task(difficulty, wording, text, str(answer), working)


def _draw_amounts(rng: random.Random, shape: str, difficulty: int) -> tuple[int, int, int]:
    large = (9, 30, 99)[difficulty - 1]
    if "times" in shape:
        b, c = rng.randint(2, (4, 6, 9)[difficulty - 1]), rng.randint(2, (5, 9, 15)[difficulty - 1])
        if shape == "plus_times":
            return rng.randint(2, large), b, c
        product = b * c
        return (rng.randint(1, product - 1) if shape == "times_minus" else product + rng.randint(1, large)), b, c
    if shape == "plus_minus":
        a, b = rng.randint(2, large), rng.randint(2, large)
        return a, b, rng.randint(1, a + b - 1)
    b, c = rng.randint(1, large), rng.randint(1, large)
    return b + c + rng.randint(1, large), b, c


def _solve(shape: str, a: int, b: int, c: int) -> tuple[int, str]:
    if shape == "plus_minus":
        first, working = a + b, add_columns(a, b)
    elif shape == "minus_minus":
        first, working = a - b, subtract_columns(a, b)
    else:
        first, working = b * c, multiply_digit(c, b)
    if shape == "plus_times":
        return a + first, f"{working} -> {first}\n{add_columns(a, first)}"
    larger, smaller = (a, first) if shape == "minus_times" else (first, a if shape == "times_minus" else c)
    return larger - smaller, f"{working} -> {first}\n{subtract_columns(larger, smaller)}"
