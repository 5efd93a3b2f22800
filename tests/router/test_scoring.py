import random
from pathlib import Path

import msgspec
import pytest

from edge.engine.settings import ConfigError
from router.features import extract_features
from router.query import Conversation, Message, Parameters, Query
from router.scoring.fit import Label, fit_linear
from router.scoring.linear import LinearArtifact, LinearScorer, load_linear


def ask(text: str) -> Query:
    """A query with one user turn."""
    return Query(Conversation((Message("user", text),)), Parameters())


def labels(count: int) -> list[Label]:
    """The cloud gains on long numbers, mostly."""
    rng = random.Random(7)
    made = []
    for _ in range(count):
        digits = rng.randint(1, 4)
        low = 10 ** (digits - 1)
        text = f"what is {rng.randint(low, 10 * low - 1)} plus {rng.randint(low, 10 * low - 1)}"
        made.append(Label(text, rng.random() < (0.9 if digits > 2 else 0.1)))
    return made


@pytest.fixture(scope="module")
def artifact() -> LinearArtifact:
    return fit_linear(labels(600), pair="test", bits=10)


async def score(scorer: LinearScorer, text: str) -> float:
    """The probability for one text."""
    return (await scorer.score(ask(text).prompt, 0.5)).value


@pytest.mark.anyio
async def test_a_fitted_scorer_tells_hard_from_easy_and_is_calibrated(artifact: LinearArtifact) -> None:
    scorer = LinearScorer(artifact)

    easy = await score(scorer, "what is 4 plus 8")
    hard = await score(scorer, "what is 4817 plus 3956")

    assert easy == pytest.approx(0.1, abs=0.08)
    assert hard == pytest.approx(0.9, abs=0.08)


def test_the_signals_add_up_to_the_score(artifact: LinearArtifact) -> None:
    explanation = LinearScorer(artifact).explain_now(ask("what is 48 plus 3956").prompt)

    logit = sum(explanation.signals.values())

    assert explanation.score.value == pytest.approx(1 / (1 + 2.718281828459045**-logit))


def test_a_fit_is_deterministic(artifact: LinearArtifact) -> None:
    assert fit_linear(labels(600), pair="test", bits=10) == artifact


def test_one_outcome_alone_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="same outcome"):
        fit_linear([Label("a", gained=True), Label("b", gained=True)], pair="test")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: good[:-20],
        lambda good: good.replace(b"hybrid-linear-1", b"hybrid-linear-9"),
        lambda good: good.replace(b'"bias":', b'"bias":1e999,"was":'),
        lambda good: good.replace(b'"commas"', b'"comets"'),
    ],
)
def test_a_wrong_artifact_is_refused_in_one_line(artifact: LinearArtifact, tmp_path: Path, spoil: "object") -> None:
    path = tmp_path / "score.json"
    assert callable(spoil)
    path.write_bytes(spoil(msgspec.json.encode(artifact)))

    with pytest.raises(ConfigError, match=r"score\.json: ") as caught:
        load_linear(path)

    assert "\n" not in str(caught.value)


def test_features_see_how_long_numbers_are_not_which() -> None:
    one, other = (extract_features(text, bits=12) for text in ("34 plus 8", "71 plus 5"))
    longer = extract_features("341 plus 86", bits=12)

    assert one.grams == other.grams
    assert one.grams != longer.grams


@pytest.mark.parametrize("text", ["", " ", "?" * 5000, "9" * 100_000, "é" * 3000, "A" * 10_000])
def test_features_of_anything_are_finite_and_bounded(text: str) -> None:
    features = extract_features(text, bits=12)

    assert all(abs(value) < 1e3 for value in features.named.values())
    assert len(features.grams) <= 2 * 512
