"""Configuration files of every part: strict YAML, decoded once into a frozen value, wrong in one line."""

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T")


class ConfigError(Exception):
    """A file that a person wrote is wrong; the message is one line with file, key, value and fix."""


def read_settings(path: Path, kind: type[T], *, fix: str) -> T:
    """Read `path` as a value of `kind`; relative paths inside it start at its folder.

    Args:
        path: A YAML file.
        kind: What it must be, usually a `msgspec.Struct` that forbids unknown fields.
        fix: What to do about a wrong key or value, for the message.

    Raises:
        ConfigError: it cannot be read, or is not that.
    """

    def resolve(wanted: type, value: object) -> Any:
        if wanted is Path and isinstance(value, str):
            return Path(os.path.normpath(path.parent / Path(value).expanduser()))
        raise TypeError(f"Expected `{wanted.__name__}`, got {value!r}")

    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), type=kind, dec_hook=resolve)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); give the path of a YAML file") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(exc).split())}") from exc
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{path}: {exc}; {fix}") from exc
