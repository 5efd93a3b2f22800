"""The container engine of this host, as far as bundles need it."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Final

from deploy.site.archive import CHUNK_BYTES
from deploy.site.errors import SiteError
from deploy.site.manifest import Image

_ANSWER_S: Final = 60.0


class Engine:
    """`docker`, wherever the operator has it."""

    def __init__(self) -> None:
        """
        Raises:
            SiteError: it is not installed.
        """
        docker = shutil.which("docker")
        if docker is None:
            raise SiteError("docker is not here; install it")
        self._docker = docker

    def image(self, name: str) -> Image:
        """An image that is here.

        Raises:
            SiteError: it is not.
        """
        return Image(self._ask(name, "{{.Id}}"), name)

    def size_bytes(self, name: str) -> int:
        """An image's size, uncompressed, with the layers that it shares with others.

        Raises:
            SiteError: it is not here.
        """
        return int(self._ask(name, "{{.Size}}"))

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Images as one `docker save` archive, piece by piece; a layer that several have is in it once.

        Raises:
            SiteError: the engine failed.
        """
        command = [self._docker, "save", *names]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as saving:  # noqa: S603 - the engine's own command
            try:
                assert saving.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
                while chunk := saving.stdout.read(CHUNK_BYTES):
                    yield chunk
            except BaseException:
                saving.kill()
                raise
        if saving.returncode:
            raise SiteError(f"docker save failed with status {saving.returncode}; see what it said above")

    def _ask(self, name: str, template: str) -> str:
        command = [self._docker, "image", "inspect", "-f", template, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)  # noqa: S603
        if done.returncode:
            said = " ".join(done.stderr.split())
            raise SiteError(f"{name}: {said}; `make images` builds ours, `docker pull` brings others")
        return done.stdout.strip()
