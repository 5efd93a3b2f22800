"""The file that a fit writes and the router loads: models, where they came from, and how good they were."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from edge.engine.files import replace_file
from edge.engine.settings import ConfigError
from router.embedder import Embedding, EmbeddingIdentity
from router.scoring.answer_check import AnswerChecker, CheckModel
from router.scoring.query_model import QueryFile
from router.scoring.stage_one import QueryScorer

_FORMAT: Final = "hybrid-score-2"
_NOTHING: Final = msgspec.Raw(b"null")
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class SourceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of labels, by its name alone; the digest says which."""

    name: str
    sha256: Sha256
    rows: Count


class Provenance(Struct, frozen=True, forbid_unknown_fields=True):
    """What was fitted on. `pair` names the two models, `source` where the labels are from, `license` on what terms."""

    pair: str
    files: list[SourceFile]
    source: str = ""
    license: str = ""


class ReliabilityBin(Struct, frozen=True, forbid_unknown_fields=True):
    """Out-of-fold scores of about the same size: their mean, the share that gained, and how many they are."""

    score: Share
    gained: Share
    rows: Count


class ScoreArtifact(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file. `embedding` is None where the query model needs none."""

    format: Literal["hybrid-score-2"] = _FORMAT
    provenance: Provenance
    embedding: EmbeddingIdentity | None
    query: QueryFile
    check: CheckModel | None = None
    metrics: dict[str, float] = {}
    reliability: list[ReliabilityBin] = []


class _Header(Struct, frozen=True):
    format: str = ""
    check: msgspec.Raw = _NOTHING


def load_artifact(path: Path) -> ScoreArtifact:
    """Read a file; arrays are checked when `open_scoring` makes models of them.

    Raises:
        ConfigError: it cannot be read, is of another format, or is damaged; one line with file, key and fix.
    """
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_Header).format
        if found != _FORMAT:
            raise ConfigError(f"{path}: format: is {found!r} instead of {_FORMAT!r}; fit it again with `hybrid fit`")
        return msgspec.json.decode(content, type=ScoreArtifact)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); name a file that `hybrid fit` wrote") from exc
    except msgspec.MsgspecError as exc:
        raise ConfigError(f"{path}: not a whole score artifact ({exc}); fit or copy it again") from exc


def has_check(path: Path) -> bool:
    """Whether a file has a check, without loading it; a wrong file has none, and is for `load_artifact` to refuse."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Header).check != _NOTHING
    except (OSError, msgspec.MsgspecError):
        return False


def save_artifact(path: Path, artifact: ScoreArtifact) -> None:
    """Write the file whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        replace_file(path, msgspec.json.encode(artifact) + b"\n")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror}); name a file in a writable folder") from exc


def open_scoring(
    artifact: ScoreArtifact, embedding: Embedding | None, *, name: str = "artifact"
) -> tuple[QueryScorer, AnswerChecker | None]:
    """The models of a file, ready to compute.

    Args:
        artifact: As loaded.
        embedding: The embedding model that there is; None leaves the refined estimate out.
        name: The artifact's path, for messages.

    Raises:
        ConfigError: an array is damaged, or the embedding model is not the one fitted with; one line.
    """
    width = None
    if artifact.embedding is not None and embedding is not None:
        width = embedding.encoder.width
        if embedding.identity != artifact.embedding:
            raise ConfigError(
                f"{name}: embedding: was fitted with {artifact.embedding.label}, but {embedding.identity.label} is "
                "given; give that model, or fit the artifact again"
            )
    try:
        checker = AnswerChecker(artifact.check) if artifact.check is not None else None
        return QueryScorer(artifact.query, width), checker
    except (ValueError, ConfigError) as exc:
        raise ConfigError(f"{name}: {exc}") from exc
