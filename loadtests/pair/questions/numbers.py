"""Arithmetic on two numbers, and units."""

import random

from loadtests.pair.questions.question import Split, Task
from loadtests.pair.questions.wording import fill, phrase
from loadtests.pair.questions.working import add_columns, divide, multiply, subtract_columns

UNITS = (
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("centimetres", "millimetres", 10),
    ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000),
    ("dollars", "cents", 100),
    ("weeks", "days", 7),
    ("yards", "feet", 3),
    ("gallons", "quarts", 4),
    ("centuries", "years", 100),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("feet", "inches", 12),
    ("years", "months", 12),
    ("pounds", "ounces", 16),
    ("dozen", "pieces", 12),
    ("years", "weeks", 52),
)


def draw(rng: random.Random, digits: int) -> int:
    """A number of exactly so many digits, from 1."""
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def is_power_of_ten(number: int) -> bool:
    """10, 100, 1000 and so on."""
    return str(number).strip("0") == "1"


def make_addition(rng: random.Random, split: Split) -> Task:
    """Two numbers of up to 5 digits; difficulty is the digits of the longer one."""
    digits = rng.randint(1, 5)
    a, b = draw(rng, digits), draw(rng, digits if rng.random() < 0.7 else rng.randint(1, digits))
    if rng.random() < 0.5:
        a, b = b, a
    wording = phrase(rng, split, "addition")
    return Task(digits, wording, fill(wording, a=a, b=b), str(a + b), add_columns(a, b))


def make_subtraction(rng: random.Random, split: Split) -> Task:
    """Never below zero; difficulty is the digits of the first number."""
    digits = rng.randint(1, 5)
    a, b = draw(rng, digits), draw(rng, digits if rng.random() < 0.7 else rng.randint(1, digits))
    a, b = max(a, b), min(a, b)
    wording = phrase(rng, split, "subtraction")
    return Task(digits, wording, fill(wording, a=a, b=b), str(a - b), subtract_columns(a, b))


def make_multiplication(rng: random.Random, split: Split) -> Task:
    """Difficulty 1: one digit by one; 2: two by one; 3: three by one; 4: two by two."""
    difficulty = rng.randint(1, 4)
    digits, factor_digits = ((1, 1), (2, 1), (3, 1), (2, 2))[difficulty - 1]
    a, b = draw(rng, digits), draw(rng, factor_digits)
    wording = phrase(rng, split, "multiplication")
    left, right = (a, b) if rng.random() < 0.7 else (b, a)
    return Task(difficulty, wording, fill(wording, a=left, b=right), str(a * b), multiply(a, b))


def make_division(rng: random.Random, split: Split) -> Task:
    """By one digit, with remainder; difficulty is the digits of the dividend."""
    difficulty = rng.randint(1, 4)
    a, b = draw(rng, difficulty), rng.randint(2, 9)
    wording = phrase(rng, split, "division")
    return Task(difficulty, wording, fill(wording, a=a, b=b), f"{a // b} remainder {a % b}", divide(a, b))


def make_units(rng: random.Random, split: Split) -> Task:
    """Difficulty is the digits of the amount, one more for a factor of two digits that is no power of ten."""
    # Powers of ten only append zeros, so they are drawn a third as often.
    ((larger, smaller, factor),) = rng.choices(UNITS, [1 if is_power_of_ten(unit[2]) else 3 for unit in UNITS])
    power = is_power_of_ten(factor)
    lengths = (1, 2, 3) if factor < 10 or factor % 10 == 0 else (1, 2)
    (digits,) = rng.choices(lengths, weights=lengths)
    a = max(2, draw(rng, digits))
    wording = phrase(rng, split, "units")
    text = fill(wording, a=a, **{"from": larger, "to": smaller})
    working = f"{a}*{factor}" if power else f"{a}*{factor}\n{multiply(a, factor)}"
    return Task(digits + (not power and factor > 10), wording, text, str(a * factor), working)
