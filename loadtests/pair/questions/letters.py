"""Questions about strings of capital letters."""

import random
import string

from loadtests.pair.questions.question import Split, Task
from loadtests.pair.questions.wording import fill, phrase


def make_reverse(rng: random.Random, split: Split) -> Task:
    """3 to 12 letters; the working numbers them forwards, then backwards."""
    length = rng.randint(3, 12)
    letters = _draw_letters(rng, length)
    wording = phrase(rng, split, "reverse")
    numbered = [f"{letter}{place}" for place, letter in enumerate(letters, 1)]
    working = "".join(numbered) + "\n" + "".join(reversed(numbered))
    return Task((length - 1) // 2, wording, fill(wording, s=letters), letters[::-1], working)


def make_letter_count(rng: random.Random, split: Split) -> Task:
    """How often a letter occurs among 4 to 16; the working sets each letter beside the wanted one, then the tally."""
    length = rng.randint(4, 16)
    few = rng.sample(string.ascii_uppercase, rng.randint(2, 4))
    letters = "".join(rng.choices(few, k=length))
    wanted = rng.choice(letters)
    tally, steps = 0, []
    for letter in letters:
        tally += letter == wanted
        steps.append(f"{letter}{wanted}{tally}")
    wording = phrase(rng, split, "letter_count")
    return Task((length - 1) // 3, wording, fill(wording, c=wanted, s=letters), str(tally), "".join(steps))


def make_nth_letter(rng: random.Random, split: Split) -> Task:
    """The n-th of 6 to 15 letters; difficulty grows with n."""
    length = rng.randint(6, 15)
    letters, place = _draw_letters(rng, length), rng.randint(1, length)
    wording = phrase(rng, split, "nth_letter")
    text = fill(wording, n=place, nth=_write_ordinal(place), s=letters)
    working = f"{place}: " + "".join(f"{letter}{index}" for index, letter in enumerate(letters[:place], 1))
    return Task((place + 2) // 3, wording, text, letters[place - 1], working)


def _draw_letters(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=length))


def _write_ordinal(number: int) -> str:
    if number in (11, 12, 13):
        return f"{number}th"
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number % 10, 'th')}"
