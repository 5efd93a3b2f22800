"""Where tritonserver is on this machine: in NVIDIA's container, or in the `nvidia-pytriton` wheel (never imported)."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

WHEEL = "nvidia-pytriton"


_NVIDIA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


class InstallationError(Exception):
    """tritonserver cannot be started here; the text says what is missing and where to get it."""


@dataclass(frozen=True, slots=True)
class Installation:
    server: Path
    backends: Path
    """Folder with a folder for each backend."""
    stub: Path | None
    """The Python backend's process for this Python; `None` where the backend's folder holds it already."""
    libraries: tuple[Path, ...]
    """Folders that the dynamic linker must search."""

    def prepare_backends(self, folder: Path) -> Path:
        """Return a folder for `--backend-directory`: the installation's own, or `folder`, filled with links."""
        if self.stub is None:
            return self.backends
        python = folder / "python"
        python.mkdir(parents=True)
        for file in (*(self.backends / "python").iterdir(), self.stub):
            (python / file.name).symlink_to(file)
        return folder

    def environment(self) -> dict[str, str]:
        """
        Return the environment that tritonserver starts in.

        The stub finds its Python, and thereby the environment's packages, by looking for `python3` on PATH. Stubs of
        Python 3.11 and later ignore PYTHONPATH, so our models read it themselves; it holds the packages of this
        process, which need not be installed.
        """
        own = str(Path(__file__).resolve().parent.parent)
        return os.environ | {
            "PATH": _joined(str(Path(sys.executable).parent), os.environ.get("PATH")),
            "PYTHONPATH": _joined(own, os.environ.get("PYTHONPATH")),
            "LD_LIBRARY_PATH": _joined(*map(str, self.libraries), os.environ.get("LD_LIBRARY_PATH")),
        }


def find_installation() -> Installation:
    """
    Find the tritonserver on PATH or at NVIDIA's usual place, else the wheel's.

    Raises `InstallationError`.
    """
    found = shutil.which("tritonserver", path=_joined(os.environ.get("PATH"), "/opt/tritonserver/bin"))
    if found is not None:
        server = Path(found).resolve()
        return Installation(server, server.parent.parent / "backends", stub=None, libraries=())
    try:
        return _wheel(distribution(WHEEL))
    except PackageNotFoundError as exc:
        raise InstallationError(
            f"no tritonserver on PATH and no {WHEEL} here; run in NVIDIA's container or pip install {WHEEL}"
        ) from exc


def has_nvidia_device() -> bool:
    """Whether this machine (or container) has an NVIDIA GPU; under WSL it hides behind DirectX."""
    return any(device.exists() for device in _NVIDIA_DEVICES)


def _wheel(wheel: Distribution) -> Installation:
    root = Path(str(wheel.locate_file("pytriton/tritonserver")))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        known = ", ".join(sorted(folder.name for folder in stub.parent.parent.iterdir()))
        raise InstallationError(f"{WHEEL} {wheel.version} has no stub for Python {python}; it has them for {known}")
    if not version("numpy").startswith("1."):
        raise InstallationError(
            f"numpy {version('numpy')} is installed, but the Python backend of {WHEEL} crashes with any but numpy < 2"
        )
    return Installation(
        root / "bin" / "tritonserver",
        root / "backends",
        stub,
        (Path(str(wheel.locate_file("nvidia_pytriton.libs"))), _libpython_folder()),
    )


def _libpython_folder() -> Path:
    name = sysconfig.get_config_var("INSTSONAME")
    for folder in _library_folders():
        if (folder / name).is_file():
            return folder
    raise InstallationError(f"the Python backend needs {name}, which is not here; on Debian: apt install libpython3.11")


def _library_folders() -> Iterator[Path]:
    yield Path(sysconfig.get_config_var("LIBDIR"))
    yield Path(sys.base_prefix) / "lib"


def _joined(*paths: str | None) -> str:
    return os.pathsep.join(path for path in paths if path)
