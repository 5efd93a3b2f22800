"""Choosing tokens: right, repeatable, and blind to neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.sampling import Choice, Logits, Picker, Sampling, pick


def rows(*values: list[float]) -> Logits:
    return np.array(values, np.float32)


def draw(logits: Logits, sampling: Sampling, times: int) -> list[int]:
    """Tokens of one sequence that always sees the same logits."""
    picker = Picker(sampling)
    return [pick(logits, [picker], [None])[0].token for _ in range(times)]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draw(rows([0.0, 3.0, 2.9]), Sampling(temperature=0), 5) == [1] * 5


def test_tokens_come_as_often_as_they_should() -> None:
    probabilities = np.array([0.1, 0.2, 0.7])
    logits = rows(list(np.log(probabilities)))

    counts = np.bincount(draw(logits, Sampling(seed=1), 20_000), minlength=3) / 20_000

    assert counts == pytest.approx(probabilities, abs=0.015)


def test_temperature_sharpens() -> None:
    logits = rows(list(np.log([0.2, 0.8])))

    share = np.mean(draw(logits, Sampling(seed=1, temperature=0.5), 10_000))

    assert share == pytest.approx(0.8**2 / (0.8**2 + 0.2**2), abs=0.02)


@given(st.integers(0, 2**32), st.floats(0.05, 1.0), st.integers(2, 600))
def test_only_the_nucleus_is_drawn_from(seed: int, top_p: float, vocabulary: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (1, vocabulary)).astype(np.float32)
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()

    for token in draw(logits, Sampling(seed=seed, top_p=top_p), 10):
        # what is likelier than the token must not already fill the nucleus
        assert probabilities[probabilities > probabilities[token]].sum() < top_p + 1e-5


def test_a_flat_nucleus_is_wider_than_the_first_candidates() -> None:
    drawn = draw(np.zeros((1, 2000), np.float32), Sampling(seed=3, top_p=0.9), 2000)

    assert max(drawn) > 1500
    assert len(set(drawn)) > 1000


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 5), st.integers(0, 3))
def test_a_seed_decides_whatever_the_neighbours(seed: int, others: int, place: int) -> None:
    logits = np.random.default_rng(1).normal(0, 1, (6, 50)).astype(np.float32)
    alone = Picker(Sampling(seed=seed, top_p=0.9))
    among = Picker(Sampling(seed=seed, top_p=0.9))
    place = min(place, others)
    crowd = [Picker(Sampling(temperature=t / 2)) for t in range(others)]
    crowd.insert(place, among)

    for step in range(4):
        single = pick(logits[:1] + step, [alone], [None])
        batch = np.concatenate([logits[1 : place + 1], logits[:1] + step, logits[place + 1 : others + 1]])
        assert pick(batch, crowd, [None] * len(crowd))[place] == single[0]


def test_logprobs_are_the_models_own() -> None:
    logits = np.random.default_rng(5).normal(0, 3, (1, 20)).astype(np.float32)
    forbidden = np.arange(20) != 4

    choice = pick(logits, [Picker(Sampling(temperature=0, logprobs=20))], [~forbidden])[0]

    expected = np.log(np.exp(logits[0]) / np.exp(logits[0]).sum())
    assert choice.token == 4
    assert choice.score is not None
    assert choice.score.logprob == pytest.approx(expected[4], abs=1e-4)
    assert choice.score.rank == 1 + (expected > expected[4]).sum()
    assert np.exp([top.logprob for top in choice.top]).sum() == pytest.approx(1)
    assert [top.token for top in choice.top] == list(np.argsort(-expected))
    assert [top.rank for top in choice.top] == list(range(1, 21))


def test_unasked_logprobs_are_not_computed() -> None:
    assert pick(rows([1.0, 2.0]), [Picker(Sampling(temperature=0))], [None]) == [Choice(1)]
