"""
Bases made on this host from Debian's packages, for where no image registry can be reached.

`mmdebstrap` is Debian's own tool for it; the result is what `debian:12-slim` is, plus the named packages.
"""

import tempfile
from pathlib import Path

from deploy.images.parts import LOCAL_BASE, run

SUITE = "bookworm"
PACKAGES = {
    # libpython: what Triton's Python backend links with
    LOCAL_BASE: ("python3.11", "libpython3.11", "ca-certificates"),
    # stands in for the images of Valkey and HAProxy
    "hybrid-servers:local": ("redis-server", "haproxy"),
}
_LIMIT_S = 600.0
_UNREAD = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
_DOCKERFILE = """\
FROM hybrid-servers-packages:local
RUN mkdir /data && chown 999:1000 /data
"""


def make_base(name: str) -> None:
    """Make one of `PACKAGES` anew.

    Raises:
        ImageError: mmdebstrap or the engine failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "base.tar"
        paths = [f"--dpkgopt=path-exclude={path}" for path in _UNREAD]
        kept = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
        include = f"--include={','.join(PACKAGES[name])}"
        run(["mmdebstrap", "-q", "--variant=minbase", include, *paths, kept, SUITE, str(archive)], limit_s=_LIMIT_S)
        if name == LOCAL_BASE:
            run(["docker", "import", str(archive), name], limit_s=_LIMIT_S)
            return
        run(["docker", "import", str(archive), "hybrid-servers-packages:local"], limit_s=_LIMIT_S)
        folder = Path(scratch) / "context"
        folder.mkdir()
        (folder / "Dockerfile").write_text(_DOCKERFILE)
        run(["docker", "build", "-q", "-t", name, str(folder)], limit_s=_LIMIT_S, env={"DOCKER_BUILDKIT": "0"})
