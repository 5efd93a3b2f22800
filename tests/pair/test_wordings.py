"""What is asked in the test split is never worded as in training, yet uses no word that training lacks."""

import re
from collections.abc import Iterator

import pytest

from loadtests.pair.questions import Kind, Split, generate
from loadtests.pair.questions.wording import load_wordings

WITH_NEW_WORDS = ("scope",)


def plain(text: str) -> str:
    """The wording without case, spacing and marks, so that two that differ in those only count as one."""
    return re.sub(r"[^a-z{}+*/-]+", " ", text.lower()).strip()


def cores(section: str, split: Split) -> set[str]:
    """Every core of a section, its phrases put into every ask."""
    wordings = load_wordings()[section]
    asks = load_wordings()["asks"][split]
    asked = {ask.replace("{x}", phrase) for ask in asks for phrase in wordings.get(f"{split}_phrases", ())}
    return {plain(core) for core in (*asked, *wordings.get(f"{split}_sentences", ()))}


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def sections() -> Iterator[str]:
    for name, wordings in load_wordings().items():
        if "train_sentences" in wordings:
            yield name


@pytest.mark.parametrize("section", tuple(sections()))
def test_cores_are_disjoint_and_enough(section: str) -> None:
    train, test = cores(section, Split.TRAIN), cores(section, Split.TEST)
    assert not train & test
    assert len(test) >= 3
    assert len(train) >= 2 * len(test)


@pytest.mark.parametrize("section", ["openers", "closers", "asks", "systems"])
def test_frames_are_disjoint(section: str) -> None:
    wordings = load_wordings()[section]
    assert not set(wordings["train"]) & set(wordings["test"])


@pytest.mark.parametrize("key", ["openers", "facts"])
def test_told_facts_are_disjoint(key: str) -> None:
    wordings = load_wordings()["recall"]
    assert not set(wordings[f"{key}_train"]) & set(wordings[f"{key}_test"])


def test_no_generated_test_wording_is_generated_for_training() -> None:
    train = {question.wording for question in generate(3, 60_000, Split.TRAIN)}
    test = {question.wording for question in generate(3, 6_000, Split.TEST)}
    assert len(test) > 2_000
    assert not train & test


def test_test_wordings_use_words_of_training_only() -> None:
    known: set[str] = set()
    for wordings in load_wordings().values():
        for key, values in wordings.items():
            if "test" not in key:
                known.update(word for value in values for word in words(value))
    for section, wordings in load_wordings().items():
        if section not in WITH_NEW_WORDS:
            new = {
                word for key, values in wordings.items() if "test" in key for value in values for word in words(value)
            } - known
            assert not new, section


def test_every_kind_has_many_wordings() -> None:
    seen: dict[Kind, set[str]] = {kind: set() for kind in Kind}
    for question in generate(4, 20_000, Split.TRAIN):
        seen[question.kind].add(question.wording)
    assert min(map(len, seen.values())) > 200
