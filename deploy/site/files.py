"""How the files of a site come to be: whole or not at all, and secrets where nobody else on the host can look."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.site.errors import SiteError
from edge.engine.files import replace_file


def write(path: Path, content: bytes) -> None:
    """Write a file and the folders above it.

    Raises:
        SiteError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as exc:
        raise SiteError(f"{path}: cannot be written ({exc.strerror})") from exc


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else changes what runs of a site meanwhile; the kernel frees the lock when its owner dies.

    Raises:
        SiteError: somebody does.
    """
    try:
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as exc:
        raise SiteError(f"{folder}: another command is changing this site; wait for its end") from exc


def write_private(path: Path, content: bytes, *, only_owner: bool = False) -> None:
    """Write a secret into a folder that only its owner may enter.

    The file itself stays readable unless `only_owner`: a container that it is mounted in runs as another user, and
    compose cannot change an owner on the way.

    Raises:
        SiteError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        replace_file(path, content)
        path.chmod(0o400 if only_owner else 0o444)
    except OSError as exc:
        raise SiteError(f"{path}: cannot be written ({exc.strerror})") from exc
