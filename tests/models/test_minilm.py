"""The exported encoder against transformers' own vectors, and its 8-bit form against its float form."""

import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from edge.engine.artifact import Artifact, ArtifactKind
from edge.models import minilm
from edge.models.catalog import Precision
from edge.models.errors import ExportError

REFERENCE = Path(__file__).parent / "data" / "minilm_reference.json"
OFFICIAL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256

Vectors = npt.NDArray[np.float32]


class Encoder:
    """An exported folder, run as it is: its own tokenizer, zeros as padding."""

    def __init__(self, folder: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, texts: Sequence[str], *, padded_to: int = 0) -> Vectors:
        rows = [self.tokenizer.encode(text).ids for text in texts]
        ids = np.zeros((len(rows), max(padded_to, *map(len, rows), 0)), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        (vectors,) = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, np.float32)


@pytest.fixture(scope="session")
def exact(minilm_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("float32")
    minilm.export(minilm_source, folder, precision=Precision.FLOAT32)
    return Encoder(folder)


@pytest.fixture(scope="session")
def small(minilm_artifact: Path) -> Encoder:
    return Encoder(Artifact.open(minilm_artifact, ArtifactKind.EMBEDDING).path)


WORDS = {
    "en": "river engine mother quickly bright seven market against silent paper doctor winter under angry music".split(),
    "de": "Straße Mädchen schnell über Wasser Zeitung größer niemals Kühlschrank Geschwindigkeit".split(),
    "fr": "bibliothèque élève aujourd'hui château déjà où garçon étrange fenêtre".split(),
    "ru": "книга быстро человек дорога вечером большой".split(),
    "zh": ["你好", "世界", "今天", "天气", "学习", "城市"],
    "code": "return lambda x[i] for( SELECT None != 0xFF path/to/file.py std::vector<int>".split(),
}
TEMPLATES = [
    "What is {} and {}?",
    "{}",
    "Please sort {}: {}, {}; then explain why {} matters.",
    "{}... {}!!! ({})",
    "On {day}.{month}.{year} we paid {price} for {} {}.",
    "{number} + {number} = ?",
    '"{}" said the {}, "{} {} {}"',
    "{} {} {} {} {} {} {} {} {} {} {} {}",
]


def varied_sentences(count: int) -> list[str]:
    """The same sentences every time: 1 to about 130 words, six languages, numbers, punctuation, code."""
    chance = random.Random(20240229)
    numbers = {"day": 31, "month": 12, "year": 2030, "price": 10_000, "number": 10**9}
    sentences = []
    while len(sentences) < count:
        parts = []
        for _ in range(min(chance.choice([1, 1, 1, 2, 3, 8]), 1 + len(sentences) % 9)):
            template = chance.choice(TEMPLATES)
            words = WORDS[chance.choice(list(WORDS))]
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

    print(f"cosine mean {cosines.mean():.4f}, 1st percentile {np.percentile(cosines, 1):.4f}, least {cosines.min():.4f}")
    assert cosines.mean() >= 0.99
    assert np.percentile(cosines, 1) >= 0.98


def test_a_vector_does_not_depend_on_its_neighbours_or_padding(small: Encoder) -> None:
    sentences = varied_sentences(40)
    outlier = "!!! 999999999 " * 60
    alone = np.concatenate([small.encode([text]) for text in sentences])

    together = np.concatenate(
        [small.encode([*sentences[start : start + 8], outlier])[:-1] for start in range(0, 40, 8)]
    )
    padded = np.concatenate([small.encode([text], padded_to=MAX_TOKENS) for text in sentences])

    assert (alone * together).sum(axis=1).min() >= 0.9999
    assert (alone * padded).sum(axis=1).min() >= 0.9999


def test_vectors_have_length_one_and_tell_meaning_apart(small: Encoder) -> None:
    cat, kitten, tax = small.encode(["A cat sleeps.", "A kitten is napping.", "How do I file my tax return?"])

    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > 0.6 > 0.3 > cat @ tax


def test_the_tokenizer_lower_cases_cuts_at_the_models_limit_and_pads_nothing(small: Encoder) -> None:
    assert small.tokenizer.encode("HELLO Wörld").tokens == ["[CLS]", "hello", "world", "[SEP]"]
    assert len(small.tokenizer.encode("word " * 600).ids) == MAX_TOKENS


def test_the_same_source_gives_the_same_bytes(minilm_source: Path, minilm_artifact: Path, tmp_path: Path) -> None:
    minilm.export(minilm_source, tmp_path, precision=Precision.INT8)

    for name in ("model.onnx", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (minilm_artifact / name).read_bytes()


def test_another_architecture_is_refused(minilm_source: Path, tmp_path: Path) -> None:
    config = json.loads((minilm_source / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))

    with pytest.raises(ExportError, match=r"config\.json: needs model_type bert"):
        minilm.export(tmp_path, tmp_path, precision=Precision.INT8)


@pytest.mark.parametrize(("shape", "blocks"), [((3, 384), 3), ((2, 100), 1), ((1, 129), 2)])
def test_quantized_blocks_give_the_weights_back_within_half_a_step(shape: tuple[int, int], blocks: int) -> None:
    weight = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    weight[0, :5] = 0

    quantized, scales = minilm.quantize_blocks(weight)

    restored = ((quantized.astype(np.float32) - 128) * scales[..., None]).reshape(shape[0], -1)[:, : shape[1]]
    assert quantized.shape == (shape[0], blocks, minilm.BLOCK)
    assert np.abs(restored - weight).max() <= scales.max() / 2 + 1e-6
