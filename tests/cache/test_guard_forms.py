"""What two questions must have in common on their face."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache.guard import Refusal
from router.cache.guard.forms import read_form, refuse_form


def refuse(asked: str, stored: str) -> Refusal | None:
    return refuse_form(read_form(asked), read_form(stored))


@pytest.mark.parametrize(
    ("asked", "stored", "refusal"),
    [
        ("Does the ferry leave on Monday?", "When does the ferry leave on Monday?", Refusal.QUESTION),
        ("I moved out. When is the rent due?", "I moved out. To whom is the rent due?", Refusal.QUESTION),
        ("Is there a fair in Ghent?", "Will there be a fair in Ghent?", Refusal.TENSE),
        ("Has the shop opened?", "Will the shop open?", Refusal.TENSE),
        ("price of a haircut", "What did a haircut cost?", Refusal.TENSE),
        ("What goes in field 7?", "What goes in field 7b?", Refusal.NUMBER),
        ("Is tin denser than lead?", "Is lead denser than tin?", Refusal.ORDER),
        ("Did Ann drive Bob's car?", "Did Bob drive Ann's car?", Refusal.ORDER),
        ("What is the tallest tree?", "What's the tallest tree?", None),
        ("When does it open?", "What time does it open?", None),
        ("Does it open on the 1st of May?", "Does it open on May 1st?", None),
    ],
)
def test_faces(asked: str, stored: str, refusal: Refusal | None) -> None:
    assert refuse(asked, stored) is refusal
    assert refuse(stored, asked) is refusal


words = st.lists(
    st.sampled_from(
        ["where", "the", "red", "fox", "did", "jump", "over", "4", "dogs", "will", "b2", "it's", "and", "have", "seen"]
    ),
    max_size=12,
)


@given(words, words)
def test_both_ways_alike(one: list[str], other: list[str]) -> None:
    asked, stored = " ".join(one), " ".join(other)

    assert refuse(asked, stored) is refuse(stored, asked)
    assert refuse(asked, asked) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_is_too_strange(one: str, other: str) -> None:
    refuse(one, other)
