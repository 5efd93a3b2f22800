"""The router's configuration: one strict YAML file, read once into a frozen value."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from edge.engine.settings import ConfigError, read_settings
from router.config.checks import CHECKS
from router.config.file import Config
from router.config.sections import (
    AnyPolicy,
    BudgetPolicy,
    Check,
    CloudSharePolicy,
    EmbeddingUse,
    Probe,
    Scoring,
    ThresholdPolicy,
)
from router.config.targets import AnyTarget, Canary, Cancel, OpenAITarget, Price, TritonTarget

__all__ = [
    "AnyPolicy",
    "AnyTarget",
    "BudgetPolicy",
    "Canary",
    "Cancel",
    "Check",
    "CloudSharePolicy",
    "Config",
    "EmbeddingUse",
    "OpenAITarget",
    "Price",
    "Probe",
    "Scoring",
    "ThresholdPolicy",
    "TritonTarget",
    "json_schema",
    "load_config",
    "read_secret",
]


def load_config(path: Path, processes: int | None = None) -> Config:
    """Read and check a file; relative paths inside it start at its folder.

    With `processes` that many count, whatever the file says.

    Raises:
        ConfigError: one line naming file, key, value and fix.
    """
    config = read_settings(path, Config, fix="`hybrid schema` prints what is allowed")
    if processes is not None:
        config = replace(config, processes=processes)
    complaint = next((c for check in CHECKS if (c := check(config))), None)
    if complaint:
        raise ConfigError(f"{path}: {complaint}")
    return config


def read_secret(path: Path) -> str:
    """A secret from its file, without the newline at its end.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot read this secret ({exc}); check the path and its permissions") from exc
    if not secret:
        raise ConfigError(f"{path}: this secret is empty; write it on one line")
    return secret


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema, for editors and `hybrid schema`."""
    return msgspec.json.schema(Config, schema_hook=_path_schema)


def _path_schema(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "description": "a path; relative ones start at this file's folder"}
    raise NotImplementedError(f"no JSON Schema for {kind}")
