"""
`python -m loadtests.peers.environments`: an environment for each peer from PyPI, under `.bench/peers/NAME`, with the
versions and digests that `requirements/NAME.txt` pins. One that is up to date is left alone.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import click

from deploy.demo import ROOT
from loadtests.peers.contestants import ENVIRONMENTS, find_nginx

_REQUIREMENTS: Final = Path(__file__).with_name("requirements")
_MARK: Final = ".installed"
_LIMIT_S: Final = 600


class InstallError(Exception):
    """A peer cannot be installed; one line."""


def peers() -> list[str]:
    """All that have requirements."""
    return sorted(path.stem for path in _REQUIREMENTS.glob("*.txt"))


def pinned_versions() -> list[str]:
    """What `requirements/*.in` ask for, as `NAME==VERSION`; and nginx's, if there is one."""
    wanted = [path.read_text().strip() for path in sorted(_REQUIREMENTS.glob("*.in"))]
    program = find_nginx()
    if program is None:
        return wanted
    said = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10, check=False).stderr
    return [*wanted, said.strip().removeprefix("nginx version: ")]


def install(name: str) -> bool:
    """Make or renew a peer's environment; False if it was up to date.

    Raises:
        InstallError: the installer failed.
    """
    requirements = _REQUIREMENTS / f"{name}.txt"
    folder = ROOT / ENVIRONMENTS / name
    # all contestants that are in Python run on the same build of it
    wanted = f"{sys.base_prefix} {sys.version.split()[0]} {sha256(requirements.read_bytes()).hexdigest()}\n"
    mark = folder / _MARK
    if mark.exists() and mark.read_text() == wanted:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    for command in _commands(requirements, folder):
        _run(name, command)
    mark.write_text(wanted)
    return True


def _commands(requirements: Path, folder: Path) -> list[list[str]]:
    python = str(folder / "bin" / "python")
    if (uv := shutil.which("uv")) is not None:
        pip = [uv, "pip", "install", "--quiet", "--python", python]
        return [[uv, "venv", "--quiet", "--python", sys.executable, str(folder)], _locked(pip, requirements)]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [[sys.executable, "-m", "venv", str(folder)], _locked(pip, requirements)]


def _locked(pip: Sequence[str], requirements: Path) -> list[str]:
    return [*pip, "--require-hashes", "-r", str(requirements)]


def _run(name: str, command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise InstallError(f"{name}: not installed within {_LIMIT_S} s") from exc
    if done.returncode:
        raise InstallError(f"{name}: {_complaint(done.stderr) or f'status {done.returncode}'}")


def _complaint(said: str) -> str:
    """The installer's first error, else the last that it said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return [*errors, *reversed(lines), ""][0]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
def main(names: Sequence[str]) -> None:
    """Install the peers that `make bench-peers` measures (NAMES; default: all). One that fails is named and left out.

    \b
    Example:
      python -m loadtests.peers.environments vllm-router
    """
    if unknown := set(names) - set(peers()):
        raise click.ClickException(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(peers())}")
    for name in names or peers():
        try:
            click.echo(f"{name}: {'installed' if install(name) else 'up to date'}")
        except InstallError as exc:
            click.echo(str(exc), err=True)


if __name__ == "__main__":
    main()
