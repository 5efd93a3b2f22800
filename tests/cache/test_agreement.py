"""What counts as the same answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache.agreement import Agreement, agree

LONG = "The museum opens at 9 in the morning and closes at 17, and visitors may take photos in all the rooms of it"


@pytest.mark.parametrize(
    ("served", "fresh"),
    [
        ("Paris", "  paris. "),
        ("42", "42.0"),
        ("The sum is 1,000.", "the sum is 1000"),
        ("First 3 + 4 = 7, then 7 * 2 = 14.\nAnswer: 14", "Double 7.\nAnswer: 14.0"),
        ("Answer: Monday", "It was a Monday, so the answer is Monday."),
        (r"So \boxed{12}", "Therefore the final answer is 12."),
        ("Paris", "The capital of France is Paris."),
        ("(b)", "B) because it is larger"),
        ("Yes", "Yes, it does."),
        ("It doesn\u2019t", "it doesn't"),
    ],
)
def test_the_same_said_otherwise(served: str, fresh: str) -> None:
    assert agree(served, fresh) is Agreement.SAME
    assert agree(fresh, served) is Agreement.SAME


@pytest.mark.parametrize(
    ("served", "fresh"),
    [
        ("42", "43"),
        ("It is 5 km", "It is 5.5 km"),
        ("-3", "3"),
        ("Answer: 14", "Answer: 15"),
        ("Both 14 and 15 occur.\nAnswer: 14", "Both 14 and 15 occur.\nAnswer: 15"),
        ("Answer: 5 km", "Answer: 5 miles"),
        ("Answer: 3, 5, 9", "Answer: 3, 9, 5"),
        ("Yes, it is.", "No, it is."),
        ("True", "False"),
        ("(a)", "(b)"),
        ("You can take it with milk", "You can't take it with milk"),
        ("Never do that", "Always do that"),
        (LONG, LONG.replace("17", "18")),
        (LONG, LONG.replace("may", "may not")),
        ("", "something was 5"),
    ],
)
def test_another_answer(served: str, fresh: str) -> None:
    assert agree(served, fresh) is Agreement.DIFFERENT
    assert agree(fresh, served) is Agreement.DIFFERENT


def test_what_words_leave_open_is_for_the_vectors() -> None:
    assert agree("Paris", "London") is Agreement.UNCLEAR
    assert agree(LONG, "From 9 to 17 the museum is open; photos are allowed everywhere") is Agreement.UNCLEAR


def test_the_marks_of_a_list_are_no_numbers() -> None:
    assert agree("1. flour\n2. milk\n3. eggs", "- flour\n- milk\n- eggs") is not Agreement.DIFFERENT


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_texts_are_compared_alike_in_both_orders(served: str, fresh: str) -> None:
    assert agree(served, fresh) is agree(fresh, served)
    assert agree(served, served) is Agreement.SAME


def test_long_texts_take_no_long_time() -> None:
    for text in ("1" * 60_000, "1," * 30_000, "answer is " * 6_000, "no " * 20_000, "\n" * 60_000 + "x"):
        agree(text, text + " y")
