"""A small disk of the test's own, which can be filled, made read-only, and hung by nobody else."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes

    def mount(self) -> None:
        """Begin; skips the test where that is not allowed."""
        try:
            self._run("mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "tmpfs", str(self.folder))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a file system cannot be mounted here (needs root)")

    def unmount(self) -> None:
        """End."""
        self._run("umount", "-l", str(self.folder))

    def set_writable(self, *, writable: bool) -> None:
        """Whether anything can be written; fails while a file is open for writing, unless that is forced."""
        self._run("mount", "-o", f"remount,{'rw' if writable else 'ro'}", str(self.folder))

    def fill(self) -> Path:
        """Leave no room at all."""
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65_536))
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(1))
        return ballast

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=10)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A mounted one."""
    folder.mkdir()
    disk = SmallDisk(folder, megabytes)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()
