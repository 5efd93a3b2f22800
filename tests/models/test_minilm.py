"""The exported encoder against transformers' own vectors, and its 8-bit form against its float form."""

import base64
import json
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge.engine.artifact import Artifact, ArtifactKind
from edge.engine.encoder import Encoder
from edge.engine.session import SessionConfig
from edge.models import llama, minilm
from edge.models.catalog import Precision
from edge.models.errors import ExportError
from router.embedder import embed_texts

REFERENCE = Path(__file__).parent / "data" / "minilm_reference.json"
OFFICIAL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256
ONE_THREAD = SessionConfig(threads=1)


@pytest.fixture(scope="session")
def exact(minilm_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("float32")
    minilm.export(minilm_source, folder, precision=Precision.FLOAT32)
    return Encoder(folder, ONE_THREAD)


@pytest.fixture(scope="session")
def small(minilm_artifact: Path) -> Encoder:
    return Encoder(Artifact.open(minilm_artifact, ArtifactKind.EMBEDDING).path, ONE_THREAD)


@pytest.fixture(scope="session")
def fast(fast_minilm_artifact: Path) -> Encoder:
    return Encoder(Artifact.open(fast_minilm_artifact, ArtifactKind.EMBEDDING).path, ONE_THREAD)


WORDS = [
    "river engine mother quickly bright seven market against silent paper doctor winter under angry music",
    "Straße Mädchen schnell über Wasser Zeitung größer niemals Kühlschrank Geschwindigkeit",
    "bibliothèque élève aujourd'hui château déjà où garçon étrange fenêtre",
    "книга быстро человек дорога вечером большой",
    "你好 世界 今天 天气 学习 城市",
    "return lambda x[i] for( SELECT None != 0xFF path/to/file.py std::vector<int>",
]
TEMPLATES = [
    "What is {} and {}?",
    "{}",
    "Please sort {}: {}, {}; then explain why {} matters.",
    "{}... {}!!! ({})",
    "On {day}.{month}.{year} we paid {price} for {} {}.",
    "{number} + {number} = ?",
    '"{}" said the {}, "{} {} {}"',
    "{} {} {} {}",
]


def varied_sentences(count: int) -> list[str]:
    """The same sentences every time: 1 to about 50 words, six languages, numbers, punctuation, code."""
    chance = random.Random(20240229)
    numbers = {"day": 31, "month": 12, "year": 2030, "price": 10_000, "number": 10**9}
    sentences: list[str] = []
    while len(sentences) < count:
        parts = []
        for _ in range(chance.choices([1, 2, 6], [30, 3, 1])[0]):
            template = chance.choice(TEMPLATES)
            words = chance.choice(WORDS).split()
            drawn = {name: str(chance.randint(1, top)) for name, top in numbers.items()}
            parts.append(template.format(*chance.choices(words, k=template.count("{}")), **drawn))
        sentences.append(" ".join(parts))
    return sentences


def test_float_vectors_are_those_of_transformers(exact: Encoder) -> None:
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    texts = [sentence["text"] for sentence in reference["sentences"]]
    wanted = np.stack([np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in reference["sentences"]])

    alone = np.concatenate([exact.encode([text]) for text in texts])
    together = exact.encode(texts)

    assert reference["origin"]["weights_sha256"] == OFFICIAL_SHA256
    assert len(texts) == 20
    assert np.abs(alone - wanted).max() < 1e-4
    assert np.abs(together - wanted).max() < 1e-4


def test_8_bit_vectors_stay_close_to_the_float_ones(exact: Encoder, small: Encoder) -> None:
    sentences = sorted(varied_sentences(1000), key=len)
    assert len(set(sentences)) > 900

    cosines = np.concatenate(
        [
            (exact.encode(sentences[start : start + 50]) * small.encode(sentences[start : start + 50])).sum(axis=1)
            for start in range(0, 1000, 50)
        ]
    )

    print(
        f"cosine mean {cosines.mean():.4f}, 1st percentile {np.percentile(cosines, 1):.4f}, least {cosines.min():.4f}"
    )
    assert cosines.mean() >= 0.99
    assert np.percentile(cosines, 1) >= 0.98


def test_a_vector_does_not_depend_on_its_neighbours(small: Encoder) -> None:
    sentences = varied_sentences(40)
    outlier = "!!! 999999999 " * 12
    alone = np.concatenate([small.encode([text]) for text in sentences])

    together = np.concatenate(
        [small.encode([*sentences[start : start + 8], outlier])[:-1] for start in range(0, 40, 8)]
    )

    lengths = {len(tokens) % 2 for tokens in small.tokenize(sentences)}
    assert lengths == {0, 1}, "odd lengths are the ones that once differed"
    assert (alone * together).sum(axis=1).min() >= 0.9999


def test_fast_vectors_one_by_one_stay_close_to_the_float_ones(exact: Encoder, fast: Encoder) -> None:
    sentences = varied_sentences(200)

    cosines = (embed_texts(exact, sentences) * embed_texts(fast, sentences)).sum(axis=1)

    print(f"cosine mean {cosines.mean():.4f}, least {cosines.min():.4f}")
    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.96


def test_a_fast_vector_depends_on_its_batch_but_not_on_what_else_is_scored(fast: Encoder) -> None:
    texts = ["What is the capital of France?", "!!! 999999999 " * 12, "Sort these numbers: 42, 7, 19."]

    alone = np.concatenate([embed_texts(fast, [text]) for text in texts])

    assert (embed_texts(fast, texts) == alone).all()
    assert (embed_texts(fast, texts[::-1])[::-1] == alone).all()
    assert (fast.encode(texts) != alone).any(), "a batch no longer matters: let embed_texts and /v1/embeddings batch it"


def test_fast_weights_cannot_overflow_16_bit_sums(fast_minilm_artifact: Path) -> None:
    graph = onnx.load(fast_minilm_artifact / "model.onnx").graph
    initializers = {array.name: array for array in graph.initializer}
    multiplied = [node.input[1] for node in graph.node if node.op_type == "MatMulInteger"]

    assert len(multiplied) == 6 * 6
    largest = max(int(np.abs(numpy_helper.to_array(initializers[name]).astype(int)).max()) for name in multiplied)
    assert 2 * 255 * largest <= np.iinfo(np.int16).max
    assert (fast_minilm_artifact / "model.onnx").stat().st_size < 24e6


def test_a_precision_that_the_exporter_does_not_make_is_refused(minilm_source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the minilm exporter makes float32, int8, int8-dynamic, not int4"):
        minilm.export(minilm_source, tmp_path, precision=Precision.INT4)
    with pytest.raises(ExportError, match=r"the llama exporter makes .*, not int8-dynamic"):
        llama.export_checkpoint(minilm_source, tmp_path, precision=Precision.INT8_DYNAMIC)


def test_vectors_have_length_one_and_tell_meaning_apart(small: Encoder) -> None:
    cat, kitten, tax = small.encode(["A cat sleeps.", "A kitten is napping.", "How do I file my tax return?"])

    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > 0.6 > 0.3 > cat @ tax


def test_the_tokenizer_lower_cases_cuts_at_the_models_limit_and_pads_nothing(small: Encoder) -> None:
    shouted, plain, long = small.tokenize(["HELLO Wörld", "hello world", "word " * 600])

    assert shouted == plain
    assert len(plain) == len(["[CLS]", "hello", "world", "[SEP]"])
    assert small.context == len(long) == MAX_TOKENS


@pytest.mark.parametrize(
    ("artifact", "precision"),
    [("minilm_artifact", Precision.INT8), ("fast_minilm_artifact", Precision.INT8_DYNAMIC)],
)
def test_the_same_source_gives_the_same_bytes(
    artifact: str, precision: Precision, minilm_source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    minilm.export(minilm_source, tmp_path, precision=precision)

    for name in ("model.onnx", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (request.getfixturevalue(artifact) / name).read_bytes()


def test_another_architecture_is_refused(minilm_source: Path, tmp_path: Path) -> None:
    config = json.loads((minilm_source / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))

    with pytest.raises(ExportError, match=r"config\.json: needs model_type bert"):
        minilm.export(tmp_path, tmp_path, precision=Precision.INT8)
