"""Results as files, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from edge.engine.files import replace_file
from edge.engine.settings import ConfigError


def write_file(path: Path, content: bytes) -> None:
    """Replace a file in one step.

    Raises:
        ConfigError: its folder cannot be written.
    """
    try:
        replace_file(path, content)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror}); give another place") from exc


def write_lines(path: Path, rows: Iterable[Struct]) -> None:
    """Replace a file of JSON lines in one step. Raises `ConfigError`."""
    write_file(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
