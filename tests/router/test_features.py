"""What is read in a prompt."""

import random

import numpy as np
import pytest

from router.features import NAMES, SIGNALS, read_prompt, tabulate
from router.query import Conversation, Message, Prompt, RawPrompts


def ask(*texts: str) -> Conversation:
    """User turns with an answer between them."""
    turns = [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts)]
    return Conversation(tuple(turns))


def read(prompt: Prompt) -> dict[str, float]:
    """Features by name."""
    (row,) = tabulate([read_prompt(prompt)]).tolist()
    return dict(zip(NAMES, row, strict=True))


def test_every_feature_has_a_name_and_a_signal() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(SIGNALS)


@pytest.mark.parametrize(
    ("text", "carries", "borrows"),
    [
        ("23 + 45", 0, 0),
        ("58 + 67", 2, 1),
        ("99 + 1", 2, 0),
        ("1000 - 1", 0, 3),
        ("what is 586 - 305", 1, 0),
    ],
)
def test_carries_and_borrows_are_those_of_written_sums(text: str, carries: int, borrows: int) -> None:
    found = read(ask(text))

    assert np.expm1([found["carries"], found["borrows"]]) == pytest.approx([carries, borrows], abs=1e-4)


def test_options_of_a_multiple_choice_question_are_measured() -> None:
    found = read(ask("Which is even?\nA. 13\nB. 244\nC. 5\nD. 7\nAnswer:"))

    assert np.expm1([found["options"], found["longest_option"], found["numeric_options"]]) == pytest.approx([4, 3, 4])


def test_earlier_turns_count_but_the_last_one_is_the_question() -> None:
    alone, after = read(ask("multiply that by 9")), read(ask("what is 371 + 339?", "710", "multiply that by 9"))

    assert after["earlier_digits"] == 3
    assert after["earlier_turns"] > alone["earlier_turns"] == 0
    assert after["characters"] == alone["characters"]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    prompts: list[Prompt] = [ask("sort 3, 1, 2"), ask("Why?"), RawPrompts(("Once upon", "a time")), ask("")]

    together = tabulate([read_prompt(prompt) for prompt in prompts])

    for row, prompt in zip(together, prompts, strict=True):
        assert np.array_equal(tabulate([read_prompt(prompt)])[0], row)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "?" * 50_000,
        "9" * 100_000,
        "é" * 3000,
        "A" * 10_000,
        "\nA. " * 5000,
        "٣ + ٤",
        "²³",
        "\ud800",
        "1 " * 9999,
    ],
)
def test_features_of_anything_are_finite_and_bounded(text: str) -> None:
    reading = read_prompt(ask(text, text, text))

    assert np.isfinite(tabulate([reading])).all()
    assert np.abs(tabulate([reading])).max() < 1e4
    assert len(reading.tokens) <= 4200


def test_a_long_prompt_is_read_at_both_ends() -> None:
    filler = " ".join(random.Random(1).choices(["stone", "river", "cloud"], k=5000))

    tokens = read_prompt(ask(f"alpha {filler} omega")).tokens

    assert tokens[0] == "alpha"
    assert tokens[-1] == "omega"
