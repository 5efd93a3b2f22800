"""Bills of materials for a bundle's images, by the tool that images are made with."""

from deploy.site.compose import Service
from deploy.site.errors import SiteError
from deploy.site.manifest import Image


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
        raise SiteError(str(exc)) from exc
