"""What a generated question is, and when a reply to it counts as right."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Role = Literal["system", "user", "assistant"]
Message = tuple[Role, str]

ANSWER_MARK = "Answer:"


class Split(StrEnum):
    """Which wordings a question may use; operands are drawn from separate random streams too."""

    TRAIN = "train"
    TEST = "test"


class Kind(StrEnum):
    """What a question asks for."""

    ADDITION = "addition"
    SUBTRACTION = "subtraction"
    MULTIPLICATION = "multiplication"
    DIVISION = "division"
    UNITS = "units"
    EXTREME = "extreme"
    SORT = "sort"
    TOTAL = "total"
    MEAN = "mean"
    PARITY = "parity"
    SEQUENCE = "sequence"
    REVERSE = "reverse"
    NTH_LETTER = "nth_letter"
    WEEKDAY = "weekday"
    CLOCK = "clock"
    STORY = "story"
    RECALL = "recall"
    FOLLOWUP = "followup"


@dataclass(frozen=True, slots=True)
class Task:
    """A question's content before it is put into a conversation.

    `difficulty` counts from 1 and grows with what the question shows: digits, list length, steps.
    `working` is what the cloud model writes before its answer; empty where the answer is read off directly.
    """

    difficulty: int
    wording: str
    text: str
    answer: str
    working: str = ""
    earlier: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """One conversation that ends with a user message, and the one right answer to it.

    `wording` is the template of the last message with its slots unfilled: the test split shares none with training.
    """

    kind: Kind
    difficulty: int
    messages: tuple[Message, ...]
    answer: str
    working: str
    wording: str


def extract_answer(text: str) -> str:
    """The normalised answer in a reply: what follows the last "Answer:", or all of it where there is none."""
    answer = text.rpartition(ANSWER_MARK)[2]
    answer = re.sub(r"\s+", " ", answer).strip().rstrip(".").casefold()
    return re.sub(r"\s*,\s*", ", ", answer)


def is_correct(question: Question, text: str) -> bool:
    """Whether a reply's answer is exactly the question's, up to case, spacing and a final full stop."""
    return extract_answer(text) == extract_answer(question.answer)
