"""From a catalogue entry to a complete artifact in the store, and what the store holds of it."""

from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

from edge.engine.artifact import MANIFEST, Artifact, ArtifactError, Manifest, write_manifest
from edge.engine.errors import EngineError
from edge.models import judge, llama, minilm
from edge.models.catalog import Catalog, Exporter, Model
from edge.models.errors import CatalogError, ExportError
from edge.models.fetch import Fetcher
from edge.models.store import Store

RECIPE = "recipe"


class State(StrEnum):
    READY = "ready"
    PREPARED = "prepared"
    ABSENT = "absent"
    OUTDATED = "outdated"
    DAMAGED = "damaged"


class Entry(Struct, frozen=True):
    """One model as `list` and `verify` show it; `problem` says what is wrong and how to mend it."""

    label: str
    kind: str
    state: State
    bytes: int = 0
    license: str = ""
    problem: str = ""


def pull(model: Model, store: Store, fetcher: Fetcher) -> tuple[Path, State]:
    """Make sure that the store holds this model, every digest checked; PREPARED if something had to be done.

    Raises a `ModelsError`; then the store shows either what it showed before or the whole model, never a part.
    """
    if not model.files:
        raise CatalogError(f"{model.name}: the catalogue has no digests for it; run `hybrid models pin {model.name}`.")
    say = fetcher.progress.say
    with store.lock(model.name, model.version, on_wait=lambda: say(f"{model.label}: waiting for another process")):
        folder = store.folder(model.name, model.version)
        if folder.exists() and is_current(model, folder):
            return folder, State.READY
        staging = store.stage(model.name, model.version)
        fetcher.fetch(model, staging.source)
        say(f"{model.label}: exporting as {model.prepare.precision}")
        prepare(model, staging.source, staging.artifact)
        return store.publish(model.name, model.version), State.PREPARED


def is_current(model: Model, folder: Path) -> bool:
    """Whether `folder` holds, undamaged, what this entry prepares."""
    try:
        return Artifact.open(folder).manifest.source.get(RECIPE) == model.recipe()
    except ArtifactError:
        return False


def prepare(model: Model, source: Path, destination: Path) -> None:
    """Export the files of `source` into `destination` and seal them with a manifest. Raises `ExportError`."""
    try:
        match model.prepare.exporter:
            case Exporter.MINILM:
                minilm.export(source, destination, precision=model.prepare.precision)
            case Exporter.LLAMA:
                llama.export_checkpoint(source, destination, precision=model.prepare.precision)
            case Exporter.JUDGE:
                judge.export(source, destination, model.prepare)
    except EngineError as exc:
        raise ExportError(f"{model.label}: {exc}") from exc
    origin = {
        "from": str(model.source),
        "license": model.license,
        "precision": model.prepare.precision,
        RECIPE: model.recipe(),
    }
    write_manifest(destination, kind=model.kind, name=model.name, version=model.version, source=origin)


def check_folder(folder: Path) -> Entry:
    """Read every file of one model in the store and compare it with its manifest."""
    label = f"{folder.parent.name}/{folder.name}"
    try:
        manifest = Artifact.open(folder).manifest
    except ArtifactError as exc:
        return Entry(label, "", State.DAMAGED, problem=str(exc))
    return _entry(label, manifest, State.READY)


def inspect(catalog: Catalog, store: Store) -> list[Entry]:
    """Every model of the catalogue, then those that only the store has. Reads manifests, no weights."""
    entries = []
    folders = store.folders()
    for model in catalog.models:
        folder = store.folder(model.name, model.version)
        if folder in folders:
            folders.remove(folder)
            entries.append(_look_at(folder, model.recipe()))
        else:
            entries.append(Entry(model.label, model.kind, State.ABSENT, license=model.license))
    return entries + [_look_at(folder, None) for folder in folders]


def _look_at(folder: Path, recipe: str | None) -> Entry:
    """An entry from the manifest alone; with a `recipe`, OUTDATED unless the artifact was prepared by it."""
    label = f"{folder.parent.name}/{folder.name}"
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as exc:
        return Entry(label, "", State.DAMAGED, problem=f"{folder / MANIFEST}: {exc}; pull the model again.")
    if recipe is not None and manifest.source.get(RECIPE) != recipe:
        return _entry(label, manifest, State.OUTDATED)
    return _entry(label, manifest, State.READY)


def _entry(label: str, manifest: Manifest, state: State) -> Entry:
    size = sum(file.bytes for file in manifest.files.values())
    return Entry(label, manifest.kind, state, size, manifest.source.get("license", ""))
