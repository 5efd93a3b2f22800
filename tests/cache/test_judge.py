"""The judge lets rewordings pass that no rule explains, and nothing that a fact tells apart."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.artifact import MANIFEST, ArtifactKind, write_manifest
from edge.engine.errors import EngineError
from edge.engine.settings import ConfigError
from edge.serving import Drain
from router.app import create_app
from router.cache.guard import Guard
from router.cache.guard.joining import MOST_TOKENS, Counterpart, Joiner
from router.cache.guard.judge import Judge
from router.cache.guard.lexicon import Lexicon
from router.cache.guard.refusal import Refusal
from router.config import Config, load_config

STORE = Path(os.environ.get("HYBRID_MODELS", Path(__file__).parents[2] / ".models"))
ARTIFACT = STORE / "question-judge" / "1"

SAME = [
    ("How do I get red wine out of a cotton shirt?", "I spilled red wine on my cotton shirt. How can I remove it?"),
    ("What is the fastest way to peel garlic?", "fastest way peel garlic"),
    ("Who painted the ceiling of the Sistine Chapel?", "The ceiling of the Sistine Chapel was painted by whom?"),
    ("Why does my laptop get so hot?", "My laptop gets very hot. What is the reason?"),
    ("Could you tell me how tall Mont Blanc is?", "What is the height of Mont Blanc?"),
    ("How long do hard-boiled eggs keep in the fridge?", "For how long can I store hard-boiled eggs in the fridge?"),
    ("Can I take my cat on the train?", "Are cats allowed on the train? I'd like to bring mine."),
    ("How do I undo my last commit in Git?", "I made a commit in Git by mistake. How do I undo it?"),
    ("Which vitamins are in spinach?", "What vitamins does spinach contain?"),
    ("How long does it take to boil an egg hard?", "For how many minutes must an egg boil to be hard?"),
]
DIFFERENT = [
    ("How do I get red wine out of a cotton shirt?", "I spilled red wine on my leather sofa. How can I remove it?"),
    ("What is the fastest way to peel garlic?", "cheapest way to buy garlic"),
    ("Who painted the ceiling of the Sistine Chapel?", "By whom was the Sistine Chapel built?"),
    ("Why does my laptop get so hot?", "My laptop does not get hot. What is the reason?"),
    ("Could you tell me how tall Mont Blanc is?", "How old is Mont Blanc?"),
    ("When was the printing press invented?", "Where was the printing press invented?"),
    ("Can I freeze cooked rice?", "How long can I keep cooked rice in the fridge?"),
]


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="module")
def judge(lexicon: Lexicon) -> Judge:
    return Judge.open(ARTIFACT, lexicon)


@pytest.fixture(scope="module")
def guard(lexicon: Lexicon, judge: Judge) -> Guard:
    return Guard(lexicon, judge)


@pytest.fixture(scope="module")
def credulous(lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """Its judge says yes to everything, so that only facts and rules refuse."""
    folder = tmp_path_factory.mktemp("judge") / "1"
    shutil.copytree(ARTIFACT, folder)
    (folder / "judge.json").write_text(json.dumps({"threshold": -1e9, "veto": -1e9}))
    (folder / MANIFEST).unlink()
    write_manifest(folder, kind=ArtifactKind.JUDGE, name="credulous", version="1")
    return Guard(lexicon, Judge.open(folder, lexicon))


def test_rewordings_pass_that_the_strict_guard_refuses(guard: Guard) -> None:
    strict = Guard()
    left = [pair for pair in SAME if strict.refuse(*pair) is not None]
    assert len(left) >= 6

    # how many of all is for the benchmark to say
    assert sum(guard.refuse(*pair) is None for pair in left) >= 2


@pytest.mark.parametrize("pair", DIFFERENT)
def test_other_questions_are_refused(guard: Guard, pair: tuple[str, str]) -> None:
    assert guard.refuse(*pair) is not None


def test_it_does_not_matter_which_was_asked_first(judge: Judge) -> None:
    for one, other in [*SAME, *DIFFERENT]:
        assert judge.weigh(one, other) == judge.weigh(other, one)


def test_a_verdict_does_not_depend_on_what_was_judged_before(lexicon: Lexicon, judge: Judge) -> None:
    before = [judge.weigh(*pair) for pair in SAME]

    other = Judge.open(ARTIFACT, lexicon)

    assert [other.weigh(*pair) for pair in reversed(SAME)] == before[::-1]


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 10**6), st.integers(3, 10**6))
def test_no_judge_can_explain_another_number(credulous: Guard, one: int, other: int) -> None:
    found = credulous.refuse(
        f"How do I divide {one} marbles among my kids?", f"I have {other} marbles. Share them out."
    )

    assert (found is Refusal.NUMBER) is (one != other)


@pytest.mark.parametrize(
    ("asked", "stored", "refusal"),
    [
        ("Is the shop open on Monday?", "On Tuesday, can I go to the shop?", Refusal.DATE),
        ("How many miles is it to the shore?", "The shore: distance in kilometres?", Refusal.UNIT),
        ("Who was it that married Anna?", "Please say to whom Berta was married.", Refusal.ENTITY),
        ("Put this into French", "I need this in German, please", Refusal.LANGUAGE),
        ("Show the totals as JSON", "I want a CSV of the totals", Refusal.FORMAT),
        ("Is it legal to fish here?", "I wonder: would it be illegal to go fishing here?", Refusal.POLARITY),
        ("Was ist das denn?", "Was war das denn?", Refusal.LANGUAGE),
        ("What does `a==b` mean?", "Explain `a!=b`", Refusal.QUOTE),
        ("Did Rome attack Veii?", "Did Veii attack Rome?", Refusal.ORDER),
    ],
)
def test_no_judge_can_explain_another_fact(credulous: Guard, asked: str, stored: str, refusal: Refusal) -> None:
    assert credulous.refuse(asked, stored) is refusal
    assert credulous.refuse(stored, asked) is refusal


def test_what_is_too_long_for_the_judge_is_as_strict_as_without(credulous: Guard) -> None:
    tale = " ".join(["the river runs past the old mill and"] * MOST_TOKENS)
    asked, stored = f"{tale} why is it cold?", f"{tale} what makes it so chilly?"

    assert credulous.refuse(asked, stored) == Guard().refuse(asked, stored)
    assert credulous.refuse(asked, stored) is not None


def test_without_a_judge_the_guard_is_strict() -> None:
    strict = Guard()

    assert strict.refuse(*SAME[0]) is not None
    assert strict.refuse("How do I wash a car?", "Please, how do I wash a car?") is None


def test_tokens_say_whose_they_are_and_what_the_other_has(lexicon: Lexicon) -> None:
    joiner = Joiner.load(ARTIFACT / "tokenizer.json", lexicon)

    joined = joiner.join("buy two hot cakes", "purchase 2 cold cakes")

    assert joined is not None
    first, last = joiner.separators
    assert [at for at, one in enumerate(joined.ids) if one in {first, last}] == [0, 5, 10]
    assert joined.types[1:5].tolist() == [2 * mark for mark in (Counterpart.LIKE, 0, Counterpart.OPPOSITE, 0)]
    assert joined.types[6:10].tolist() == [2 * mark + 1 for mark in (Counterpart.LIKE, 0, Counterpart.OPPOSITE, 0)]
    assert joined.positions.tolist() == [0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_can_be_judged(guard: Guard, one: str, other: str) -> None:
    assert guard.refuse(one, one) is None
    assert guard.refuse(one, other) == guard.refuse(one, other)


def test_a_damaged_judge_is_not_loaded(lexicon: Lexicon, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    shutil.copytree(ARTIFACT, folder)
    (folder / "judge.json").write_text('{"threshold": -100.0, "veto": -100.0}')

    with pytest.raises(EngineError, match=r"judge\.json"):
        Judge.open(folder, lexicon)


def test_another_kind_of_model_is_no_judge() -> None:
    with pytest.raises(EngineError, match="kind"):
        Guard.open(STORE / "all-minilm-l6-v2-fast" / "1")


def configure(folder: Path, judge: str) -> Config:
    path = folder / "router.yaml"
    path.write_text(
        f"scoring: {{embedding: {STORE / 'all-minilm-l6-v2-fast' / '1'}}}\n"
        f"cache: {{semantic: {{enabled: true{judge}}}}}\n"
        "targets: {one: {backend: openai, tier: edge, url: 'http://127.0.0.1:1', chat_model: any}}\n"
    )
    return load_config(path)


def test_a_router_without_a_judge_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_app(configure(tmp_path, ""), Drain())

    assert ["cache.semantic.judge: none is given" in message for message in caplog.messages] == [True]


def test_a_router_with_a_judge_has_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_app(configure(tmp_path, f", judge: {ARTIFACT}"), Drain())

    assert caplog.messages == []


def test_a_router_does_not_start_with_a_judge_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cache\.semantic\.judge: .*nowhere.* does not exist"):
        create_app(configure(tmp_path, ", judge: nowhere"), Drain())
