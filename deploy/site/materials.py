"""Bills of materials for a bundle's images (CycloneDX JSON), by the tool that images are made with."""

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from deploy.site.compose import Service
from deploy.site.errors import SiteError
from deploy.site.manifest import Image


class _Component(Struct):
    name: str
    version: str


class _Materials(Struct, rename="camel"):
    """What one cannot be without."""

    bom_format: Literal["CycloneDX"]
    spec_version: str
    components: list[_Component]


def check_materials(content: bytes) -> None:
    """
    Raises:
        SiteError: it is no bill of materials.
    """
    try:
        msgspec.json.decode(content, type=_Materials)
    except msgspec.MsgspecError as exc:
        raise SiteError(f"not a bill of materials in CycloneDX JSON ({exc})") from exc


def take(file: Path) -> bytes:
    """A bill of materials that somebody else made.

    Raises:
        SiteError: it is none.
    """
    try:
        content = file.read_bytes()
        check_materials(content)
    except (OSError, SiteError) as exc:
        raise SiteError(f"{file}: {exc}") from exc
    return content


def describe(image: Image) -> bytes:
    """What is in an image, as CycloneDX JSON.

    Raises:
        SiteError: it cannot be told, or the tool is not here.
    """
    try:
        from deploy.images.contents import bill_of_materials  # noqa: PLC0415 - not in the wheel
        from deploy.images.parts import ImageError  # noqa: PLC0415
    except ImportError as exc:
        raise SiteError(f"bundles are made in a checkout, after `make images` ({exc})") from exc
    ours = Service("", image.name).part is not None
    try:
        return bill_of_materials(image.name, image.name.rpartition(":")[2], ours=ours).encode()
    except ImageError as exc:
        raise SiteError(f"{exc}; give one with --sbom {image.name}=FILE") from exc
