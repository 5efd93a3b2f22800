"""Artifacts: nothing that differs from its manifest is opened."""

import json
from pathlib import Path

import pytest

from edge.engine.artifact import MANIFEST, Artifact, ArtifactError, ArtifactKind, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "sub" / "tokenizer.json").write_bytes(b"{}")
    write_manifest(tmp_path, kind=ArtifactKind.CHAT, name="tiny", version="1", source={"from": "a test"})
    return tmp_path


def test_a_whole_artifact_opens(folder: Path) -> None:
    artifact = Artifact.open(folder, ArtifactKind.CHAT)

    assert set(artifact.manifest.files) == {"model.onnx", "sub/tokenizer.json"}
    assert artifact.file("model.onnx").read_bytes() == b"weights"
    assert artifact.manifest.source == {"from": "a test"}


def test_writing_again_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()

    write_manifest(folder, kind=ArtifactKind.CHAT, name="tiny", version="1", source={"from": "a test"})

    assert (folder / MANIFEST).read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {MANIFEST, "model.onnx", "sub"}


@pytest.mark.parametrize(("content", "complaint"), [(b"Weights", "sha256"), (b"more weights", "12 bytes instead of 7")])
def test_a_changed_file_is_named(folder: Path, content: bytes, complaint: str) -> None:
    (folder / "model.onnx").write_bytes(content)

    with pytest.raises(ArtifactError, match=rf"model\.onnx: .*{complaint}"):
        Artifact.open(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()

    with pytest.raises(ArtifactError, match=r"model\.onnx: cannot be read"):
        Artifact.open(folder)


def test_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="kind chat; name one of kind embedding"):
        Artifact.open(folder, ArtifactKind.EMBEDDING)


def test_a_file_outside_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../secret"] = manifest["files"]["model.onnx"]
    (folder / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(ArtifactError, match="outside"):
        Artifact.open(folder)


def test_a_file_that_is_not_listed_is_not_given_out(folder: Path) -> None:
    artifact = Artifact.open(folder)
    (folder / "late.json").write_text("{}")

    with pytest.raises(ArtifactError, match=r"lists no late\.json"):
        artifact.file("late.json")


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist; pull the model"):
        Artifact.open(tmp_path)
