"""A model in the store is whole or not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.models.errors import StoreError
from edge.models.store import Store

ROOT = Path(__file__).parents[2]


def _unexpected() -> None:
    raise AssertionError("nobody else holds the lock")


def test_a_model_appears_whole_and_leaves_no_work_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("m", "1", on_wait=_unexpected):
        staging = store.stage("m", "1")
        (staging.artifact / "model.onnx").write_bytes(b"new")
        assert store.folders() == []

        folder = store.publish("m", "1")

    assert store.folders() == [folder]
    assert (folder / "model.onnx").read_bytes() == b"new"
    assert not list(tmp_path.glob(".work/*"))


def test_publishing_replaces_an_older_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for content in (b"old", b"new"):
        with store.lock("m", "1", on_wait=_unexpected):
            (store.stage("m", "1").artifact / "model.onnx").write_bytes(content)
            store.publish("m", "1")

    assert (store.folder("m", "1") / "model.onnx").read_bytes() == b"new"


def test_sweeping_drops_half_written_artifacts_and_keeps_partial_downloads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("downloading", "exporting"):
        (store.stage(name, "1").artifact / "model.onnx").write_bytes(b"half")
    part = tmp_path / ".work/downloading@1/source/model.safetensors.part"
    part.write_bytes(b"half")

    store.sweep()

    assert part.exists()
    assert not (tmp_path / ".work/downloading@1/artifact").exists()
    assert not (tmp_path / ".work/exporting@1").exists()


def test_sweeping_undoes_a_replacement_that_died_between_its_renames(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.stage("m", "1")
    replaced = tmp_path / ".work/m@1/replaced"
    replaced.mkdir()
    (replaced / "model.onnx").write_bytes(b"old")
    (tmp_path / "m").mkdir()

    store.sweep()

    assert (store.folder("m", "1") / "model.onnx").read_bytes() == b"old"


def test_sweeping_leaves_a_model_that_is_being_worked_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("m", "1", on_wait=_unexpected):
        artifact = store.stage("m", "1").artifact

        Store(tmp_path).sweep()

        assert artifact.exists()


HOLDER = """
import sys
from pathlib import Path
from edge.models.store import Store

with Store(Path(sys.argv[1])).lock("m", "1", on_wait=sys.exit):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_until_the_first_is_done(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"

        with Store(tmp_path).lock("m", "1", on_wait=holder.stdin.close):
            waited = holder.stdin.closed

    assert waited
    assert holder.returncode == 0


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"

        holder.kill()
        holder.wait()

        with Store(tmp_path).lock("m", "1", on_wait=_unexpected):
            pass


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreError, match=r"file.*--store"):
        Store(tmp_path / "file").stage("m", "1")
