"""The images: which there are, and the commands that make them."""

import os
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHEELHOUSE = ROOT / "deploy" / "images" / "wheelhouse"
CONSTRAINTS = ROOT / "deploy" / "constraints"
BUILD_LOCK = "build"
LOCAL_BASE = "hybrid-base:local"


class ImageError(Exception):
    """One line: what cannot be made, why, and what to do."""


class Part(StrEnum):
    """What runs in a container of its own."""

    ROUTER = "router"
    EDGE = "edge"
    CLOUD = "cloud"

    @property
    def lock(self) -> str:
        """The name of its dependencies in `deploy/constraints`."""
        return "cloud-cpu" if self is Part.CLOUD else str(self)

    def image(self, version: str, registry: str = "") -> str:
        """Its image's name; a `registry` ends with a slash."""
        return f"{registry}hybrid-{self}:{version}"


def run(command: list[str], *, limit_s: float, env: dict[str, str] | None = None) -> str:
    """A command's output; what it says of its progress is shown.

    Raises:
        ImageError: it is not here, failed, or took too long.
    """
    if shutil.which(command[0]) is None:
        raise ImageError(f"{command[0]} is not here; install it")
    try:
        done = subprocess.run(  # noqa: S603 - commands of this package
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit_s,
            env=env and os.environ | env,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ImageError(f"{' '.join(command[:3])} took over {limit_s:.0f} s") from exc
    if done.returncode:
        raise ImageError(f"{' '.join(command[:3])} failed with status {done.returncode}")
    return done.stdout.strip()
