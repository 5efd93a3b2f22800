"""Wheelhouses, fetched on the host, which has its index settings; and images, built from them without a network."""

import filecmp
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from deploy.images.parts import BUILD_LOCK, CONSTRAINTS, LOCAL_BASE, ROOT, WHEELHOUSE, ImageError, Part, run

_LIMIT_S = 1200.0
# every C library up to Debian 12's
PLATFORMS = {
    architecture: [f"manylinux_2_{minor}_{machine}" for minor in range(36, 4, -1)] + [f"manylinux2014_{machine}"]
    for architecture, machine in (("amd64", "x86_64"), ("arm64", "aarch64"))
}


def fill_wheelhouse(lock: str, *, architecture: str = "amd64", folder: Path = WHEELHOUSE) -> Path:
    """Fetch what a lock names, and pip; every digest is checked. One folder may hold several architectures.

    Raises:
        ImageError: something has no wheel for that architecture, or cannot be fetched.
    """
    place = folder / lock
    shelf = folder / f".{lock}.new"
    shutil.rmtree(shelf, ignore_errors=True)
    shelf.mkdir(parents=True)
    options = [
        "--only-binary",
        ":all:",
        "--no-deps",
        "--implementation",
        "cp",
        "--python-version",
        "3.11",
        "-d",
        str(shelf),
    ]
    options += [part for name in PLATFORMS[architecture] for part in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options]
    run([*pip, "--require-hashes", "-r", str(CONSTRAINTS / f"{lock}.txt")], limit_s=_LIMIT_S)
    run([*pip, "pip"], limit_s=_LIMIT_S)
    place.mkdir(exist_ok=True)
    for wheel in shelf.iterdir():
        # one that is there already stays: nothing is sent to the engine anew
        if not (place / wheel.name).exists():
            _adopt(wheel, place, folder)
    shutil.rmtree(shelf)
    _stamp(lock, architecture, folder).write_text(_lock_digest(lock))
    return place


def is_filled(lock: str, *, architecture: str = "amd64", folder: Path = WHEELHOUSE) -> bool:
    """Whether a wheelhouse holds what its lock names now."""
    stamp = _stamp(lock, architecture, folder)
    return stamp.exists() and stamp.read_text() == _lock_digest(lock)


def _stamp(lock: str, architecture: str, folder: Path) -> Path:
    # beside the wheels, not among them: they are copied into a layer
    return folder / f".{lock}.{architecture}"


def _lock_digest(lock: str) -> str:
    return sha256((CONSTRAINTS / f"{lock}.txt").read_bytes()).hexdigest()


def _adopt(wheel: Path, place: Path, folder: Path) -> None:
    """Move a wheel into its wheelhouse; as a hard link where another has it, so that it is sent to the engine once."""
    twin = next(folder.glob(f"*/{wheel.name}"), None)
    if twin is not None and filecmp.cmp(twin, wheel, shallow=False):
        (place / wheel.name).hardlink_to(twin)
    else:
        wheel.rename(place / wheel.name)


def build_image(part: Part, *, version: str, base: str = LOCAL_BASE, registry: str = "") -> str:
    """Build a part's image for this machine's architecture; returns its name.

    Raises:
        ImageError: the engine failed, or the wheelhouse is not that of the lock.
    """
    for lock in (part.lock, BUILD_LOCK):
        place = WHEELHOUSE / lock
        place.mkdir(parents=True, exist_ok=True)  # an empty one makes pip ask its index
        if any(place.iterdir()) and not is_filled(lock):
            raise ImageError(f"{place}: holds the wheels of another {lock}.txt; run `make wheelhouse`")
    name = part.image(version, registry)
    options = build_options(part, version=version, base=base)
    run(["docker", "build", "-q", "-t", name, *options, "."], limit_s=_LIMIT_S, env=_engine())
    return name


def build_options(part: Part, *, version: str, base: str) -> list[str]:
    """What `docker build` and `docker buildx build` are told of a part."""
    arguments = {"BASE": base, "PART": str(part), "LOCK": part.lock, "VERSION": version, "REVISION": revision()}
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    return ["-f", "deploy/images/Dockerfile", "--target", str(part), *given]


def revision() -> str:
    """The commit that is checked out, or `unknown`."""
    try:
        return run(["git", "rev-parse", "HEAD"], limit_s=30)
    except ImageError:
        return "unknown"


def has_buildx() -> bool:
    """Whether this host's Docker builds with BuildKit."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    asked = subprocess.run([docker, "buildx", "version"], capture_output=True, cwd=ROOT, check=False)  # noqa: S603
    return asked.returncode == 0


def _engine() -> dict[str, str]:
    # a new client without buildx would refuse instead of using the engine's own builder
    return {} if has_buildx() else {"DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")}
