"""Where the embedding model is."""

from dataclasses import dataclass
from pathlib import Path

from edge.engine.artifact import MANIFEST
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
