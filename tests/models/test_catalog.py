"""The catalogue is strict, and what it refuses it names."""

from pathlib import Path

import pytest
import yaml

from edge.engine.artifact import ArtifactKind, digest_file
from edge.models.catalog import FolderSource, Precision, packaged_catalog, read_catalog, require_inside, write_catalog
from edge.models.errors import CatalogError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

ENTRY = {
    "name": "tiny",
    "version": "1",
    "kind": "chat",
    "license": "MIT",
    "source": {"from": "folder", "path": "tiny"},
    "prepare": {"exporter": "llama", "precision": "int8"},
    "files": {"config.json": {"sha256": "0" * 64, "bytes": 3}},
}


def test_the_packaged_catalogue_names_the_official_minilm_weights() -> None:
    model = read_catalog(packaged_catalog()).find("all-minilm-l6-v2")

    assert model.files["model.safetensors"].sha256 == MINILM_SHA256
    assert (model.kind, model.prepare.precision, model.license) == (
        ArtifactKind.EMBEDDING,
        Precision.INT8,
        "Apache-2.0",
    )


def test_the_fast_minilm_is_made_from_the_same_files() -> None:
    catalog = read_catalog(packaged_catalog())
    model, fast = catalog.find("all-minilm-l6-v2"), catalog.find("all-minilm-l6-v2-fast")

    assert (fast.source, fast.files) == (model.source, model.files)
    assert fast.prepare.precision is Precision.INT8_DYNAMIC


@pytest.mark.parametrize("name", ["demo-edge", "demo-cloud"])
def test_the_demo_pair_is_what_the_catalogue_says(name: str) -> None:
    model = read_catalog(packaged_catalog()).find(name)
    assert isinstance(model.source, FolderSource)
    folder = packaged_catalog().parent / model.source.path
    if not folder.is_dir():
        pytest.skip(f"{model.source.path} is not in this checkout")

    assert model.files, f"run `hybrid models pin {name}`"
    assert {path: digest_file(folder / path) for path in model.files} == model.files


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"licence": "MIT"}, "licence"),
        ({"version": "../1"}, "$.models[0].version"),
        ({"kind": "embedding"}, "llama exporter makes kind chat"),
        (
            {"prepare": {"exporter": "llama", "precision": "int8-dynamic"}},
            "makes kind chat as float32, float16, int8, int4, not kind chat as int8-dynamic",
        ),
        (
            {"prepare": {"exporter": "llama", "precision": "int8", "changes": {"sha256": "0" * 64, "bytes": 3}}},
            "changes",
        ),
        ({"kind": "judge", "prepare": {"exporter": "judge", "precision": "int8"}}, "prepare.changes"),
        ({"prepare": {"exporter": "llama", "precision": "int3"}}, "$.models[0].prepare.precision"),
        ({"source": {"from": "hub", "repo": "a/b", "revision": "main"}}, "$.models[0].source.revision"),
        ({"source": {"from": "ftp"}}, "$.models[0].source"),
        (
            {"files": {"../config.json": {"sha256": "0" * 64, "bytes": 3}}},
            "'../config.json' is not a plain relative path",
        ),
        ({"files": {"config.json": {"sha256": "abc", "bytes": 3}}}, "$.models[0].files[...].sha256"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": [ENTRY | change]}))

    with pytest.raises(CatalogError) as caught:
        read_catalog(path)

    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": [ENTRY, ENTRY]}))

    with pytest.raises(CatalogError, match="tiny is named twice"):
        read_catalog(path)


def test_writing_keeps_the_comment_at_the_top_and_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("# Ours.\n\n" + yaml.safe_dump({"models": [ENTRY]}))
    catalog = read_catalog(path)

    write_catalog(path, catalog)

    assert path.read_text().startswith("# Ours.\n\nmodels:\n")
    assert read_catalog(path) == catalog
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "", ".", "a//b", "a\\b", "./a"])
def test_only_plain_relative_paths_are_inside(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        require_inside(path)
