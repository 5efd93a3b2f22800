"""The query model: fitted, saved, loaded, served."""

import math
import random
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.engine.encoder import Encoder
from edge.engine.settings import ConfigError
from router.embedder import embed_texts, open_embedding
from router.query import Conversation, Message, Prompt
from router.scoring.answer_check import CheckModel, Head, Heads
from router.scoring.arrays import Array, Number, write_array
from router.scoring.artifact import (
    Provenance,
    ScoreArtifact,
    SourceFile,
    has_check,
    load_artifact,
    open_scoring,
    save_artifact,
)
from router.scoring.fit_query import Fitted, Vector, fit_query, folds, prepare_prompts
from router.scoring.query_model import Kernel, KernelFile
from router.scoring.stage_one import EmbeddedPrompt, Estimate, QueryScorer
from tests.edge.embedding import write_embedding_artifact

SUBJECTS = ("the cat sleeps", "stocks fell on monday")


def make_labels(count: int) -> tuple[list[Prompt], Vector]:
    """The cloud gains nine times in ten where numbers have over two digits or stocks fell, once where neither."""
    rng = random.Random(7)
    prompts: list[Prompt] = []
    gains = []
    for _ in range(count):
        digits, subject = rng.randint(1, 4), rng.randrange(2)
        one, other = (rng.randint(10 ** (digits - 1), 10**digits - 1) for _ in range(2))
        prompts.append(Conversation((Message("user", f"{SUBJECTS[subject]} {one} plus {other}"),)))
        gains.append(float(rng.random() < (0.9 if digits > 2 or subject else 0.1)))
    return prompts, np.array(gains)


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_artifact(tmp_path_factory.mktemp("embedding") / "tiny")


@pytest.fixture(scope="module")
def fitted(embedding: Path) -> Fitted:
    prompts, gains = make_labels(400)
    return fit_query(prepare_prompts(prompts, open_embedding(embedding)[1]), np.zeros(len(prompts)), gains)


@pytest.fixture(scope="module")
def artifact(fitted: Fitted, embedding: Path) -> ScoreArtifact:
    provenance = Provenance("edge < cloud", [SourceFile("made.jsonl", "0" * 64, 400)])
    return ScoreArtifact(provenance=provenance, embedding=open_embedding(embedding)[0], query=fitted.model)


@pytest.fixture(scope="module")
def scorer(artifact: ScoreArtifact, embedding: Path) -> QueryScorer:
    return open_scoring(artifact, open_embedding(embedding))[0]


@pytest.fixture(scope="module")
def encoder(embedding: Path) -> Encoder:
    return open_embedding(embedding).encoder


def ask(text: str) -> Prompt:
    """One user turn."""
    return Conversation((Message("user", text),))


def embed(encoder: Encoder, prompts: Sequence[Prompt]) -> list[EmbeddedPrompt]:
    """Each with its vector."""
    vectors = embed_texts(encoder, [prompt.text for prompt in prompts])
    return [EmbeddedPrompt(prompt, vector) for prompt, vector in zip(prompts, vectors, strict=True)]


def estimate_all(scorer: QueryScorer, encoder: Encoder, prompts: Sequence[Prompt], refined: bool) -> list[Estimate]:
    """With the vectors or without."""
    return scorer.refine(embed(encoder, prompts)) if refined else scorer.estimate(prompts)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize("refined", [False, True])
def test_fresh_questions_get_calibrated_scores(scorer: QueryScorer, encoder: Encoder, refined: bool) -> None:
    easy, hard = ask("the cat sleeps 4 plus 8"), ask("stocks fell on monday 4817 plus 3956")

    low, high = estimate_all(scorer, encoder, [easy, hard], refined)

    assert low.probability == pytest.approx(0.1, abs=0.1)
    assert high.probability == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize("refined", [False, True])
def test_a_score_does_not_depend_on_the_batch(scorer: QueryScorer, encoder: Encoder, refined: bool) -> None:
    prompts = make_labels(20)[0]

    together = estimate_all(scorer, encoder, prompts, refined)

    for prompt, estimate in zip(prompts, together, strict=True):
        (alone,) = estimate_all(scorer, encoder, [prompt], refined)
        assert alone.probability == pytest.approx(estimate.probability, abs=1e-5)


def test_what_is_said_out_of_fold_is_said_of_rows_never_fitted_on(embedding: Path) -> None:
    prompts, _ = make_labels(400)
    noise = np.random.default_rng(3).integers(0, 2, 400).astype(float)

    fitted = fit_query(prepare_prompts(prompts, open_embedding(embedding)[1]), np.zeros(len(prompts)), noise)

    assert abs(np.corrcoef(fitted.first, noise)[0, 1]) < 0.15


def test_the_served_model_says_what_was_fitted(embedding: Path, fitted: Fitted, scorer: QueryScorer) -> None:
    prompts, gains = make_labels(400)
    served = np.array([estimate.probability for estimate in scorer.estimate(prompts)])

    assert np.corrcoef(served, 1 / (1 + np.exp(-fitted.first)))[0, 1] > 0.9
    assert served.mean() == pytest.approx(gains.mean(), abs=0.03)


@pytest.mark.parametrize("refined", [False, True])
def test_signals_add_up_to_the_score(scorer: QueryScorer, encoder: Encoder, refined: bool) -> None:
    prompt = ask("stocks fell 48 plus 3956")

    signals = scorer.explain(prompt, embed(encoder, [prompt])[0].vector if refined else None)

    (estimate,) = estimate_all(scorer, encoder, [prompt], refined)
    assert sum(signals.values()) == pytest.approx(logit(estimate.probability), abs=1e-3)
    assert ("meaning" in signals) is refined


def test_only_an_estimate_near_the_threshold_can_cross_it(scorer: QueryScorer, encoder: Encoder) -> None:
    near, far = Estimate(0.45, 0.3), Estimate(0.05, 0.3)

    assert near.can_cross(0.5)
    assert not far.can_cross(0.5)
    assert not Estimate(0.45, 0.0).can_cross(0.5)
    assert scorer.refine(embed(encoder, [ask("the cat")]))[0].spread == 0


def test_a_fit_is_deterministic(embedding: Path, fitted: Fitted) -> None:
    prompts, gains = make_labels(400)

    again = fit_query(prepare_prompts(prompts, open_embedding(embedding)[1]), np.zeros(len(prompts)), gains)

    assert again.model == fitted.model


def test_a_fit_needs_no_embedding(tmp_path: Path) -> None:
    prompts, gains = make_labels(200)
    fitted = fit_query(prepare_prompts(prompts, None), np.zeros(len(prompts)), gains)
    path = tmp_path / "score.json"
    save_artifact(path, ScoreArtifact(provenance=Provenance("pair", []), embedding=None, query=fitted.model))

    scorer, checker = open_scoring(load_artifact(path), None)

    assert fitted.refined is None
    assert checker is None
    assert not scorer.refines
    assert scorer.estimate(prompts[:1])[0].spread == 0


def test_a_product_in_parts_is_the_whole_product() -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.normal(size=(1200, 300)).astype(np.float32) / 20  # two rows at a time
    weights, rows = rng.normal(size=1200).astype(np.float32), rng.normal(size=(5, 300)).astype(np.float32) / 20
    kernel = Kernel(KernelFile(write_array(landmarks), write_array(weights), 0.7), "kernel", 300)
    apart = ((rows[:, None] - landmarks) ** 2).sum(2)
    assert kernel(rows) == pytest.approx(np.exp(-0.7 * apart) @ weights, rel=1e-3, abs=1e-3)


def test_one_outcome_alone_teaches_nothing() -> None:
    prompts, gains = make_labels(40)

    with pytest.raises(ValueError, match="that did not"):
        fit_query(prepare_prompts(prompts, None), np.zeros(len(prompts)), np.ones_like(gains))


def test_folds_part_the_rows() -> None:
    tests = [test for _, test in folds(33)]

    assert sorted(np.concatenate(tests)) == list(range(33))
    assert all(not set(train) & set(test) for train, test in folds(33))


def test_vectors_come_in_the_order_of_the_texts(embedding: Path) -> None:
    encoder = open_embedding(embedding)[1]
    texts = ["the cat sleeps on monday", "cat", "stocks fell", "the"]

    together = embed_texts(encoder, texts)

    assert together == pytest.approx(np.vstack([encoder.encode([text]) for text in texts]), abs=1e-6)


def spoil(array: Array, values: bytes) -> Array:
    """Other bytes."""
    return msgspec.structs.replace(array, values=values)


WRONG_MODELS = {
    "query.first.kernel.weights: has a number that is not finite": lambda query: msgspec.structs.replace(
        query,
        first=msgspec.structs.replace(
            query.first,
            kernel=msgspec.structs.replace(
                query.first.kernel,
                weights=spoil(query.first.kernel.weights, b"\xff\xff\xff\x7f" + query.first.kernel.weights.values[4:]),
            ),
        ),
    ),
    "query.means: has the shape 3 instead of": lambda query: msgspec.structs.replace(
        query, means=write_array(np.ones(3))
    ),
    "query.scales: has 4 bytes": lambda query: msgspec.structs.replace(query, scales=spoil(query.scales, b"1234")),
    "query.features: are not what this router reads": lambda query: msgspec.structs.replace(
        query, features=["comets", *query.features[1:]]
    ),
    "query.trees.features: names a feature outside": lambda query: msgspec.structs.replace(
        query,
        trees=msgspec.structs.replace(
            query.trees, features=write_array(np.full(query.trees.features.shape, 999), Number.INTEGER)
        ),
    ),
    "query.words.vectors: has the shape": lambda query: msgspec.structs.replace(
        query, words=msgspec.structs.replace(query.words, words=query.words.words[1:])
    ),
}


@pytest.mark.parametrize("said", WRONG_MODELS)
def test_a_damaged_model_is_refused_in_one_line(
    artifact: ScoreArtifact, embedding: Path, tmp_path: Path, said: str
) -> None:
    path = tmp_path / "score.json"
    save_artifact(path, msgspec.structs.replace(artifact, query=WRONG_MODELS[said](artifact.query)))

    with pytest.raises(ConfigError) as caught:
        open_scoring(load_artifact(path), open_embedding(embedding), name=str(path))

    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda good: good[:-20], "not a whole score artifact"),
        (lambda good: good.replace(b"hybrid-score-2", b"hybrid-score-9"), "format: is 'hybrid-score-9'"),
        (lambda good: good.replace(b'"kernel_slope":', b'"kernel_slope":1e999,"was":'), "not a whole score artifact"),
        (lambda good: good.replace(b'"spread":', b'"spread":NaN,"was":'), "not a whole score artifact"),
        (lambda _: b"", "not a whole score artifact"),
        (lambda _: b"\x80\x04.", "not a whole score artifact"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(artifact: ScoreArtifact, tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "score.json"
    save_artifact(path, artifact)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ConfigError) as caught:
        load_artifact(path)

    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


def test_whether_there_is_a_check_is_known_without_loading(artifact: ScoreArtifact, tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    assert not has_check(path)
    save_artifact(path, artifact)
    assert not has_check(path)
    save_artifact(
        path,
        msgspec.structs.replace(
            artifact, check=CheckModel(with_logprobs=None, without_logprobs=Heads(Head(0, {}), Head(0, {})))
        ),
    )
    assert has_check(path)


def test_another_embedding_is_refused(artifact: ScoreArtifact, tmp_path: Path) -> None:
    other = write_embedding_artifact(tmp_path / "other")
    manifest = other / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"tiny-embedding", b"huge-embedding"))

    with pytest.raises(
        ConfigError, match=r"was fitted with tiny-embedding/1 .* huge-embedding/1 .* is given"
    ) as caught:
        open_scoring(artifact, open_embedding(other), name="score.json")

    assert "\n" not in str(caught.value)


def test_saving_leaves_nothing_half_written(artifact: ScoreArtifact, tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    save_artifact(path, artifact)

    with pytest.raises(ConfigError, match="cannot be written"):
        save_artifact(tmp_path / "absent" / "score.json", artifact)

    assert load_artifact(path) == artifact
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", list(Number))
def test_arrays_come_back(number: Number) -> None:
    values = np.array([[1, -3, 2], [0, 5, 127]])

    assert write_array(values, number).read("values", 2, None) == pytest.approx(values)


def test_the_shipped_default_scores_without_its_embedding_and_says_where_it_is_from() -> None:
    artifact = load_artifact(Path(str(resources.files("router.scoring") / "general.score.json")))
    prompts = [ask("What is the capital of France?"), ask("Prove that there are infinitely many primes."), ask("Hi!")]

    scores = [estimate.probability for estimate in open_scoring(artifact, None)[0].estimate(prompts)]

    assert all(0.02 < score < 0.9 for score in scores)
    assert len(set(scores)) == len(scores)
    assert "RouteLLM" in artifact.provenance.source
    assert artifact.provenance.license == "Apache-2.0"
    assert [file.rows for file in artifact.provenance.files] == [8359, 784]
