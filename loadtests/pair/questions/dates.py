"""Weekdays and the clock."""

import calendar
import random

from loadtests.pair.questions.question import Split, Task
from loadtests.pair.questions.wording import fill, phrase
from loadtests.pair.questions.working import divide

DAYS = tuple(calendar.day_name)


def make_weekday(rng: random.Random, split: Split) -> Task:
    """Some days after or before a weekday; difficulty 1: up to 6 days, 2: up to 30, 3: up to 99, 4: up to 999."""
    (difficulty,) = rng.choices((1, 2, 3, 4), (4, 3, 2, 1))
    days = rng.randint(*((1, 6), (7, 30), (31, 99), (100, 999))[difficulty - 1])
    start, step = rng.randrange(7), 1 if rng.random() < 0.7 else -1
    path = [DAYS[(start + step * index) % 7] for index in range(days % 7 + 1)]
    wording = phrase(rng, split, "weekday")
    direction = "after" if step > 0 else rng.choice(("before", "before", "earlier than"))
    text = fill(wording, n=days, direction=direction, day=DAYS[start]).replace(" 1 days", " 1 day")
    return Task(difficulty, wording, text, path[-1], f"{divide(days, 7)}\n" + ",".join(path))


def make_clock(rng: random.Random, split: Split) -> Task:
    """Difficulty 1: minutes within the hour; 2: into the next hour; 3: hours and minutes; 4: past midnight."""
    (difficulty,) = rng.choices((1, 2, 3, 4), (2, 2, 3, 3))
    hour, minute = rng.randint(0, 22 if difficulty < 3 else 12), rng.randint(0, 59)
    hours, minutes = 0, rng.randint(1, 59)
    if difficulty == 1:
        minute = rng.randint(0, 54)
        minutes = rng.randint(1, 59 - minute)
    elif difficulty == 2:
        minute = rng.randint(1, 59)
        minutes = rng.randint(60 - minute, 59)
    elif difficulty == 3:
        hours = rng.randint(1, 9)
    else:
        hour, hours = rng.randint(16, 23), rng.randint(8, 12)
    span = f"{minutes} minute{'s' * (minutes != 1)}"
    if hours:
        span = f"{hours} hour{'s' * (hours != 1)} and {span}"
    wording = phrase(rng, split, "clock")
    text = fill(wording, time=f"{hour:02}:{minute:02}", span=span)
    answer, working = _add_time(hour, minute, hours, minutes)
    return Task(difficulty, wording, text, answer, working)


def _add_time(hour: int, minute: int, hours: int, minutes: int) -> tuple[str, str]:
    total = minute + minutes
    steps = f"{minute:02}+{minutes:02}={total:02}"
    carry, rest = divmod(total, 60)
    if carry:
        steps += f",{total}-60={rest:02}"
    later = hour + hours + carry
    steps += f"\n{hour:02}+{hours:02}+{carry}={later:02}"
    if later >= 24:
        steps += f",{later}-24={later - 24:02}"
    return f"{later % 24:02}:{rest:02}", steps
