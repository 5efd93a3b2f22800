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
