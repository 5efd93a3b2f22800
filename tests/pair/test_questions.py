"""Answers are checked by computing them again, from the words of the question."""

import calendar
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest

from loadtests.pair.questions import Kind, Question, Split, extract_answer, generate, is_correct
from loadtests.pair.questions.numbers import UNITS

COUNT = 6000
DAYS = list(calendar.day_name)


@pytest.fixture(scope="module", params=tuple(Split))
def questions(request: pytest.FixtureRequest) -> list[Question]:
    return list(generate(11, COUNT, request.param))


def of_kind(questions: list[Question], kind: Kind) -> list[Question]:
    found = [question for question in questions if question.kind is kind]
    assert len(found) > COUNT // 40
    return found


def asked(question: Question) -> str:
    return question.messages[-1][1]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def letters_in(text: str) -> str:
    found: list[str] = re.findall(r"[A-Z]+", text)
    return max(found, key=len)


def test_same_seed_gives_same_questions_in_another_process() -> None:
    command = "from loadtests.pair.questions import *; print(hash(0), *generate(5, 300, Split.TEST), sep='\\n')"
    here = [str(question) for question in generate(5, 300, Split.TEST)]
    there = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert there.stdout.splitlines()[1:] == here


def test_seeds_and_splits_differ() -> None:
    first = {asked(question) for question in generate(1, 500, Split.TEST)}
    assert len(first & {asked(question) for question in generate(2, 500, Split.TEST)}) < 5
    assert not first & {asked(question) for question in generate(1, 500, Split.TRAIN)}


def test_every_slot_is_filled_and_every_conversation_ends_with_the_user(questions: list[Question]) -> None:
    for question in questions:
        assert question.messages[-1][0] == "user"
        assert not any(set("{}") & set(content) for _, content in question.messages)
        assert question.difficulty >= 1


@pytest.mark.parametrize(
    ("kind", "compute"),
    [
        (Kind.ADDITION, lambda a, b: str(a + b)),
        (Kind.SUBTRACTION, lambda a, b: str(abs(a - b))),
        (Kind.MULTIPLICATION, lambda a, b: str(a * b)),
        (Kind.DIVISION, lambda a, b: None),
    ],
)
def test_arithmetic(questions: list[Question], kind: Kind, compute: Callable[[int, int], str | None]) -> None:
    for question in of_kind(questions, kind):
        a, b = numbers_in(asked(question))
        if kind is Kind.DIVISION:
            assert question.answer in (f"{a // b} remainder {a % b}", f"{b // a} remainder {b % a}" if a else "")
        else:
            assert question.answer == compute(a, b)


def test_units(questions: list[Question]) -> None:
    factors = {}
    for larger, smaller, factor in UNITS:
        factors[larger, smaller] = factor
    for question in of_kind(questions, Kind.UNITS):
        words = set(re.findall(r"[a-z]+", asked(question)))
        (amount,) = numbers_in(asked(question))
        possible = {str(amount * factor) for (larger, smaller), factor in factors.items() if {larger, smaller} <= words}
        assert question.answer in possible


def test_lists(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.EXTREME):
        numbers = numbers_in(asked(question))
        largest = any(word in asked(question) for word in ("largest", "biggest", "highest", "greatest"))
        assert question.answer == str(max(numbers) if largest else min(numbers))
    for question in of_kind(questions, Kind.SORT):
        falling = any(word in asked(question) for word in ("descending", "decreasing", "falling"))
        assert numbers_in(question.answer) == sorted(numbers_in(asked(question)), reverse=falling)
    for question in of_kind(questions, Kind.TOTAL):
        assert question.answer == str(sum(numbers_in(asked(question))))
    for question in of_kind(questions, Kind.MEAN):
        numbers = numbers_in(asked(question))
        assert int(question.answer) * len(numbers) == sum(numbers)
    for question in of_kind(questions, Kind.PARITY):
        odd = sum(number % 2 for number in numbers_in(asked(question)))
        assert question.answer == str(odd if "odd" in asked(question) else len(numbers_in(asked(question))) - odd)


def test_sequence(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.SEQUENCE):
        numbers = [*numbers_in(asked(question)), int(question.answer)]
        assert len({b - a for a, b in pairwise(numbers)}) == 1


def test_letters(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.REVERSE):
        assert question.answer == letters_in(asked(question))[::-1]
    for question in of_kind(questions, Kind.NTH_LETTER):
        (place,) = numbers_in(asked(question))
        assert question.answer == letters_in(asked(question))[place - 1]


def test_weekday(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.WEEKDAY):
        (count,) = numbers_in(asked(question))
        (start,) = [index for index, day in enumerate(DAYS) if day in asked(question)]
        back = "before" in asked(question) or "earlier" in asked(question)
        assert question.answer == DAYS[(start + (-count if back else count)) % 7]


def test_clock(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.CLOCK):
        text = asked(question)
        hour, minute = map(int, re.findall(r"(\d\d):(\d\d)", text)[0])
        hours = sum(map(int, re.findall(r"(\d+) hours?", text)))
        (minutes,) = map(int, re.findall(r"(\d+) minutes?", text))
        later = (hour * 60 + minute + hours * 60 + minutes) % (24 * 60)
        assert question.answer == f"{later // 60:02}:{later % 60:02}"


def test_story_answer_follows_from_its_numbers(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.STORY):
        a, b, c = (numbers_in(asked(question)) * 2)[:3]
        orders = [(a, b, c), (b, a, c), (c, a, b)]
        reachable = (
            {x + y * z for x, y, z in orders} | {y * z - x for x, y, z in orders} | {x - y * z for x, y, z in orders}
        )
        reachable |= {a + b - c, a - b - c}
        assert int(question.answer) in reachable


def test_recall_asks_for_a_fact_of_turn_one(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.RECALL):
        told = question.messages[-3][1]
        assert question.answer in told
        assert question.answer not in asked(question).split()


def test_followup_needs_the_earlier_answer(questions: list[Question]) -> None:
    for question in of_kind(questions, Kind.FOLLOWUP):
        result = int(extract_answer(question.messages[-2][1]))
        (n,) = numbers_in(asked(question))
        assert int(question.answer) in (result + n, result - n, result * n)
        assert sum(numbers_in(question.messages[-3][1])) == result


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("432", "432"),
        ("7+5+0=12\nAnswer: 432", "432"),
        ("Answer: 1\nAnswer: 22 remainder 5.", "22 remainder 5"),
        ("  Tuesday. ", "tuesday"),
        ("Answer: 3 ,4,  5", "3, 4, 5"),
        ("", ""),
    ],
)
def test_extract_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


def test_is_correct_takes_both_tiers_replies_and_no_other(questions: list[Question]) -> None:
    for question in questions[:300]:
        assert is_correct(question, question.answer)
        assert is_correct(question, f"{question.working}\nAnswer: {question.answer}")
        assert not is_correct(question, f"{question.answer}0")
