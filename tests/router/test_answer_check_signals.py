import math

import pytest

from router.query import Finish, TokenLogprob
from router.scoring import EdgeAnswer
from router.scoring.answer_signals import read_signals, signal_names
from router.scoring.arithmetic import read_claims, read_last_number, read_numbers
from router.scoring.token_signals import read_token_signals

QUESTION = "Ann has 12 boxes of 3 pens each. She sells half of them for $2 a pen. How many dollars does she get?"
SOLUTION = "Ann has 12 x 3 = 36 pens.\nShe sells 36 / 2 = 18 pens.\nShe gets 18 * 2 = $<<18*2=36>>36 dollars.\n#### 36"


def signals(text: str, finish: Finish | None = Finish.STOP, question: str = QUESTION) -> dict[str, float]:
    """Of an answer without log-probabilities."""
    return dict(read_signals(question, EdgeAnswer(text, (), finish)))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("12 x 3 = 36", [True]),
        ("12 × 3 = 35", [False]),  # noqa: RUF001
        ("(60 - 17) / 2 = 43 / 2 = 21.5", [True, True]),
        ("she pays $1,200 + $34.50 = $1,234.50 in all", [True]),
        ("$<<10*3=31>>31", [False]),
        ("50 - 10% * 50 = 45", [True]),
        ("3 / 4 = 75%", [True]),
        ("100 / 3 = 33.33", [True]),
        ("100 / 3 = 34", [False]),
        ("2 * (3 + 4) = 14", [True]),
        ("5 - -3 = 8", [True]),
    ],
)
def test_sums_are_computed_again(text: str, holds: list[bool]) -> None:
    assert [claim.holds for claim in read_claims(text)] == holds


@pytest.mark.parametrize(
    "text", ["x = 3", "2x = 28", "pens = 3 + 4", "3 + = 4", "1 / 0 = 3", "= = =", "2 hours * 3 = 6x"]
)
def test_what_cannot_be_read_is_no_claim(text: str) -> None:
    assert read_claims(text) == []


def test_a_sum_and_its_calculator_note_count_once() -> None:
    assert len(read_claims("25*3=<<25*3=75>>75")) == 1


def test_numbers_are_read_with_commas_points_and_signs() -> None:
    assert read_numbers("1,234.5 and .5, then 7 of 8/9") == [1234.5, 0.5, 7, 8, 9]
    assert read_last_number("it is -9.50.") == (9.5, 2, True)
    assert read_last_number("10-9") == (9, 0, False)
    assert read_last_number("none") is None


def test_a_good_solution_uses_what_is_given_and_ends_on_its_result() -> None:
    found = signals(SOLUTION)

    assert found["claims"] == pytest.approx(math.log1p(3))
    assert found["claims_all_right"] == 1
    assert found["given_unsaid"] == found["given_uncomputed"] == found["operands_strange"] == 0
    assert found["last_is_last_result"] == found["ends_on_previous"] == found["last_line_bare"] == 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("claims_wrong", SOLUTION.replace("= 18 pens", "= 17 pens"), math.log1p(1)),
        ("given_uncomputed", SOLUTION.replace("12 x 3 = 36", "36 + 0 = 36"), 2 / 3),
        ("operands_strange", SOLUTION.replace("36 / 2 = 18", "36 / 7 = 5.14"), math.log1p(2)),
        ("results_fractional", SOLUTION.replace("36 / 2 = 18", "36 / 8 = 4.5"), math.log1p(1)),
        ("last_is_last_result", SOLUTION + "7", 0),
        ("last_is_last_result", "3 + 4 = 7, and 7 + 1 = 8, so it is 7", 0),
        ("last_is_a_result", "3 + 4 = 7, and 7 + 1 = 8, so it is 7", 1),
        ("last_with_point", "She gets 36.00", 1),
        ("last_negative", "She gets $-36", 1),
        ("last_given", "It is 12", 1),
        ("refuses", "I cannot say, not enough is given.", 1),
        ("hedges", "Perhaps 36, but maybe not.", math.log1p(3)),
        ("unknowns", "Let x = 12.", math.log1p(2)),
        ("broken_off", "She sells 36 /", 1),
        ("broken_off", "She sells 18.", 0),
        ("repetition", "so it is so it is so it is", 4 / 7),
        ("empty", " \n", 1),
        ("wanted_in_closing", "18 pens. So 36 dollars.", 1),
        ("wanted_in_closing", "36 dollars? No, 18 pens.", 0),
    ],
)
def test_a_signal_says_what_it_is_named_for(name: str, text: str, value: float) -> None:
    assert signals(text)[name] == pytest.approx(value)


def test_a_cut_answer_is_told_from_an_ended_one() -> None:
    assert signals("36", Finish.LENGTH)["cut"] == 1
    assert signals("36", Finish.STOP)["cut"] == signals("36", None)["cut"] == 0


def test_token_signals_against_hand_computed_values() -> None:
    half = math.log(0.5)
    rival = TokenLogprob("8", math.log(0.25))
    tokens = [
        TokenLogprob("It", 0.0, (TokenLogprob("It", 0.0),)),
        TokenLogprob("7", half, (TokenLogprob("7", half), rival)),
    ]

    found = read_token_signals(tokens)

    assert found["logprob_mean"] == pytest.approx(half / 2)
    assert found["logprob_lowest"] == found["number_logprob_lowest"] == found["logprob_last"] == pytest.approx(half)
    assert found["logprob_at_0"] == 0
    assert found["doubt"] == pytest.approx(0.0)  # 1 - exp(ln 0.5) = 0.5
    assert found["lowest_place"] == 0.5
    assert found["margin_lowest"] == pytest.approx(math.log(2))
    assert found["entropy_highest"] == pytest.approx(1.5 * math.log(2))  # 1/2, 1/4 and 1/4 for all the others
    assert found["entropy_first"] == pytest.approx(0.0, abs=1e-6)
    assert found["outvoted_tokens"] == 0


def test_doubt_is_the_chance_of_another_answer_in_log_odds() -> None:
    found = read_token_signals([TokenLogprob("a", math.log(0.9)), TokenLogprob("1", math.log(0.5))])

    assert found["doubt"] == pytest.approx(math.log(0.55 / 0.45))
    assert found["number_doubt"] == pytest.approx(0.0)


def test_without_alternatives_there_is_no_margin_and_without_tokens_nothing() -> None:
    bare = read_token_signals([TokenLogprob("a", -0.1)])

    assert "margin_mean" not in bare
    assert bare["logprob_mean"] == -0.1
    assert read_token_signals([]) == {}


def test_all_signals_are_finite_and_named() -> None:
    odd = EdgeAnswer(
        "9" * 400 + " = 1 / 3\n-$5", (TokenLogprob("9", -math.inf, (TokenLogprob("8", -math.inf),)),), None
    )

    found = read_signals("9" * 400, odd)

    assert all(math.isfinite(value) for value in found.values())
    assert set(found) <= signal_names()


@pytest.mark.parametrize(
    "piece", ["1+1=", "<<1+1=2>>", "(", "((((-1=", "1,", "\n", "a = ", "é", "1" * 40 + "a", "more than "]
)
def test_a_long_answer_costs_no_more_than_a_short_one(piece: str) -> None:
    short, long = signals(piece * (4096 // len(piece))), signals(piece * (400_000 // len(piece)))

    assert abs(short["characters"] - long["characters"]) < 0.01
    assert set(short) == set(long)
