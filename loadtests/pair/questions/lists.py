"""Questions about lists of numbers."""

import random

from loadtests.pair.questions.numbers import draw
from loadtests.pair.questions.question import Split, Task
from loadtests.pair.questions.wording import fill, phrase
from loadtests.pair.questions.working import add_columns, divide, running_total, subtract_columns

LARGEST = ("largest", "biggest", "highest", "greatest")
SMALLEST = ("smallest", "lowest", "least")
RISING = ("ascending", "increasing", "rising")
FALLING = ("descending", "decreasing", "falling")


def write_list(rng: random.Random, numbers: list[int]) -> str:
    """The numbers as people type them."""
    style = rng.random()
    if style < 0.6:
        return ", ".join(map(str, numbers))
    if style < 0.8:
        return " ".join(map(str, numbers))
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def make_extreme(rng: random.Random, split: Split) -> Task:
    """The largest or smallest of 2 to 9 numbers; difficulty is how many, in pairs."""
    count, digits = rng.randint(2, 9), rng.randint(2, 4)
    numbers = _draw_apart(rng, count, digits)
    largest = rng.random() < 0.5
    best, steps = numbers[0], [str(numbers[0])]
    for number in numbers[1:]:
        best = max(best, number) if largest else min(best, number)
        steps.append(f"{number}:{best}")
    wording = phrase(rng, split, "extreme")
    text = fill(wording, superlative=rng.choice(LARGEST if largest else SMALLEST), list=write_list(rng, numbers))
    return Task(count // 2, wording, text, str(best), ",".join(steps))


def make_sort(rng: random.Random, split: Split) -> Task:
    """3 to 7 numbers; the working inserts one number after the other."""
    count = rng.randint(3, 7)
    numbers = _draw_apart(rng, count, rng.randint(1, 2) if count < 6 else 2)
    falling = rng.random() < 0.5
    steps = [",".join(map(str, sorted(numbers[:end], reverse=falling))) for end in range(1, count)]
    wording = phrase(rng, split, "sort")
    text = fill(wording, order=rng.choice(FALLING if falling else RISING), list=write_list(rng, numbers))
    answer = ", ".join(map(str, sorted(numbers, reverse=falling)))
    return Task(count - 2, wording, text, answer, "\n".join(steps))


def make_total(rng: random.Random, split: Split) -> Task:
    """The sum of 2 to 6 numbers; difficulty is how many, one more when they have two digits."""
    count, digits = rng.randint(2, 6), rng.randint(1, 2)
    numbers = [draw(rng, rng.randint(1, digits)) for _ in range(count)]
    wording = phrase(rng, split, "total")
    text = fill(wording, list=write_list(rng, numbers))
    return Task(count - 2 + digits, wording, text, str(sum(numbers)), running_total(numbers))


def make_mean(rng: random.Random, split: Split) -> Task:
    """The mean of 2 to 5 numbers, always whole."""
    count, digits = rng.randint(2, 5), rng.randint(1, 2)
    numbers = [draw(rng, digits) for _ in range(count - 1)]
    lowest, highest = 10 ** (digits - 1), 10**digits - count
    last = rng.randint(lowest, highest)
    last += -(sum(numbers) + last) % count
    numbers.append(last)
    rng.shuffle(numbers)
    wording = phrase(rng, split, "mean")
    text = fill(wording, list=write_list(rng, numbers))
    working = f"{running_total(numbers)}\n{divide(sum(numbers), count)}"
    return Task(count - 2 + digits, wording, text, str(sum(numbers) // count), working)


def make_parity(rng: random.Random, split: Split) -> Task:
    """How many of 3 to 10 numbers are even or odd; difficulty is how many there are."""
    count, odd = rng.randint(3, 10), rng.random() < 0.5
    numbers = [draw(rng, rng.randint(1, 2)) for _ in range(count)]
    tally, steps = 0, []
    for number in numbers:
        tally += number % 2 == odd
        steps.append(f"{number}:{tally}")
    wording = phrase(rng, split, "parity")
    text = fill(wording, parity="odd" if odd else "even", list=write_list(rng, numbers))
    return Task((count - 1) // 2, wording, text, str(tally), ",".join(steps))


def make_sequence(rng: random.Random, split: Split) -> Task:
    """The next term of an arithmetic sequence; difficulty grows with the size of the terms and the step."""
    difficulty = rng.randint(1, 4)
    step = rng.randint(1, 9) if difficulty <= 2 else rng.randint(11, 49)
    start = rng.randint(1, 40) if difficulty % 2 else rng.randint(100, 600)
    terms = [start + step * index for index in range(rng.randint(4, 5) + 1)]
    if rng.random() < 0.3:
        terms.reverse()
    wording = phrase(rng, split, "sequence")
    text = fill(wording, list=", ".join(map(str, terms[:-1])))
    before, last = terms[-3], terms[-2]
    gap = subtract_columns(max(last, before), min(last, before))
    move = add_columns(last, step) if last > before else subtract_columns(last, step)
    return Task(difficulty, wording, text, str(terms[-1]), f"{gap} -> {step}\n{move}")


def _draw_apart(rng: random.Random, count: int, digits: int) -> list[int]:
    return rng.sample(range(10 ** (digits - 1), 10**digits), count)
