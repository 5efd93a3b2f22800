"""
A release: images for amd64 and arm64, tagged by version, pushed, signed by digest, each with its bill of materials.

Needs buildx (several architectures at once) and cosign; without them it says so before anything is built.
"""

import json
import shutil
import tempfile
from pathlib import Path

from deploy.images.build import build_options, fill_wheelhouse, has_buildx
from deploy.images.contents import bill_of_materials
from deploy.images.parts import BUILD_LOCK, ImageError, Part, run

_LIMIT_S = 3600.0
# nvidia-pytriton, the CPU cloud's tritonserver, has wheels for x86-64 alone
ARCHITECTURES = {Part.ROUTER: ("amd64", "arm64"), Part.EDGE: ("amd64", "arm64"), Part.CLOUD: ("amd64",)}


def check_tools() -> None:
    """
    Raises:
        ImageError: a tool that a release needs is not here.
    """
    if not has_buildx():
        raise ImageError("a release needs docker buildx, which this host has not; install Docker's buildx plugin")
    if shutil.which("cosign") is None:
        raise ImageError("a release needs cosign to sign what it pushes; install it")


def release(part: Part, *, version: str, base: str, registry: str) -> str:
    """Build, push and sign one part; returns its reference by digest.

    Raises:
        ImageError: a step failed; nothing that was not pushed whole is signed.
    """
    architectures = ARCHITECTURES[part]
    for architecture in architectures:
        for lock in (part.lock, BUILD_LOCK):
            fill_wheelhouse(lock, architecture=architecture)
    name = part.image(version, registry)
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "metadata.json"
        platforms = ",".join(f"linux/{architecture}" for architecture in architectures)
        options = build_options(part, version=version, base=base)
        buildx = ["docker", "buildx", "build", "--platform", platforms, "--push", "--metadata-file", str(said)]
        run([*buildx, "-t", name, *options, "."], limit_s=_LIMIT_S)
        digest = json.loads(said.read_text())["containerimage.digest"]
        reference = f"{registry}hybrid-{part}@{digest}"
        run(["cosign", "sign", "--yes", reference], limit_s=_LIMIT_S)
        materials = Path(scratch) / "bom.json"
        materials.write_text(bill_of_materials(reference, version))
        attest = ["cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", str(materials)]
        run([*attest, reference], limit_s=_LIMIT_S)
    return reference
