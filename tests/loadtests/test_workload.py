"""What is asked: the stated mix, the same for the same seed, with answers that stay known."""

import random
from collections import Counter
from itertools import islice

import msgspec
import pytest

from loadtests.pair.questions import Kind, Question, Split, generate
from loadtests.swarm.record import Form, Origin
from loadtests.swarm.scenario import Model, Open, Scenario, Urgency
from loadtests.swarm.shapes import Steady
from loadtests.swarm.workload import Request, draw_requests, paraphrase
from router.query import Priority

MIX = {Origin.EASY: 0.4, Origin.HARD: 0.3, Origin.DUPLICATE: 0.2, Origin.PARAPHRASE: 0.1}
SCENARIO = Scenario(
    summary="",
    arrival=Open(rate_per_s=1),
    shape=Steady(duration_s=1),
    questions=MIX,
    forms={Form.CHAT: 2, Form.STREAM: 1, Form.EMBEDDING: 1},
    priorities={Priority.INTERACTIVE: Urgency(weight=1, deadline_ms=500), Priority.BATCH: Urgency(weight=3)},
)
COUNT = 3000


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """The beginning of the stream."""
    return list(islice(draw_requests(SCENARIO), COUNT))


def test_mix_is_as_stated(requests: list[Request]) -> None:
    origins = Counter(one.origin for one in requests)
    assert {name: origins[name] / COUNT for name in MIX} == pytest.approx(MIX, abs=0.04)
    assert Counter(one.form for one in requests)[Form.CHAT] / COUNT == pytest.approx(0.5, abs=0.04)
    urgent = [one for one in requests if one.priority is Priority.INTERACTIVE]
    assert len(urgent) / COUNT == pytest.approx(0.25, abs=0.04)
    assert {one.deadline_ms for one in urgent} == {500}
    assert {one.deadline_ms for one in requests if one.priority is Priority.BATCH} == {None}


def test_same_seed_same_requests(requests: list[Request]) -> None:
    assert list(islice(draw_requests(SCENARIO), 200)) == requests[:200]
    other = msgspec.structs.replace(SCENARIO, seed=2)
    assert list(islice(draw_requests(other), 200)) != requests[:200]


def test_duplicates_and_paraphrases_were_asked_before(requests: list[Request]) -> None:
    asked: dict[tuple[Kind, str], set[str]] = {}
    for one in requests:
        key, text = (one.question.kind, one.question.answer), one.question.messages[-1][1]
        if one.origin is Origin.DUPLICATE and one.number > 0:
            assert text in asked[key]
        elif one.origin is Origin.PARAPHRASE and key in asked:
            assert text not in asked[key] or len(asked[key]) > 1
        asked.setdefault(key, set()).add(text)


def test_hard_is_harder(requests: list[Request]) -> None:
    for kind in Kind:
        easy, hard = (
            [one.question.difficulty for one in requests if one.question.kind is kind and one.origin is origin]
            for origin in (Origin.EASY, Origin.HARD)
        )
        assert max(easy) < min(hard)


def test_larger_mix_sends_all_that_a_smaller_one_sends(requests: list[Request]) -> None:
    def cloud(share: float) -> set[int]:
        mixed = msgspec.structs.replace(SCENARIO, models={Model.CLOUD: share, Model.EDGE: 1 - share})
        drawn = list(islice(draw_requests(mixed), 500))
        assert [one.question for one in drawn] == [one.question for one in requests[:500]]
        return {one.number for one in drawn if one.model is Model.CLOUD}

    assert cloud(0.0) < cloud(0.25) < cloud(0.75) < cloud(1.0)
    assert len(cloud(0.25)) / 500 == pytest.approx(0.25, abs=0.08)


def questions_of(kind: Kind) -> list[Question]:
    """Some of a kind."""
    return [one for one in generate(5, 2000, Split.TEST) if one.kind is kind]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in {Kind.STORY, Kind.FOLLOWUP}])
def test_paraphrase_keeps_everything_but_the_words(kind: Kind) -> None:
    rng, found = random.Random(1), 0
    for question in questions_of(kind)[:40]:
        other = paraphrase(rng, question)
        if other is None:
            continue
        found += 1
        text, again = question.messages[-1][1], other.messages[-1][1]
        assert again != text
        assert "{" not in again
        assert other.answer == question.answer
        assert other.messages[:-1] == question.messages[:-1]
        digits = [sorted(filter(str.isdigit, one)) for one in (text, again)]
        if kind is not Kind.NTH_LETTER:  # whose wordings say 3rd or number 3
            assert digits[0] == digits[1]
    assert found >= 20


def test_kinds_whose_wordings_differ_in_meaning_have_none() -> None:
    rng = random.Random(1)
    for kind in (Kind.STORY, Kind.FOLLOWUP):
        assert all(paraphrase(rng, question) is None for question in questions_of(kind)[:20])


def test_judge() -> None:
    request = next(draw_requests(SCENARIO))
    assert request.judge(f"some working\nAnswer: {request.question.answer}")
    assert not request.judge(f"{request.question.answer} and more")
