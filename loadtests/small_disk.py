"""A small disk of one's own, which can be filled and made read-only without harm to anybody else."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


class MountError(Exception):
    """A file system cannot be mounted here: that needs root."""


class SmallDisk:
    """A tmpfs."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self.megabytes = megabytes

    def mount(self) -> None:
        """Begin.

        Raises:
            MountError: that is not allowed.
        """
        try:
            self._mount()
        except (OSError, subprocess.CalledProcessError) as exc:
            raise MountError(f"a file system cannot be mounted here (needs root): {exc}") from exc

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

    def _mount(self) -> None:
        self._run("mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m", "tmpfs", str(self.folder))

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=10)


class ImageDisk(SmallDisk):
    """An ext4 in a file, which can also be protected under who has files open: tmpfs does not look again."""

    def protect(self, folder: Path, *, protected: bool) -> None:
        """Whether every write to what is in the folder fails, to mapped pages too, as on a read-only disk."""
        self._run("sync", "-f", str(folder))  # or a page that is dirty already can be written on
        self._run("chattr", "-R", "+i" if protected else "-i", str(folder))

    def _mount(self) -> None:
        image = self.folder.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(self.megabytes * 1_048_576)
        self._run("mkfs.ext4", "-q", "-m", "0", str(image))
        self._run("mount", "-o", "loop", str(image), str(self.folder))


@contextlib.contextmanager
def mounted(disk: SmallDisk) -> Iterator[SmallDisk]:
    """While it is mounted, on a folder that is made for it."""
    disk.folder.mkdir()
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()
