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

# the first one that the store holds
EMBEDDINGS = ("all-minilm-l6-v2-fast", "all-minilm-l6-v2")


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
        for name in EMBEDDINGS:
            if versions := sorted(path.parent for path in (self.store / name).glob(f"*/{MANIFEST}")):
                return versions[-1]
        raise ConfigError(
            f"{self.store}: holds no {EMBEDDINGS[0]}; run `hybrid models pull {EMBEDDINGS[0]}`, "
            "or give --embedding FOLDER"
        )


class RememberingEncoder(Encoder):
    """An encoder for cross-validation: a text is embedded once, however often it is fitted on or scored."""

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError`: the files are not an encoder."""
        super().__init__(folder, SessionConfig(threads=os.cpu_count() or 1))
        self._known: dict[tuple[int, ...], Vectors] = {}

    def embed(self, rows: Sequence[Tokens]) -> Vectors:
        """As the encoder does, each row alone: what is remembered must not depend on the other rows."""
        return np.stack([self._recall(tuple(row)) for row in rows])

    def _recall(self, row: tuple[int, ...]) -> Vectors:
        if row not in self._known:
            self._known[row] = super().embed([row])[0]
        return self._known[row]
