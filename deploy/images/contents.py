"""What is in an image: its size by package, and a bill of materials."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed_version

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


def size_bytes(image: str) -> int:
    """An image's size on disk, uncompressed.

    Raises:
        ImageError: there is no such image.
    """
    return int(run(["docker", "image", "inspect", "-f", "{{.Size}}", image], limit_s=_LIMIT_S))


def bill_of_materials(image: str, version: str) -> str:
    """An image's packages, Python's and Debian's, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

    Raises:
        ImageError: the image does not run.
    """
    bom = Bom()
    whole = Component(name=image.partition(":")[0], version=version, type=ComponentType.CONTAINER)
    bom.metadata.component = whole
    for kind, packages in (("pypi", python_packages(image)), ("deb", debian_packages(image))):
        for package in packages:
            url = PackageURL(kind, "debian" if kind == "deb" else None, package.name, package.version)
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


def product_version() -> str:
    """What this checkout calls itself.

    Raises:
        ImageError: it is not installed.
    """
    try:
        return installed_version("hybrid-inference-router")
    except ModuleNotFoundError as exc:
        raise ImageError("hybrid-inference-router is not installed; run through make") from exc
