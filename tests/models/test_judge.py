"""The exported judge against the network that was fitted, and its 8-bit form against its float form."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.engine.artifact import ArtifactKind, FileDigest, digest_file, write_manifest
from edge.models.catalog import Model, Precision, packaged_catalog, read_catalog
from edge.models.errors import ExportError
from edge.models.judge import export, packaged_changes, write_judge
from router.cache.guard.judge import Judge
from router.cache.guard.lexicon import Lexicon

REFERENCE = json.loads((Path(__file__).parent / "data" / "judge_reference.json").read_text())
LARGEST_CHANGES = 3_200_000


@pytest.fixture(scope="module")
def entry() -> Model:
    return read_catalog(packaged_catalog()).find("question-judge")


def make(source: Path, folder: Path, precision: Precision) -> Judge:
    write_judge(source, packaged_changes(), folder, precision)
    write_manifest(folder, kind=ArtifactKind.JUDGE, name="judge", version="1")
    return Judge.open(folder, Lexicon.load())


def weigh(judge: Judge) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    judge.settings = msgspec.structs.replace(judge.settings, threshold=-1e9)  # ask in both orders, however unlike
    return np.array([judge.weigh(row["asked"], row["stored"]) for row in REFERENCE])


def test_the_judge_is_the_one_that_was_fitted(minilm_source: Path, tmp_path: Path) -> None:
    fitted = np.array([row["logit"] for row in REFERENCE])
    assert np.ptp(fitted) > 5

    # the file has half the digits
    assert np.abs(weigh(make(minilm_source, tmp_path, Precision.FLOAT32)) - fitted).max() < 0.03


@pytest.mark.parametrize(("precision", "farthest"), [(Precision.INT8, 0.3), (Precision.INT8_DYNAMIC, 1.0)])
def test_the_8_bit_judge_says_nearly_the_same(
    precision: Precision, farthest: float, minilm_source: Path, tmp_path: Path
) -> None:
    fitted = np.array([row["logit"] for row in REFERENCE])

    assert np.abs(weigh(make(minilm_source, tmp_path, precision)) - fitted).max() < farthest


def test_the_packaged_changes_are_small_and_the_ones_that_the_catalogue_names(entry: Model) -> None:
    assert digest_file(packaged_changes()) == entry.prepare.changes
    assert packaged_changes().stat().st_size < LARGEST_CHANGES


def test_the_judge_is_made_of_the_embedding_models_files(entry: Model) -> None:
    base = read_catalog(packaged_catalog()).find("all-minilm-l6-v2")

    assert (entry.source, entry.files, entry.license) == (base.source, base.files, base.license)


def test_other_changes_make_no_judge(entry: Model, minilm_source: Path, tmp_path: Path) -> None:
    other = msgspec.structs.replace(entry.prepare, changes=FileDigest("a" * 64, 1))

    with pytest.raises(ExportError, match="not the catalogue's"):
        export(minilm_source, tmp_path, other)
    assert list(tmp_path.iterdir()) == []


def test_the_same_files_make_the_same_judge(entry: Model, minilm_source: Path, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(minilm_source, tmp_path / name, entry.prepare)
        made.append({path.name: digest_file(path) for path in (tmp_path / name).iterdir()})

    assert made[0] == made[1]
    assert set(made[0]) == {"model.onnx", "tokenizer.json", "judge.json"}
