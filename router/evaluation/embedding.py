"""The embedding model: where it is, and how a fit uses it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.engine.artifact import MANIFEST
from edge.engine.encoder import Encoder, Tokens, Vectors
from edge.engine.session import SessionConfig
from edge.engine.settings import ConfigError

EMBEDDING = "all-minilm-l6-v2"


@dataclass(frozen=True, slots=True)
class EmbeddingChoice:
    """What a command line says: a folder, or the newest version in a model store, or none at all."""

    given: Path | None
    store: Path
    without: bool = False

    def find(self) -> Path | None:
        """The folder.

        Raises:
            ConfigError: the store (`<store>/<name>/<version>/`) holds none.
        """
        if self.without or self.given is not None:
            return None if self.without else self.given
        versions = sorted(path.parent for path in (self.store / EMBEDDING).glob(f"*/{MANIFEST}"))
        if not versions:
            raise ConfigError(
                f"{self.store}: holds no {EMBEDDING}; run `hybrid models pull {EMBEDDING}`, or give --embedding FOLDER"
            )
        return versions[-1]


class RememberingEncoder(Encoder):
    """An encoder for cross-validation: a text is embedded once, however often it is fitted on or scored."""

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError`: the files are not an encoder."""
        super().__init__(folder, SessionConfig(threads=os.cpu_count() or 1))
        self._known: dict[tuple[int, ...], Vectors] = {}

    def embed(self, rows: Sequence[Tokens]) -> Vectors:
        """As the encoder does: a vector does not depend on the other rows."""
        keys = [tuple(row) for row in rows]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        if missing:
            self._known |= zip(missing, super().embed(missing), strict=True)
        return np.stack([self._known[key] for key in keys])
