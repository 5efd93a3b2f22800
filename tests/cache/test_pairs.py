"""What the pairs of questions that measure the guards hold."""

from collections import Counter

import pytest

from tests.cache.pairs import Family, Part, hard_pairs, paraphrases, read_families

_KINDS = [
    "number", "date", "unit", "entity", "polarity", "order", "quantifier",
    "modality", "tense", "format", "language", "question", "content",
]  # fmt: skip
_FAMILIES = read_families(Part.BLIND)
_PARTS = [part for part in Part if part.path.is_file()]


def test_the_blind_part_is_large() -> None:
    assert len(_FAMILIES) >= 90
    assert len(paraphrases(Part.BLIND)) >= 2_000
    assert len(hard_pairs(Part.BLIND)) >= 2_000


def test_the_blind_part_has_every_kind_of_edit_often() -> None:
    found = Counter(pair.kind for pair in hard_pairs(Part.BLIND))

    assert set(found) == set(_KINDS)
    assert {kind: count for kind, count in found.items() if count < 60} == {}


def test_families_are_in_one_part_only() -> None:
    names = Counter(family.name for part in _PARTS for family in read_families(part))

    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("family", _FAMILIES, ids=[family.name for family in _FAMILIES])
def test_a_blind_family_is_well_formed(family: Family) -> None:
    values = [value for own in family.values.values() for value in own]
    assert 5 <= len(family.phrasings) <= 9
    assert len(family.edits) >= 4
    assert all(len(own) >= 3 for own in family.values.values())
    assert len(set(values)) == len(values), "a value in two slots: a filling could say it twice"
    for phrasing in family.phrasings:
        assert all(f"{{{slot}}}" in phrasing for slot in family.values), "a refilled slot would change nothing"


@pytest.mark.parametrize("family", _FAMILIES, ids=[family.name for family in _FAMILIES])
def test_every_edit_of_a_blind_family_finds_its_words(family: Family) -> None:
    fill = family.fills()[0]
    texts = [phrasing.format(**fill) for phrasing in family.phrasings]

    idle = [edit for edit in family.edits if not any(edit.fill(fill).apply(text) for text in texts)]

    assert idle == []


@pytest.mark.parametrize("family", _FAMILIES, ids=[family.name for family in _FAMILIES])
def test_no_pair_of_a_blind_family_is_both_hard_and_a_paraphrase(family: Family) -> None:
    same = [frozenset((pair.asked, pair.stored)) for pair in family.paraphrases()]
    hard = {frozenset((pair.asked, pair.stored)) for pair in family.hard()}

    assert all(len(texts) == 2 for texts in [*same, *hard]), "a pair of one text"
    assert hard.isdisjoint(same)
    assert len(set(same)) == len(same)


@pytest.mark.parametrize("part", [part for part in _PARTS if part in {Part.FURTHER, Part.EARLY, Part.PROOF}])
def test_families_of_a_later_part_are_well_formed(part: Part) -> None:
    for family in read_families(part):
        fill = family.fills()[0]
        texts = [phrasing.format(**fill) for phrasing in family.phrasings]
        same = {frozenset((pair.asked, pair.stored)) for pair in family.paraphrases()}
        hard = {frozenset((pair.asked, pair.stored)) for pair in family.hard()}

        assert len(family.phrasings) >= 3, family.name
        assert [one for one in family.edits if not any(one.fill(fill).apply(text) for text in texts)] == [], family.name
        assert all(f"{{{slot}}}" in one for slot in family.values for one in family.phrasings), family.name
        assert {len(texts) for texts in same | hard} == {2}, family.name
        assert hard.isdisjoint(same), family.name
