"""`python -m deploy.images`: what the Makefile's image targets call."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from deploy.images.base import PACKAGES, make_base
from deploy.images.build import PLATFORMS, build_image, fill_wheelhouse
from deploy.images.contents import bill_of_materials, product_version, python_packages, size_bytes
from deploy.images.parts import BUILD_LOCK, CONSTRAINTS, LOCAL_BASE, ROOT, ImageError, Part
from deploy.images.release import check_tools
from deploy.images.release import release as release_part
from edge.engine.files import replace_file

_BASE = click.option("--base", default=LOCAL_BASE, show_default=True, help="Debian with Python 3.11.")
_VERSION = click.option("--version", default="dev", show_default=True, help="The images' tag.")
_PARTS = click.argument("parts", nargs=-1, type=click.Choice([*map(str, Part)]))
_SMALL_BYTES = 1_000_000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make, measure and release the images of router, edge and cloud."""


@main.command()
@click.option("--anew", is_flag=True, help="Also those that are there.")
def base(*, anew: bool) -> None:
    """Make the local bases with mmdebstrap, where no registry is reachable."""
    with _readable_errors():
        for name in PACKAGES:
            if anew or not _has_image(name):
                make_base(name)
            click.echo(name)


@main.command()
@_PARTS
@click.option("--architecture", type=click.Choice([*PLATFORMS]), default="amd64", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Elsewhere than in the build context.")
def wheelhouse(parts: tuple[str, ...], architecture: str, folder: Path | None) -> None:
    """Fetch every dependency as a wheel, digests checked."""
    with _readable_errors():
        for lock in (*(part.lock for part in _chosen(parts)), BUILD_LOCK):
            place = fill_wheelhouse(lock, architecture=architecture, **({"folder": folder} if folder else {}))
            click.echo(f"{place}: {len(list(place.glob('*.whl')))} wheels")


@main.command()
@_PARTS
@_BASE
@_VERSION
def build(parts: tuple[str, ...], base: str, version: str) -> None:
    """Build the images for this machine."""
    with _readable_errors():
        for part in _chosen(parts):
            click.echo(build_image(part, version=version, base=base))


@main.command()
@_PARTS
@_BASE
@_VERSION
def sizes(parts: tuple[str, ...], base: str, version: str) -> None:
    """Each image's size without its base, by package; MB are 10^6 bytes, uncompressed."""
    with _readable_errors():
        for part in _chosen(parts):
            image = part.image(version)
            own = size_bytes(image) - size_bytes(base)
            packages = [package for package in python_packages(image) if package.bytes >= _SMALL_BYTES]
            click.echo(f"{image}: {own / 1e6:.1f} MB without its base")
            for package in packages:
                click.echo(f"  {package.bytes / 1e6:7.1f}  {package.name} {package.version}")
            click.echo(
                f"  {(own - sum(package.bytes for package in packages)) / 1e6:7.1f}  everything smaller than 1 MB"
            )


@main.command()
@_PARTS
@_VERSION
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dist/sbom"), show_default=True)
def sbom(parts: tuple[str, ...], version: str, out: Path) -> None:
    """Write each image's bill of materials, CycloneDX 1.6."""
    out.mkdir(parents=True, exist_ok=True)
    with _readable_errors():
        for part in _chosen(parts):
            file = out / f"hybrid-{part}.cdx.json"
            replace_file(file, bill_of_materials(part.image(version), product_version()).encode())
            click.echo(file)


@main.command()
@_PARTS
@_VERSION
def scan(parts: tuple[str, ...], version: str) -> None:
    """Look for known vulnerabilities: trivy on the image where it is installed, else pip-audit on its dependencies."""
    worst = 0
    for part in _chosen(parts):
        if trivy := shutil.which("trivy"):
            command = [trivy, "image", "--exit-code", "1", "--severity", "HIGH,CRITICAL", part.image(version)]
        elif audit := shutil.which(
            "pip-audit", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ):
            lock = CONSTRAINTS / f"{part.lock}.txt"
            command = [
                audit,
                "--strict",
                "--require-hashes",
                "--disable-pip",
                "--progress-spinner",
                "off",
                "-r",
                str(lock),
            ]
        else:
            raise click.ClickException("neither trivy nor pip-audit is here; install one (`pip install pip-audit`)")
        click.echo(f"{part}: {Path(command[0]).name}")
        worst = max(worst, subprocess.run(command, cwd=ROOT, timeout=600, check=False).returncode)  # noqa: S603
    sys.exit(worst)


@main.command()
@_PARTS
@click.option("--registry", required=True, help="Where to push, as in registry.example.org/team/")
@click.option("--base", default="python:3.11-slim-bookworm", show_default=True, help="Debian with Python 3.11.")
def release(parts: tuple[str, ...], registry: str, base: str) -> None:
    """Build for every architecture, tag by version, push, sign by digest, attest the bill of materials."""
    with _readable_errors():
        check_tools()
        for part in _chosen(parts):
            click.echo(release_part(part, version=product_version(), base=base, registry=f"{registry.rstrip('/')}/"))


def _chosen(parts: tuple[str, ...]) -> list[Part]:
    return [Part(part) for part in parts] or list(Part)


def _has_image(name: str) -> bool:
    docker = shutil.which("docker")
    if docker is None:
        raise ImageError("docker is not here; install it")
    return subprocess.run([docker, "image", "inspect", name], capture_output=True, check=False).returncode == 0  # noqa: S603


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except ImageError as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    main(prog_name="python -m deploy.images")
