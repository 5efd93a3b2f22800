"""
The model store on disk:

    <store>/<name>/<version>/       a complete artifact: it appears in one rename (a replacement takes two, and is
                                    undone if the process dies between them)
    <store>/.work/<name>@<version>/
        source/                     source files, whole or partial; an interrupted pull keeps them for the next
        artifact/                   an artifact being written; of no use after a crash
    <store>/.locks/<name>@<version> one process at a time works on one model
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge.models.errors import StoreError

WORK = ".work"
LOCKS = ".locks"


@dataclass(frozen=True, slots=True)
class Staging:
    """Where one model is put together before it is published."""

    source: Path
    artifact: Path


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, version: str) -> Path:
        """Where this model is, or will be."""
        return self.root / name / version

    def folders(self) -> list[Path]:
        """Every published model, sorted."""
        return sorted(path for path in self.root.glob("[!.]*/[!.]*") if path.is_dir())

    def find(self, name: str) -> Path:
        """The one published version of a model, the last by name if there are several. Raises `StoreError`."""
        versions = [path for path in self.folders() if path.parent.name == name]
        if not versions:
            raise StoreError(f"{self.root}: holds no {name}.")
        return versions[-1]

    @contextmanager
    def lock(self, name: str, version: str, *, on_wait: Callable[[], None]) -> Iterator[None]:
        """Own this model against other processes; `on_wait` is called once if another one owns it now.

        The kernel frees the lock when its owner dies, however it dies.
        """
        path = self.root / LOCKS / f"{name}@{version}"
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def stage(self, name: str, version: str) -> Staging:
        """Folders to work in, with what an interrupted pull fetched, nothing of what it half wrote. Needs the lock."""
        work = self.root / WORK / f"{name}@{version}"
        staging = Staging(work / "source", work / "artifact")
        with _writing(work):
            self._restore(work, name, version)
            shutil.rmtree(staging.artifact, ignore_errors=True)
            staging.artifact.mkdir(parents=True)
            staging.source.mkdir(exist_ok=True)
        return staging

    def publish(self, name: str, version: str) -> Path:
        """Make the staged artifact visible, durably and whole, and drop the work folder. Needs the lock."""
        work = self.root / WORK / f"{name}@{version}"
        target = self.folder(name, version)
        with _writing(target):
            _sync_tree(work / "artifact")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(work / "replaced")
            (work / "artifact").rename(target)
            _sync(target.parent)
        shutil.rmtree(work, ignore_errors=True)
        return target

    def sweep(self) -> None:
        """Remove what killed pulls half wrote; leaves models that a process works on now, and partial downloads."""
        for work in (self.root / WORK).glob("*"):
            name, _, version = work.name.partition("@")
            with suppress(_Busy), self.lock(name, version, on_wait=_refuse):
                self._restore(work, name, version)
                shutil.rmtree(work / "artifact", ignore_errors=True)
                with suppress(OSError):  # still holds a partial download
                    (work / "source").rmdir()
                    work.rmdir()

    def _restore(self, work: Path, name: str, version: str) -> None:
        """Undo a replacement that died between its two renames."""
        replaced = work / "replaced"
        if replaced.exists() and not self.folder(name, version).exists():
            replaced.rename(self.folder(name, version))
        shutil.rmtree(replaced, ignore_errors=True)


class _Busy(Exception):  # noqa: N818 - a signal between two functions here, not an error
    pass


def _refuse() -> None:
    raise _Busy


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreError(f"{path}: cannot be written ({exc.strerror}); choose another place with --store.") from exc


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        _sync(path)
    _sync(root)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
