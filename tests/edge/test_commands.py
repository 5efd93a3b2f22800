"""`hybrid export` and `hybrid quantize`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.cli import export, quantize
from edge.engine.artifact import Artifact, ArtifactKind
from edge.models.drift import measure_drift
from tests.edge.checkpoints import write_checkpoint


def test_quantize_reports_the_drift_and_writes_an_artifact(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "store" / "tiny"

    result = CliRunner().invoke(quantize, ["--checkpoint", str(checkpoint), "--name", "small", "--out", str(out)])

    assert result.exit_code == 0, result.output
    assert "same greedy token" in result.output
    artifact = Artifact.open(out, ArtifactKind.CHAT)
    assert (artifact.manifest.name, artifact.manifest.source["precision"]) == ("small", "int8")
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_fewer_bits_drift_further(checkpoint: Path, tmp_path: Path) -> None:
    for precision in ("float32", "int8", "int4"):
        arguments = ["--checkpoint", str(checkpoint), "--precision", precision, "--out", str(tmp_path / precision)]
        assert CliRunner().invoke(export, arguments).exit_code == 0

    none, little, more = (
        measure_drift(tmp_path / "float32", tmp_path / name, [[72, 105], [65] * 9])
        for name in ("float32", "int8", "int4")
    )

    assert (none.agreement, none.largest_difference) == (1, 0)
    assert 0 < little.divergence_nats < more.divergence_nats
    assert 0 < little.largest_difference < more.largest_difference
    assert little.places == more.places > 40


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.json"])
def test_a_failed_export_leaves_nothing(tmp_path: Path, broken: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    (checkpoint / broken).unlink()
    (tmp_path / "out").mkdir()

    result = CliRunner().invoke(export, ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out" / "x")])

    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {checkpoint / broken}: ")
    assert not list((tmp_path / "out").iterdir())


def test_an_existing_folder_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(export, ["--checkpoint", str(checkpoint), "--out", str(tmp_path)])

    assert result.exit_code == 1
    assert "exists already" in result.output
