"""A site's running services, as upgrades see them: each can be replaced, removed, and asked over HTTP."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from deploy.site.compose import Compose
from deploy.site.errors import SiteError

_ASK_S: Final = 20.0
_LAST_LINES: Final = 3
_ASK: Final = """
import http.client, sys
host, _, port = sys.argv[1].rpartition(":")
connection = http.client.HTTPConnection(host, int(port), timeout=float(sys.argv[3]))
body = sys.stdin.buffer.read()
connection.request("POST" if body else "GET", sys.argv[2], body or None, {"content-type": "application/json"})
answer = connection.getresponse()
sys.stdout.buffer.write(b"%d\\n" % answer.status + answer.read())
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said."""

    status: int
    content: bytes


class Services(Protocol):
    """Whatever runs them: containers, or processes. Every method raises `SiteError` and nothing else."""

    def replace(self, name: str) -> None:
        """Stop it once its running work is done, if it runs; start it as its files say now, and do not wait for it."""
        ...

    def remove(self, name: str) -> None:
        """Stop it once its running work is done."""
        ...

    def ask(self, name: str, path: str, body: bytes | None = None) -> Answer | None:
        """GET, or POST of JSON, by the service's own network; None if nobody answers."""
        ...

    def has_died(self, name: str) -> bool:
        """Whether it ended by itself since it was started."""
        ...

    def last_words(self, name: str) -> str:
        """The end of its log, in one line."""
        ...


class ComposeServices:
    """The containers of a site's folder; those of the profile `upgrade` too."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            SiteError: it is no site, or there is no compose on this host.
        """
        self._compose = Compose(folder, profiles=("upgrade",))
        self.services = self._compose.services()
        self._containers: dict[str, str] = {}

    def replace(self, name: str) -> None:
        """See `Services`; its running work has the container's `stop_grace_period`."""
        self._containers.pop(name, None)
        self._compose.up("--no-deps", "--force-recreate", name)

    def remove(self, name: str) -> None:
        """See `Services`."""
        self._containers.pop(name, None)
        self._compose.remove(name)

    def ask(self, name: str, path: str, body: bytes | None = None) -> Answer | None:
        """See `Services`; from inside the container, since nothing but the endpoint is published."""
        container = self._find(name)
        if container is None:
            return None
        host, port = self.services[name].listens
        asked = ["docker", "exec", "-i", container, "python", "-c", _ASK, f"{host}:{port}", path, str(_ASK_S)]
        try:
            done = subprocess.run(asked, input=body or b"", capture_output=True, timeout=2 * _ASK_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return None
        status, _, content = done.stdout.partition(b"\n")
        return Answer(int(status), content) if done.returncode == 0 else None

    def has_died(self, name: str) -> bool:
        """See `Services`; the engine may have started it again since."""
        return self._docker(name, "inspect", "--format", "{{.State.Running}} {{.RestartCount}}") != "true 0"

    def last_words(self, name: str) -> str:
        """See `Services`."""
        return self._docker(name, "logs", "--tail", str(_LAST_LINES)) or "it said nothing"

    def _find(self, name: str) -> str | None:
        """Its container: compose takes most of a second to tell, and only `replace` and `remove` change it."""
        if name not in self._containers and (found := self._compose.containers(name)):
            self._containers[name] = found[0]
        return self._containers.get(name)

    def _docker(self, name: str, *arguments: str) -> str:
        """What the engine says of a service's container, in one line."""
        container = self._find(name)
        if container is None:
            raise SiteError(f"{name}: has no container")
        said = subprocess.run(  # noqa: S603 - the engine's own command
            ["docker", *arguments, container],  # noqa: S607
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_ASK_S,
            check=False,
        )
        return " ".join(said.stdout.split())
