"""
A model on disk: a folder whose `manifest.json` lists every other file with size and sha256.

Nothing of an artifact is loaded before all of it was checked.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from edge.engine.errors import EngineError
from edge.engine.files import replace_file

MANIFEST: Final = "manifest.json"
_DIGITS: Final = 16

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class ArtifactError(EngineError):
    """One line: which file, what is wrong, what to do."""


class ArtifactKind(StrEnum):
    """What a model computes."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    JUDGE = "judge"


class FileDigest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must be."""

    sha256: Sha256
    bytes: Annotated[int, Meta(ge=0)]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`; `files` maps relative POSIX paths."""

    format: Literal[1] = 1
    kind: ArtifactKind
    name: str
    version: str
    source: dict[str, str] = {}
    files: dict[str, FileDigest]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A checked model."""

    path: Path
    manifest: Manifest
    identity: str
    """See `identify`."""

    @classmethod
    def open(cls, path: Path, kind: ArtifactKind | None = None) -> "Artifact":
        """Read the manifest and check every file against it.

        Raises:
            ArtifactError: there is no artifact, it is damaged, or not of `kind`.
        """
        manifest, identity = _read_manifest(path / MANIFEST)
        if kind is not None and manifest.kind is not kind:
            raise ArtifactError(f"{path}: is a model of kind {manifest.kind}; name one of kind {kind}")
        for name, digest in manifest.files.items():
            _check(path, name, digest)
        return cls(path, manifest, identity)

    def file(self, name: str) -> Path:
        """The path of a checked file.

        Raises:
            ArtifactError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.path}: its manifest lists no {name}; export or pull the model again")
        return self.path / name


def write_manifest(
    path: Path, *, kind: ArtifactKind, name: str, version: str, source: Mapping[str, str] | None = None
) -> Manifest:
    """Describe the files that now lie in the folder `path`, replacing its manifest in one step.

    Raises:
        ArtifactError: a file cannot be read, or the manifest not be written.
    """
    try:
        files = {found.relative_to(path).as_posix(): digest_file(found) for found in sorted(_files(path))}
        manifest = Manifest(kind=kind, name=name, version=version, source=dict(source or {}), files=files)
        replace_file(path / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be described ({exc}); check the folder and its permissions") from exc
    return manifest


def identify(path: Path) -> str:
    """`<name>/<version>@<beginning of its manifest's sha256>` of the artifact in `path`, whose files stay unread.

    Other bytes have another identity; it is printable ASCII without spaces, whatever the manifest says.

    Raises:
        ArtifactError: there is no artifact.
    """
    return _read_manifest(path / MANIFEST)[1]


def digest_file(path: Path) -> FileDigest:
    """A file's digest and size. Raises `OSError`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(digest, file.tell())


def _read_manifest(path: Path) -> tuple[Manifest, str]:
    """The manifest, and the artifact's identity."""
    try:
        content = path.read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: does not exist; pull the model, or correct its path") from None
    except (OSError, msgspec.MsgspecError) as exc:
        raise ArtifactError(f"{path}: is not a manifest ({exc}); pull or export the model again") from exc
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    return manifest, f"{quote(manifest.name, safe='')}/{quote(manifest.version, safe='')}@{digest}"


def _check(folder: Path, name: str, wanted: FileDigest) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise ArtifactError(f"{folder / MANIFEST}: lists {name!r}, which is outside; pull the model again")
    path = folder / pure
    try:
        size = path.stat().st_size
        found = digest_file(path) if size == wanted.bytes else None
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be read ({exc.strerror}); pull or export the model again") from exc
    if found is None:
        raise ArtifactError(f"{path}: has {size} bytes instead of {wanted.bytes}; pull or export the model again")
    if found != wanted:
        raise ArtifactError(f"{path}: its sha256 is {found.sha256}, not the manifest's; pull or export the model again")


def _files(path: Path) -> Iterator[Path]:
    return (found for found in path.rglob("*") if found.is_file() and found != path / MANIFEST)
