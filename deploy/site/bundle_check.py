"""`hybrid site check` of a bundle: its signature, every digest, and a bill of materials for each image."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from deploy.site.archive import MANIFEST, SIGNATURE, digest_beginning, ending, read_entries, read_small
from deploy.site.errors import SiteError
from deploy.site.manifest import Manifest
from deploy.site.materials import check_materials
from deploy.site.signing import is_signed


def find_bundle_faults(bundle: Path, public_key: Path) -> list[str]:
    """Everything wrong with a bundle; empty if it may be installed.

    Raises:
        SiteError: it or the key cannot be read.
    """
    content, signature = read_small(bundle, MANIFEST, SIGNATURE)
    if not is_signed(content, signature, public_key):
        return [f"{bundle}: not signed by {public_key}, or damaged; whatever it says of itself may be false"]
    manifest = Manifest.parse(content)
    try:
        return [*_find_damage(bundle, manifest, signature)] or [*_find_missing_materials(bundle, manifest)]
    except (OSError, tarfile.TarError) as exc:
        raise SiteError(f"{bundle}: cannot be read ({exc}); copy it again") from exc


def _find_damage(bundle: Path, manifest: Manifest, signature: bytes) -> Iterator[str]:
    with bundle.open("rb") as file:
        beginning = digest_beginning(file, manifest.archive_bytes)
        rest = file.read(len(ending(manifest.render(), signature)) + 1)
    if beginning == manifest.archive_sha256 and rest == ending(manifest.render(), signature):
        return
    found = {entry.path: entry for entry in read_entries(bundle)}
    faults = [f"{file.path}: damaged or missing" for file in manifest.files if found.get(file.path) != file]
    listed = {file.path for file in manifest.files} | {MANIFEST, SIGNATURE}
    faults += [f"{path}: in the archive, but not in the manifest" for path in sorted(found.keys() - listed)]
    for fault in faults or ["bytes between or after its files are not those that were signed"]:
        yield f"{bundle}: {fault}; copy it again"


def _find_missing_materials(bundle: Path, manifest: Manifest) -> Iterator[str]:
    listed = {file.path for file in manifest.files}
    for image in manifest.images:
        if image.materials not in listed:
            yield f"{bundle}: no bill of materials of {image.name} ({image.materials}); make the bundle again"
            continue
        try:
            check_materials(read_small(bundle, image.materials)[0])
        except SiteError as exc:
            yield f"{bundle}: {image.materials}, of {image.name}: {exc}; make the bundle again"
