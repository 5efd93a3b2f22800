"""Put digests into a catalogue: of a hub repository as it is today, or of a folder as it is now."""

import re
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
import msgspec

from edge.engine.artifact import ArtifactKind, FileDigest, digest_file
from edge.models.catalog import Exporter, FolderSource, HubSource, Model, Precision, Prepare
from edge.models.errors import CatalogError, FetchError
from edge.models.fetch import hub_errors
from edge.models.progress import Progress
from edge.models.store import Store

# A checkpoint in Hugging Face layout; never pickled weights, never code.
CHECKPOINT_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
    }
)
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


def checkpoint_files(paths: Iterable[str]) -> list[str]:
    """Those of `paths` that belong to a checkpoint, sorted."""
    return sorted(path for path in paths if path in CHECKPOINT_FILES or WEIGHTS.fullmatch(path))


def pin_model(model: Model, base: Path) -> Model:
    """`model` with the digests of its folder's checkpoint files as they are now."""
    if not isinstance(model.source, FolderSource):
        raise CatalogError(f"{model.name}: comes from {model.source}, and only a folder can be pinned.")
    folder = base / model.source.path
    return msgspec.structs.replace(model, files=_record(folder))


def add_model(
    repo: str, revision: str, name: str | None, precision: Precision, store: Store, progress: Progress
) -> Model:
    """A chat model of the hub: its commit resolved, its files fetched into the store's work folder and recorded.

    The next pull finds the files there. Raises `FetchError`.
    """
    commit, licence, paths = _look_up(repo, revision)
    slug = name or re.sub(r"[^a-z0-9._-]+", "-", repo.rpartition("/")[2].lower()).strip("-._")
    version = commit[:12]
    with store.lock(slug, version, on_wait=lambda: progress.say(f"{slug}: waiting for another process")):
        folder = store.stage(slug, version).source
        for path in paths:
            progress.say(f"{slug}/{version}: downloading {path}")
            with hub_errors(repo):
                huggingface_hub.hf_hub_download(repo, path, revision=commit, local_dir=folder)
        files = _record(folder)
    prepare = Prepare(Exporter.LLAMA, precision)
    source = HubSource(repo, commit)
    return msgspec.convert(
        msgspec.to_builtins(Model(slug, version, ArtifactKind.CHAT, licence, source, prepare, files)), type=Model
    )


def _look_up(repo: str, revision: str) -> tuple[str, str, list[str]]:
    """The commit of `revision`, the licence that the hub states, and the files to fetch."""
    with hub_errors(repo):
        found = huggingface_hub.HfApi().model_info(repo, revision=revision)
    paths = checkpoint_files(sibling.rfilename for sibling in found.siblings or [])
    if found.sha is None or not any(WEIGHTS.fullmatch(path) for path in paths):
        raise FetchError(f"{repo}: has no model.safetensors at {revision}; use a repository or revision that has one.")
    licences = [tag.removeprefix("license:") for tag in found.tags or [] if tag.startswith("license:")]
    return found.sha, " ".join(licences) or "unknown", paths


def _record(folder: Path) -> dict[str, FileDigest]:
    try:
        paths = checkpoint_files(path.name for path in folder.iterdir())
    except OSError as exc:
        raise CatalogError(f"{folder}: cannot be read ({exc.strerror}); correct `path` in the catalogue.") from exc
    if not any(WEIGHTS.fullmatch(path) for path in paths):
        raise CatalogError(f"{folder}: holds no model.safetensors; it is not a checkpoint in Hugging Face layout.")
    return {path: digest_file(folder / path) for path in paths}
