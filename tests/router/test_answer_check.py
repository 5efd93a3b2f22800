import math
import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.settings import ConfigError
from router.query import Conversation, Finish, Message, TokenLogprob
from router.scoring import EdgeAnswer
from router.scoring.answer_check import (
    BIAS,
    STAGE_ONE,
    AnswerChecker,
    CheckItem,
    CheckModel,
    Head,
    Heads,
    SignalWeight,
)
from router.scoring.answer_signals import signal_names
from router.scoring.dataset import Row
from router.scoring.fit_check import cross_check, cut_answer, fit_check

HOLD = 8


def item(answer: EdgeAnswer, *, score: float = 0.5, question: str = "what is it") -> CheckItem:
    """What the edge said to one user turn."""
    return CheckItem(Conversation((Message("user", question),)), score, answer)


def spoken(logprobs: Sequence[float], finish: Finish | None = Finish.STOP) -> EdgeAnswer:
    """An answer of one word a token, each with one rival."""
    tokens = [
        TokenLogprob("word ", value, (TokenLogprob("word ", value), TokenLogprob("other ", -3.0))) for value in logprobs
    ]
    return EdgeAnswer("word " * len(tokens), tuple(tokens), finish)


def labelled(count: int, seed: int = 7) -> tuple[list[Row], list[EdgeAnswer], list[float]]:
    """The cloud gains mostly where the edge doubted one token somewhere; stage one knows nothing."""
    rng = random.Random(seed)
    rows, answers = [], []
    for number in range(count):
        doubted = rng.random() < 0.4
        logprobs = [-0.05 * rng.random() for _ in range(rng.randint(3, 20))]
        if doubted:
            logprobs[rng.randrange(min(len(logprobs), 4))] = -0.5 - rng.random()
        gained = rng.random() < (0.85 if doubted else 0.1)
        rows.append(Row(id=str(number), prompt="what is it", weak_correct=float(not gained), strong_correct=1.0))
        answers.append(spoken(logprobs))
    return rows, answers, [0.4] * count


@pytest.fixture(scope="module")
def model() -> CheckModel:
    return fit_check(*labelled(800), hold_tokens=HOLD)


def flat(head: Head) -> CheckModel:
    """One head for everything."""
    return CheckModel(with_logprobs=None, without_logprobs=Heads(head, head))


def test_doubt_is_found_and_the_probability_is_calibrated_on_fresh_answers(model: CheckModel) -> None:
    rows, answers, scores = labelled(2000, seed=8)

    judged = np.array(
        AnswerChecker(model).check([item(answer, score=s) for answer, s in zip(answers, scores, strict=True)])
    )

    gained = np.array([row.gain > 0 for row in rows])
    sure, unsure = judged < 0.5, judged >= 0.5
    assert judged[sure].mean() == pytest.approx(gained[sure].mean(), abs=0.04)
    assert judged[unsure].mean() == pytest.approx(gained[unsure].mean(), abs=0.06)
    assert gained[sure].mean() < 0.2 < 0.7 < gained[unsure].mean()


def test_a_beginning_is_judged_by_its_own_head(model: CheckModel) -> None:
    surely, doubtfully = [-0.01] * HOLD, [-0.01, -1.2, *[-0.01] * (HOLD - 2)]

    low, high = AnswerChecker(model).check([item(spoken(tokens, None)) for tokens in (surely, doubtfully)])

    assert low < 0.25
    assert high > 0.65
    assert model.with_logprobs is not None
    assert model.with_logprobs.beginning != model.with_logprobs.whole


@pytest.mark.parametrize(
    ("answer", "bias"),
    [
        (spoken([-0.1]), 1.0),
        (spoken([-0.1], None), 2.0),
        (EdgeAnswer("word", (), Finish.LENGTH), 3.0),
        (EdgeAnswer("word"), 4.0),
    ],
)
def test_each_kind_of_answer_has_its_head(answer: EdgeAnswer, bias: float) -> None:
    first, second, third, fourth = (Head(float(number), {}) for number in range(1, 5))
    model = CheckModel(with_logprobs=Heads(first, second), without_logprobs=Heads(third, fourth))

    assert AnswerChecker(model).explain(item(answer)) == {BIAS: bias}


def test_neither_an_outlier_nor_a_large_weight_makes_it_sure() -> None:
    outlier = AnswerChecker(flat(Head(0.0, {"characters": SignalWeight(0.1, 0.0, 1e-3)})))
    large = AnswerChecker(flat(Head(1e6, {})))

    assert outlier.explain(item(spoken([-0.1] * 9)))["characters"] == pytest.approx(0.6)
    assert 1 - 1e-12 < large.check([item(spoken([-0.1]))])[0] < 1


def test_an_answer_without_logprobs_gets_the_base_rate_where_its_text_says_nothing(model: CheckModel) -> None:
    rows, _, _ = labelled(800)
    base = sum(row.gain > 0 for row in rows) / len(rows)

    (chance,) = AnswerChecker(model).check([item(EdgeAnswer("word " * 10, (), Finish.STOP), score=0.4)])

    assert chance == pytest.approx(base, abs=0.08)
    assert not any("logprob" in name for name in model.without_logprobs.whole.signals)


def test_an_edge_that_gives_no_logprobs_can_be_fitted() -> None:
    rows, answers, scores = labelled(300)
    texts = [
        EdgeAnswer("3 + 4 = 8" if row.gain > 0 else "3 + 4 = 7", (), answer.finish)
        for row, answer in zip(rows, answers, strict=True)
    ]

    model = fit_check(rows, texts, scores)
    wrong, right = AnswerChecker(model).check([item(EdgeAnswer(f"3 + 4 = {n}", (), Finish.STOP)) for n in (8, 7)])

    assert model.with_logprobs is None
    assert wrong > 0.9
    assert right < 0.1


def test_with_too_few_beginnings_stage_one_stands() -> None:
    rows, answers, scores = labelled(300)
    short = [spoken([token.logprob for token in answer.logprobs[:2]]) for answer in answers]

    checker = AnswerChecker(fit_check(rows, short, scores, hold_tokens=HOLD))

    assert checker.check([item(spoken([-2.0], None), score=0.37)]) == pytest.approx([0.37])


def test_the_signals_add_up_to_the_probability(model: CheckModel) -> None:
    checker = AnswerChecker(model)
    doubtful = item(spoken([-0.1, -1.5, -0.2]), score=0.3)

    parts = checker.explain(doubtful)

    (chance,) = checker.check([doubtful])
    assert sum(parts.values()) == pytest.approx(math.log(chance / (1 - chance)))
    assert {BIAS, "logprob_lowest"} <= set(parts)
    assert list(parts) == sorted(parts, key=lambda name: -abs(parts[name]))


def test_stage_one_counts_where_it_was_right() -> None:
    rows, answers, _ = labelled(600)
    told = [0.8 if row.gain > 0 else 0.2 for row in rows]

    checker = AnswerChecker(fit_check(rows, answers, told))
    low, high = checker.check([item(spoken([-0.01] * 5), score=score) for score in (0.2, 0.8)])

    assert low < 0.1
    assert high > 0.8


def test_calibration_undoes_what_regularization_shrinks(monkeypatch: pytest.MonkeyPatch, model: CheckModel) -> None:
    items = [item(spoken([-0.01] * 5)), item(spoken([-0.01, -1.2, -0.01, -0.01, -0.01]))]
    monkeypatch.setattr("router.scoring.fit_check._STRENGTHS", (1e-4,))

    shrunk = AnswerChecker(fit_check(*labelled(800), hold_tokens=HOLD))

    assert shrunk.check(items) == pytest.approx(AnswerChecker(model).check(items), abs=0.1)


def test_a_fit_is_deterministic_and_survives_its_file(model: CheckModel) -> None:
    again = fit_check(*labelled(800), hold_tokens=HOLD)

    assert again == model
    assert msgspec.json.decode(msgspec.json.encode(model), type=CheckModel) == model


def test_cross_checking_never_judges_a_row_by_itself() -> None:
    rows, answers, scores = labelled(400)
    before = cross_check(rows, answers, scores, folds=5)

    turned = [msgspec.structs.replace(rows[0], weak_correct=1.0 - rows[0].weak_correct), *rows[1:]]
    after = cross_check(turned, answers, scores, folds=5)

    assert after[0] == before[0]
    assert np.sum(after != before) > 300  # all folds but its own have learnt from it


def test_a_fit_needs_both_outcomes_and_rows_that_match() -> None:
    rows, answers, scores = labelled(50)

    with pytest.raises(ValueError, match="nothing to learn"):
        fit_check([rows[0]] * 50, answers, scores)
    with pytest.raises(ValueError, match="50 rows, 49 answers"):
        fit_check(rows, answers[1:], scores)


def test_a_model_with_an_unknown_signal_is_refused() -> None:
    head = Head(0.0, {"moon_phase": SignalWeight(1.0, 0.0, 1.0)})

    with pytest.raises(ConfigError, match="'moon_phase' is no signal of this router; fit the artifact again"):
        AnswerChecker(flat(head))


@pytest.mark.parametrize("weight", [b"1e9", b"null", b"1e999"])
def test_a_weight_that_is_no_finite_number_is_refused(weight: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(b'{"weight":%s,"mean":0,"scale":1}' % weight, type=SignalWeight)


@given(
    text=st.text(alphabet="0123456789+-*/=()<>%.,$x \nab", max_size=400),
    question=st.text(max_size=100),
    logprobs=st.lists(st.floats(max_value=0.0) | st.just(math.nan), max_size=20),
    finish=st.sampled_from([None, *Finish]),
    score=st.floats(0, 1),
)
def test_every_answer_gets_a_probability(
    text: str, question: str, logprobs: list[float], finish: Finish | None, score: float
) -> None:
    head = Head(0.1, {name: SignalWeight(0.2, 0.1, 0.5) for name in signal_names() | {STAGE_ONE}})
    tokens = tuple(TokenLogprob("7", value, (TokenLogprob("7", value),)) for value in logprobs)

    (chance,) = AnswerChecker(flat(head)).check(
        [item(EdgeAnswer(text, tokens, finish), score=score, question=question)]
    )

    assert 0 < chance < 1


@pytest.mark.parametrize("tokens", [1, 4, 8])
def test_a_cut_answer_is_a_beginning_unless_it_has_ended(tokens: int) -> None:
    answer = spoken([-0.1, -0.2, -0.3, -0.4])

    cut = cut_answer(answer, tokens)

    assert cut == (EdgeAnswer("word " * tokens, answer.logprobs[:tokens]) if tokens < 4 else answer)


def test_without_logprobs_an_answer_is_cut_by_characters() -> None:
    answer = EdgeAnswer("a" * 65, (), Finish.STOP)

    assert cut_answer(answer, 16) == EdgeAnswer("a" * 64)
    assert cut_answer(answer, 17) is answer
