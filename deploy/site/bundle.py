"""
`hybrid site bundle`: one signed archive with all that a box without a network needs to run a site.

In it: the site's folder without its secrets, the models that its parts name, its images, a bill of materials for each,
and `install.sh`, which needs no Python. Models are checked before; what is written is never whole in memory; and the
bundle appears under its name when it is complete.
"""

import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.site.archive import ArchiveWriter, digest_beginning, read_chunks
from deploy.site.check import Site, find_references
from deploy.site.compose import Service
from deploy.site.engine import Engine
from deploy.site.errors import SiteError
from deploy.site.manifest import Image, Manifest, Model, check_path
from deploy.site.materials import describe, take
from edge.engine.artifact import MANIFEST as ARTIFACT_MANIFEST
from edge.engine.artifact import Artifact, ArtifactError, digest_file

INSTALLER: Final = Path(__file__).with_name("install.sh")
IMAGES: Final = "images.tar.gz"
_ENVIRONMENT: Final = ".env"
_SECRETS: Final = PurePosixPath("/run/secrets")
_MODELS: Final = PurePosixPath("/models")
_GZIP_LEVEL: Final = 1  # 6 took three times the CPU for a tenth less
_WORTH_SAYING_BYTES: Final = 1_000_000
_PRIVATE: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bhy-[A-Za-z0-9_-]{43}")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle takes from a site: files by their place in the bundle, and what the box has to bring."""

    site: str
    files: dict[str, Path | bytes] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    secrets: tuple[str, ...] = ()
    image_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Images:
    """Images and how to get their bytes; `chunks` is one `docker save` archive."""

    images: tuple[Image, ...] = ()
    materials: dict[str, bytes] = field(default_factory=dict)
    chunks: Iterable[bytes] = ()


def bundle(site: Site, out: Path, key: Ed25519PrivateKey, given: dict[str, Path], say: Say) -> Manifest:
    """Write a site's bundle to `out`; `given` are bills of materials by image, where they are not to be made here.

    Raises:
        SiteError: something that belongs in it is missing, or may not be in it; or the disk has no room.
    """
    if out.is_relative_to(site.folder):
        raise SiteError(f"{out}: lies in the site, and would be in its next bundle; name a file elsewhere")
    contents, engine = collect(site), Engine()
    images = tuple(engine.image(name) for name in contents.image_names)
    most = sum(map(engine.size_bytes, contents.image_names)) + sum(map(_size, contents.files.values()))
    say(f"needs at most {most / 1e6:.0f} MB in {out.parent}; {_free_bytes(out.parent) / 1e6:.0f} MB are free")
    if _free_bytes(out.parent) < most:
        raise SiteError(f"{out.parent}: no room for the bundle; name a file on another disk")
    materials = {}
    for image in images:
        say(f"listing what is in {image.name}")
        materials[image.materials] = take(given[image.name]) if image.name in given else describe(image)
    say("packing the images")
    return write_bundle(out, contents, Images(images, materials, _save(engine, images)), key, say)


def collect(site: Site) -> Contents:
    """What a site's bundle holds, its images by name: of the services that start with the profiles in its `.env`.

    Raises:
        SiteError: the site leans on files outside its folder, or a model is damaged.
    """
    environment = _environment(site.folder / _ENVIRONMENT)
    profiles = _profiles(environment)
    services = [service for service in site.services.values() if _starts(service, profiles)]
    secrets = sorted({_secret(site, source) for service in services for source in _secret_sources(service)})
    stores = {store for service in services for store in _stores(site, service)}
    for compose in site.folder.glob("compose*.yaml"):
        if "../" in compose.read_text():
            raise SiteError(f"{compose}: leans on files outside the site; make one with `hybrid site new`")
    files: dict[str, Path | bytes] = dict(_site_files(site, secrets, stores))
    files[f"site/{_ENVIRONMENT}"] = "\n".join([*environment, ""]).encode()
    models = {model.name: model for service in services for model in _add_models(service, files)}
    for path in (site.folder.name, *secrets, *files):
        check_path(path)
    names = sorted({service.image for service in services})
    for name in names:
        if "@" in name:
            raise SiteError(f"{name}: an engine keeps no digest of an image that it loads; name it by a tag")
    return Contents(
        site.folder.name, files, tuple(models[name] for name in sorted(models)), tuple(secrets), tuple(names)
    )


def write_bundle(out: Path, contents: Contents, images: Images, key: Ed25519PrivateKey, say: Say) -> Manifest:
    """Write the archive, its files in the order of their names, then the signed manifest.

    Raises:
        SiteError: it cannot be written.
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        with partial.open("w+b") as file:
            manifest = _write(file, contents, images, key, say)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    except OSError as exc:
        raise SiteError(f"{exc.filename or partial}: {exc.strerror}; the bundle was not made") from exc
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def _save(engine: Engine, images: tuple[Image, ...]) -> Iterator[bytes]:
    yield from engine.save([image.name for image in images])
    for image in images:
        if engine.image(image.name) != image:
            raise SiteError(f"{image.name}: was built anew meanwhile; make the bundle again")


def _write(file: BinaryIO, contents: Contents, images: Images, key: Ed25519PrivateKey, say: Say) -> Manifest:
    archive, entries, packed = ArchiveWriter(file), [], Gzip(images.chunks)
    files: dict[str, Path | bytes | Gzip] = {"install.sh": INSTALLER, **contents.files, **images.materials}
    if images.images:
        files[IMAGES] = packed
    for path in sorted(files):
        entry = archive.add(path, _chunks(files[path]))
        entries.append(entry)
        if entry.bytes >= _WORTH_SAYING_BYTES:
            say(f"{path}: {entry.bytes / 1e6:.1f} MB")
    end = file.tell()
    file.seek(0)
    manifest = Manifest(
        site=contents.site,
        version=version("hybrid-inference-router"),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        unpacked_bytes=packed.unpacked_bytes,
        images=images.images,
        models=contents.models,
        secrets=contents.secrets,
        files=tuple(entries),
        archive_sha256=digest_beginning(file, end),
        archive_bytes=end,
    )
    content = manifest.render()
    archive.finish(content, key.sign(content))
    return Manifest.parse(content)


class Gzip:
    """Bytes packed on their way, without name and time; counts what they were before."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.unpacked_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        packer = zlib.compressobj(_GZIP_LEVEL, wbits=31)
        for chunk in self._chunks:
            self.unpacked_bytes += len(chunk)
            yield packer.compress(chunk)
        yield packer.flush()


def _site_files(site: Site, secrets: list[str], stores: set[Path]) -> Iterator[tuple[str, Path]]:
    left_out = [site.folder / "secrets", *(site.folder / secret for secret in secrets), *stores]
    for path in sorted(site.folder.rglob("*")):
        if any(path.is_relative_to(place) for place in left_out):
            continue
        if path.is_symlink():
            raise SiteError(f"{path}: is a link; put the file itself into the site")
        if path.is_file():
            if _PRIVATE.search(path.read_bytes()):
                raise SiteError(f"{path}: has a private key in it; move it to {site.folder / 'secrets'}")
            yield f"site/{path.relative_to(site.folder).as_posix()}", path


def _environment(path: Path) -> list[str]:
    """The site's `.env` for the box, where the models lie in the site's folder."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [*(line for line in lines if not line.startswith("MODELS=")), "MODELS=./models"]


def _profiles(environment: list[str]) -> set[str]:
    said = [line.partition("=")[2] for line in environment if line.startswith("COMPOSE_PROFILES=")]
    return {name.strip() for line in said for name in line.split(",") if name.strip()}


def _starts(service: Service, profiles: set[str]) -> bool:
    named = set(service.settings.get("profiles", ()))
    return not named or bool(named & profiles)


def _secret_sources(service: Service) -> Iterator[Path]:
    for target, source in service.mounts.items():
        if source is not None and target.is_relative_to(_SECRETS):
            yield source


def _secret(site: Site, source: Path) -> str:
    folder = site.folder / "secrets"
    if source.parent != folder:
        raise SiteError(f"{source}: a bundle leaves secrets to the box, which looks for them in {folder}")
    return source.name


def _stores(site: Site, service: Service) -> Iterator[Path]:
    """The model stores that it mounts; all else that it mounts has to be in the site's folder."""
    for target, source in service.mounts.items():
        if source is None or target.is_relative_to(_SECRETS):
            continue
        if target == _MODELS:
            yield source
        elif not source.is_relative_to(site.folder):
            raise SiteError(
                f"{source}: {service.name} mounts it, and it lies outside the site; a bundle cannot hold it"
            )


def _add_models(service: Service, files: dict[str, Path | bytes]) -> Iterator[Model]:
    """Artifacts that a part names go in whole; of one that it only takes a file from, that file."""
    if service.part is None:
        return
    for reference in find_references(service):
        source = service.on_host(reference)
        if source is None or not reference.is_relative_to(_MODELS):
            continue
        place = f"models/{reference.relative_to(_MODELS)}"
        if not source.is_dir():
            files[place] = source
            continue
        try:
            artifact = Artifact.open(source)
        except ArtifactError as exc:
            raise SiteError(str(exc)) from exc
        for name in (ARTIFACT_MANIFEST, *artifact.manifest.files):
            files[f"{place}/{name}"] = source / name
        yield Model(place.removeprefix("models/"), digest_file(source / ARTIFACT_MANIFEST).sha256)


def _chunks(content: Path | bytes | Gzip) -> Iterable[bytes]:
    match content:
        case Path():
            return read_chunks(content)
        case bytes():
            return [content]
    return content


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
