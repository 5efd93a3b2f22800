"""Questions with checkable answers at graded difficulty, the same for the same seed in every process."""

import random
from collections.abc import Callable, Iterator, Mapping

from loadtests.pair.questions.dates import make_clock, make_weekday
from loadtests.pair.questions.dialogue import make_followup, make_recall
from loadtests.pair.questions.letters import make_nth_letter, make_reverse
from loadtests.pair.questions.lists import make_extreme, make_mean, make_parity, make_sequence, make_sort, make_total
from loadtests.pair.questions.numbers import (
    make_addition,
    make_division,
    make_multiplication,
    make_subtraction,
    make_units,
)
from loadtests.pair.questions.question import (
    ANSWER_MARK,
    Kind,
    Message,
    Question,
    Split,
    Task,
    extract_answer,
    is_correct,
)
from loadtests.pair.questions.scope import HONEST_REPLY, generate_out_of_scope
from loadtests.pair.questions.stories import make_story
from loadtests.pair.questions.wording import choose

__all__ = [
    "ANSWER_MARK",
    "HONEST_REPLY",
    "KINDS",
    "Kind",
    "Message",
    "Question",
    "Split",
    "extract_answer",
    "generate",
    "generate_out_of_scope",
    "is_correct",
    "make_question",
]

KINDS: Mapping[Kind, Callable[[random.Random, Split], Task]] = {
    Kind.ADDITION: make_addition,
    Kind.SUBTRACTION: make_subtraction,
    Kind.MULTIPLICATION: make_multiplication,
    Kind.DIVISION: make_division,
    Kind.UNITS: make_units,
    Kind.EXTREME: make_extreme,
    Kind.SORT: make_sort,
    Kind.TOTAL: make_total,
    Kind.MEAN: make_mean,
    Kind.PARITY: make_parity,
    Kind.SEQUENCE: make_sequence,
    Kind.REVERSE: make_reverse,
    Kind.NTH_LETTER: make_nth_letter,
    Kind.WEEKDAY: make_weekday,
    Kind.CLOCK: make_clock,
    Kind.STORY: make_story,
    Kind.RECALL: make_recall,
    Kind.FOLLOWUP: make_followup,
}

SYSTEM_SHARE = 0.2


def make_question(rng: random.Random, kind: Kind, split: Split) -> Question:
    """One question of a kind, one in five of them under a system prompt."""
    task = KINDS[kind](rng, split)
    messages: tuple[Message, ...] = (*task.earlier, ("user", task.text))
    if rng.random() < SYSTEM_SHARE:
        messages = (("system", choose(rng, "systems", split)), *messages)
    return Question(kind, task.difficulty, messages, task.answer, task.working, task.wording)


def generate(seed: int, count: int, split: Split) -> Iterator[Question]:
    """`count` questions, every kind equally likely; the two splits never share a random stream."""
    rng = random.Random(f"questions/{split}/{seed}")
    kinds = tuple(KINDS)
    for _ in range(count):
        yield make_question(rng, rng.choice(kinds), split)
