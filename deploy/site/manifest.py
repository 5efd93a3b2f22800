"""
A bundle's manifest: what is in it, one plain line each, so that a box with nothing but a shell can read it.

    hybrid-bundle 1
    site NAME
    version PRODUCT
    created TIME
    unpacked BYTES
    image sha256:ID NAME
    model NAME/VERSION SHA256
    secret FILE
    file SHA256 BYTES PATH
    archive SHA256 BYTES

`unpacked` is what the images take before compression, each layer once; a model's digest is its manifest's; a `secret`
is a file that the site mounts and the bundle leaves out; `archive` is the digest of the bundle's first BYTES bytes: all
but the manifest and its signature.
"""

import re
from dataclasses import dataclass
from typing import Final

from deploy.site.errors import SiteError

FORMAT: Final = "hybrid-bundle 1"
_PATH: Final = re.compile(r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9._@+-]+(/[A-Za-z0-9._@+-]+)*")
_LONGEST_PATH: Final = 100
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its place in the bundle, and what it must be."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image by the name that the site calls it, and by digest (`sha256:` and 64 digits)."""

    id: str
    name: str

    @property
    def materials(self) -> str:
        """Where its bill of materials is in the bundle."""
        return f"sboms/{self.id.removeprefix('sha256:')}.cdx.json"


@dataclass(frozen=True, slots=True)
class Model:
    """An artifact of the store, as NAME/VERSION, and its manifest's sha256."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A bundle's content; see the module."""

    site: str
    version: str
    created: str
    unpacked_bytes: int
    images: tuple[Image, ...]
    models: tuple[Model, ...]
    secrets: tuple[str, ...]
    files: tuple[Entry, ...]
    archive_sha256: str
    archive_bytes: int

    def render(self) -> bytes:
        """Its lines."""
        lines = [FORMAT, f"site {self.site}", f"version {self.version}", f"created {self.created}"]
        lines += [f"unpacked {self.unpacked_bytes}"]
        lines += [f"image {image.id} {image.name}" for image in self.images]
        lines += [f"model {model.name} {model.sha256}" for model in self.models]
        lines += [f"secret {secret}" for secret in self.secrets]
        lines += [f"file {file.sha256} {file.bytes} {file.path}" for file in self.files]
        lines += [f"archive {self.archive_sha256} {self.archive_bytes}", ""]
        return "\n".join(lines).encode()

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """
        Raises:
            SiteError: it is not exactly what `render` would write.
        """
        try:
            manifest = _read(content.decode("ascii").splitlines())
        except (ValueError, IndexError) as exc:
            raise SiteError(f"manifest: not one of a bundle ({exc})") from exc
        if manifest.render() != content:
            raise SiteError("manifest: not as `hybrid site bundle` writes it")
        return manifest


def check_path(path: str) -> None:
    """
    Raises:
        SiteError: a file may not have this name in a bundle.
    """
    if not _PATH.fullmatch(path) or len(path) > _LONGEST_PATH:
        raise SiteError(
            f"{path}: a bundle takes names of at most {_LONGEST_PATH} letters, digits and . _ @ + -; name it otherwise"
        )


def _read(lines: list[str]) -> Manifest:
    words = [line.split(" ") for line in lines]
    if lines[0] != FORMAT:
        raise ValueError(f"it begins with {lines[0]!r}, not {FORMAT!r}")

    def every(kind: str, length: int) -> list[list[str]]:
        return [line[1:] for line in words if line[0] == kind and len(line) == length + 1]

    files = tuple(Entry(path, _digest(sha256), int(size)) for sha256, size, path in every("file", 3))
    for file in files:
        check_path(file.path)
    return Manifest(
        site=every("site", 1)[0][0],
        version=every("version", 1)[0][0],
        created=every("created", 1)[0][0],
        unpacked_bytes=int(every("unpacked", 1)[0][0]),
        images=tuple(Image(*image) for image in every("image", 2)),
        models=tuple(Model(name, _digest(sha256)) for name, sha256 in every("model", 2)),
        secrets=tuple(secret for (secret,) in every("secret", 1)),
        files=files,
        archive_sha256=_digest(every("archive", 2)[0][0]),
        archive_bytes=int(every("archive", 2)[0][1]),
    )


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no sha256")
    return text
