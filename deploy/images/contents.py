"""What is in an image: its size by package, and a bill of materials."""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from deploy.images.parts import ImageError, run

_LIMIT_S = 120.0
# runs inside the image, on its own Python
_LIST = """
import importlib.metadata as m, importlib.util, json, os
found = []
for one in m.distributions():
    # as files are now: pruned ones are gone
    places = {str(one.locate_file(file)) for file in one.files or ()}
    places |= {importlib.util.cache_from_source(place) for place in places if place.endswith(".py")}
    size = sum(os.lstat(place).st_size for place in places if os.path.lexists(place))
    found.append({"name": one.name, "version": one.version, "bytes": size})
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package; `bytes` as its files are on disk."""

    name: str
    version: str
    bytes: int


def python_packages(image: str) -> list[Package]:
    """An image's Python packages, largest first.

    Raises:
        ImageError: the image does not run.
    """
    found = [Package(**one) for one in json.loads(_inside(image, ["python", "-c", _LIST]))]
    return sorted(found, key=lambda package: -package.bytes)


def debian_packages(image: str) -> list[Package]:
    """What its base is made of.

    Raises:
        ImageError: the image does not run.
    """
    return list(_parse_status(_inside(image, ["cat", "/var/lib/dpkg/status"])))


def foreign_packages(image: str) -> dict[str, list[Package]]:
    """By kind of package, what an image lists in Debian's or Alpine's way, read without running it.

    Raises:
        ImageError: it lists none.
    """
    container = run(["docker", "create", "--network", "none", image, "unused"], limit_s=_LIMIT_S)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for kind, (path, parse) in _LISTS.items():
                copy = Path(scratch) / kind
                command = ["docker", "cp", "-L", f"{container}:{path}", str(copy)]
                found = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)  # noqa: S603
                if found.returncode == 0:
                    return {kind: list(parse(copy.read_text()))}
    finally:
        run(["docker", "rm", container], limit_s=_LIMIT_S)
    raise ImageError(f"{image}: lists no packages of Debian or Alpine; no bill of materials can be made of it")


def size_bytes(image: str) -> int:
    """An image's size on disk, uncompressed.

    Raises:
        ImageError: there is no such image.
    """
    return int(run(["docker", "image", "inspect", "-f", "{{.Size}}", image], limit_s=_LIMIT_S))


def bill_of_materials(image: str, version: str, *, ours: bool = True) -> str:
    """An image's packages as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

    Python's and Debian's of one of `ours`; of another, Debian's or Alpine's, and nothing of it is run.

    Raises:
        ImageError: the image does not run, or lists no packages.
    """
    bom = Bom()
    whole = Component(name=image.rpartition(":")[0] or image, version=version, type=ComponentType.CONTAINER)
    bom.metadata.component = whole
    listed = {"pypi": python_packages(image), "deb": debian_packages(image)} if ours else foreign_packages(image)
    for kind, packages in listed.items():
        for package in packages:
            url = PackageURL(kind, _VENDORS.get(kind), package.name, package.version)
            bom.components.add(
                Component(
                    name=package.name, version=package.version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url)
                )
            )
    bom.register_dependency(whole, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1)


def _inside(image: str, command: list[str]) -> str:
    return run(["docker", "run", "--rm", "--network", "none", "--read-only", image, *command], limit_s=_LIMIT_S)


def _parse_status(text: str) -> Iterator[Package]:
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Installed-Size): (.*)$", block, re.MULTILINE))
        if "Package" in fields:
            yield Package(fields["Package"], fields["Version"], 1024 * int(fields.get("Installed-Size", 0)))


def _parse_installed(text: str) -> Iterator[Package]:
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^([PVI]):(.*)$", block, re.MULTILINE))
        if "P" in fields:
            yield Package(fields["P"], fields["V"], int(fields.get("I", 0)))


_LISTS: Final[dict[str, tuple[str, Callable[[str], Iterator[Package]]]]] = {
    "deb": ("/var/lib/dpkg/status", _parse_status),
    "apk": ("/lib/apk/db/installed", _parse_installed),
}
_VENDORS: Final = {"deb": "debian", "apk": "alpine"}


def product_version() -> str:
    """What this checkout calls itself.

    Raises:
        ImageError: it is not installed.
    """
    try:
        return installed_version("hybrid-inference-router")
    except ModuleNotFoundError as exc:
        raise ImageError("hybrid-inference-router is not installed; run through make") from exc
