"""Conversations whose last question can only be answered from an earlier turn."""

import random
import string

from loadtests.pair.questions.numbers import draw
from loadtests.pair.questions.question import ANSWER_MARK, Message, Split, Task
from loadtests.pair.questions.wording import choose, fill, phrase
from loadtests.pair.questions.working import add_columns, multiply, subtract_columns

ACKNOWLEDGEMENT = "Okay, I will remember that."
_SYLLABLES = (
    "ba",
    "do",
    "ri",
    "ka",
    "lu",
    "mo",
    "ne",
    "ti",
    "sa",
    "vo",
    "ze",
    "fi",
    "ga",
    "pe",
    "ly",
    "ro",
    "han",
    "ber",
    "mar",
    "lin",
    "son",
    "ton",
    "vil",
    "el",
)


def make_recall(rng: random.Random, split: Split) -> Task:
    """One to four facts in turn one, one of them asked for in turn two; difficulty is how many."""
    count = rng.randint(1, 4)
    facts: dict[str, str] = {}
    while len(facts) < count:
        thing, value = _draw_fact(rng)
        if value not in facts.values():
            facts[thing] = value
    sentences = [
        fill(choose(rng, "recall", f"facts_{split}"), thing=thing, value=value) for thing, value in facts.items()
    ]
    told = choose(rng, "recall", f"openers_{split}") + " ".join(sentences)
    thing = rng.choice(list(facts))
    wording = phrase(rng, split, "recall")
    earlier: tuple[Message, ...] = (("user", told), ("assistant", ACKNOWLEDGEMENT))
    return Task(count, wording, fill(wording, thing=thing), facts[thing], earlier=earlier)


def make_followup(rng: random.Random, split: Split) -> Task:
    """A sum, its answer, and one more step on that answer; difficulty is the digits of the answer."""
    difficulty = rng.randint(1, 4)
    result = max(2, draw(rng, difficulty))
    a = rng.randint(1, result - 1)
    opening = fill(phrase(rng, split, "addition"), a=a, b=result - a)
    operation = rng.choice(("plus", "minus", "times"))
    if operation == "times":
        n = rng.randint(2, 9)
        answer, working = result * n, multiply(result, n)
    elif operation == "plus":
        n = draw(rng, rng.randint(1, min(difficulty, 3)))
        answer, working = result + n, add_columns(result, n)
    else:
        n = rng.randint(1, min(result - 1, 999))
        answer, working = result - n, subtract_columns(result, n)
    wording = phrase(rng, split, f"followup_{operation}")
    style = rng.random()
    shown = f"{ANSWER_MARK} {result}"
    reply = str(result) if style < 0.5 else shown if style < 0.75 else f"{add_columns(a, result - a)}\n{shown}"
    return Task(
        difficulty, wording, fill(wording, n=n), str(answer), working, (("user", opening), ("assistant", reply))
    )


def _draw_fact(rng: random.Random) -> tuple[str, str]:
    sort = rng.choice(("number", "number", "code", "colour", "name", "food", "animal", "hobby", "drink"))
    thing = choose(rng, "recall", f"things_{sort}")
    if sort == "number":
        return thing, str(draw(rng, rng.randint(1, 4)))
    if sort == "code":
        return thing, "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(3, 4)))
    if sort == "name":
        return thing, _draw_name(rng)
    return thing, choose(rng, "recall", f"values_{sort}")


def _draw_name(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return choose(rng, "things", "names")
    return "".join(rng.choices(_SYLLABLES, k=2)).capitalize()
