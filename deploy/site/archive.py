"""
A bundle's archive: plain tar, written in one pass and never held in memory.

The same files give the same bytes: no times, owners or permissions of this host. Whoever reads it sees the manifest and
its signature last; all before them is under the digest that the manifest states.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final

from deploy.site.errors import SiteError
from deploy.site.manifest import Entry, check_path

MANIFEST: Final = "manifest"
SIGNATURE: Final = "manifest.sig"
CHUNK_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = tarfile.BLOCKSIZE
_SMALL_BYTES: Final = 16 << 20
_READABLE: Final = 0o644


class ArchiveWriter:
    """Appends files to a new tar file, whose header is written once a file's size is known."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, path: str, chunks: Iterable[bytes]) -> Entry:
        """Append one file.

        Raises:
            SiteError: a bundle takes no such name.
            OSError: it cannot be written.
        """
        check_path(path)
        begin = self._file.tell()
        self._file.write(bytes(_BLOCK_BYTES))
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            size += self._file.write(chunk)
        self._file.write(bytes(-size % _BLOCK_BYTES))
        end = self._file.tell()
        self._file.seek(begin)
        self._file.write(_header(path, size))
        self._file.seek(end)
        return Entry(path, digest.hexdigest(), size)

    def finish(self, manifest: bytes, signature: bytes) -> None:
        """Append the manifest, its signature and the end. Raises `OSError`."""
        self._file.write(ending(manifest, signature))


def ending(manifest: bytes, signature: bytes) -> bytes:
    """What follows the bytes that the manifest's `archive` covers, to the end of the bundle."""
    parts = [
        _header(path, len(content)) + content + bytes(-len(content) % _BLOCK_BYTES)
        for path, content in ((MANIFEST, manifest), (SIGNATURE, signature))
    ]
    return b"".join(parts) + bytes(2 * _BLOCK_BYTES)


def read_small(bundle: Path, *paths: str) -> list[bytes]:
    """The content of some small files; the others are skipped unread.

    Raises:
        SiteError: one is missing, or it is no bundle.
    """
    found = {}
    try:
        with tarfile.open(bundle, "r:") as archive:
            for member in archive:
                if member.name in paths and member.isreg() and member.size <= _SMALL_BYTES:
                    file = archive.extractfile(member)
                    found[member.name] = file.read() if file else b""
    except (OSError, tarfile.TarError) as exc:
        raise SiteError(f"{bundle}: no bundle ({exc}); copy it again") from exc
    for path in paths:
        if path not in found:
            raise SiteError(f"{bundle}: no {path} in it; it was cut off or damaged: copy it again")
    return [found[path] for path in paths]


def read_entries(bundle: Path) -> Iterator[Entry]:
    """Every file of the archive that can be found, as it is. Raises `OSError` and `tarfile.TarError`."""
    with tarfile.open(bundle, "r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                yield Entry(member.name, digest_beginning(file, member.size), member.size)


def digest_beginning(file: IO[bytes], size: int) -> str:
    """The sha256 of a file's next `size` bytes, or of fewer if it ends before. Raises `OSError`."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def read_chunks(path: Path) -> Iterator[bytes]:
    """A file, piece by piece. Raises `OSError`."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _header(path: str, size: int) -> bytes:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, _READABLE
    return member.tobuf(tarfile.GNU_FORMAT)
