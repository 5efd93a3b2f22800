"""Files appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from edge.engine.settings import ConfigError


def write_file(path: Path, content: bytes) -> None:
    """Replace a file in one step.

    Raises:
        ConfigError: its folder cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o644)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror}); give another place") from exc


def write_lines(path: Path, rows: Iterable[Struct]) -> None:
    """Replace a file of JSON lines in one step. Raises `ConfigError`."""
    write_file(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
